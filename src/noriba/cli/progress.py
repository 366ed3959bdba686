"""Progress bars, where there is a terminal to show them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from noriba.client.download import Downloader
from noriba.client.session import Session


@contextmanager
def downloading(session: Session) -> Iterator[Downloader]:
    """A downloader whose progress is shown."""
    if not sys.stderr.isatty():
        yield Downloader(session)
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (TextColumn("Downloading"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task("download", total=0)
        total = 0

        def show(more: int, known: int) -> None:
            nonlocal total
            total += known
            bars.update(task, advance=more, total=total)

        yield Downloader(session, show)
