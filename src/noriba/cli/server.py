"""``noriba down``, ``noriba status``, ``noriba logs``: the server of a home."""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from pathlib import Path
from typing import Any, BinaryIO

import click

from noriba.cli.framework import HomeCommand, note
from noriba.client.connection import Connection
from noriba.client.errors import ClientError
from noriba.home import Home, ServerInfo
from noriba.settings import default_home

FOLLOW_S = 0.2
"""How often ``logs -f`` looks for more."""


COUNTED_JOBS = 500
"""``status`` counts the states of this many jobs, the latest."""


def home_of(path: Path | None) -> Home:
    """The home that a command is about."""
    return Home((path or default_home(os.environ)).absolute())


@click.command(cls=HomeCommand)
@click.option("--all", "nodes_too", is_flag=True, help="Stop the nodes too, and with them the jobs they run.")
@click.option("--timeout", "timeout_s", default=60.0, show_default=True, help="Seconds to wait for the end.")
def down(home: Path | None, nodes_too: bool, timeout_s: float) -> None:
    """Stop the server.

    Running jobs go on without it; the next start takes them up again. With --all they are stopped as well.
    """
    place = home_of(home)
    info = place.server()
    if info is None:
        click.echo(f"No server runs in {place.path}")
    else:
        _stop(place, info, timeout_s)
        click.echo(f"Stopped the server at {info.base_url} (pid {info.pid})")
    if nodes_too and place.nodes.is_dir():
        from noriba.engines.local import stop_all_nodes

        stopped = stop_all_nodes(place.nodes)
        click.echo(f"Stopped {_counted(len(stopped), 'node')}")
    elif nodes := local_nodes(place):
        go = "goes on running and is" if len(nodes) == 1 else "go on running and are"
        click.echo(
            f"{_counted(len(nodes), 'node')} {go} taken up again by the next noriba up; "
            "noriba down --all stops them too"
        )


def _stop(place: Home, info: ServerInfo, timeout_s: float) -> None:
    try:
        descriptor = os.pidfd_open(info.pid)
    except ProcessLookupError:
        return
    try:
        signal.pidfd_send_signal(descriptor, signal.SIGTERM)
        readable, _, _ = select.select([descriptor], [], [], timeout_s)
    except ProcessLookupError:
        return
    except PermissionError as error:
        raise ClientError(
            f"The server (pid {info.pid}) belongs to another user: {error.strerror}."
        ) from error
    finally:
        os.close(descriptor)
    if not readable:
        raise ClientError(
            f"The server (pid {info.pid}) has not ended in {timeout_s:g} s; it may still finish requests. "
            f"See {info.log_file or place.server_log}, wait longer with --timeout, or end it with: kill -9 {info.pid}"
        )


def local_nodes(place: Home) -> list[str]:
    """Ids of the nodes of this home whose agents run."""
    if not place.nodes.is_dir() or not any(place.nodes.iterdir()):
        return []
    from noriba.engines.local import running_nodes

    return running_nodes(place.nodes)


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


@click.command(cls=HomeCommand)
@click.option(
    "--output", "-o", type=click.Choice(["text", "json", "yaml"]), default="text", show_default=True
)
def status(home: Path | None, output: str) -> None:
    """Show the server of a home. Exits with 1 when none runs."""
    place = home_of(home)
    info = place.server()
    document = status_document(place, info)
    if output == "text":
        _print_status(document)
    else:
        from noriba.cli.output import show

        show(document, output, None, None)
    if info is None:
        sys.exit(1)


def status_document(place: Home, info: ServerInfo | None) -> dict[str, Any]:
    """All that there is to say about a home and its server, for ``status -o json``."""
    if info is None:
        return {"running": False, "home": str(place.path), "made": place.path.exists()}
    from urllib.parse import urlsplit

    return {
        "running": True,
        "ready": _is_ready(place, info),
        "pid": info.pid,
        "host": urlsplit(info.base_url).hostname,
        "port": urlsplit(info.base_url).port or 443,
        "home": str(place.path),
        "log_file": info.log_file or None,
        "version": info.version,
        "started_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(info.started_at)),
        "engine": info.engine,
        "sizing": info.sizing,
        "isolation": info.isolation,
        "isolation_reason": info.isolation_reason or None,
        "database": info.database,
        "storage": info.storage,
        "urls": {
            "api": info.base_url,
            "studio": f"{info.base_url}/studio/",
            "mlflow": info.base_url,
            "metrics": f"{info.base_url}/metrics",
        },
        "workspace": {
            "subscription_id": info.subscription_id,
            "resource_group": info.resource_group,
            "workspace_name": info.workspace,
        },
        "nodes": len(local_nodes(place)),
        "jobs": _job_counts(place),
    }


def _job_counts(place: Home) -> dict[str, int] | None:
    """How many of the latest jobs of the home's first workspace are in which state; None when it can not be asked."""
    from noriba.client.session import Session
    from noriba.client.target import find_target

    environ = {"NORIBA_HOME": str(place.path)}
    try:
        session = Session(find_target(home=place.path, environ=environ, folder=place.path))
        jobs = session.get(f"{session.workspace}/jobs", query={"$top": COUNTED_JOBS})["value"]
    except ClientError:
        return None
    counts: dict[str, int] = {}
    for job in jobs:
        status = job["properties"]["status"]
        counts[status] = counts.get(status, 0) + 1
    return counts


def _is_ready(place: Home, info: ServerInfo) -> bool:
    try:
        connection = Connection(info.base_url, [place.bundle_file], timeout_s=5)
        return connection.request("GET", "/readyz").status == 200
    except ClientError:
        return False


def _print_status(document: dict[str, Any]) -> None:
    if not document["running"]:
        click.echo(
            f"No server runs in {document['home']}" + ("" if document["made"] else " (which is not made yet)")
        )
        return
    reason = f" ({document['isolation_reason']})" if document["isolation_reason"] else ""
    workspace = document["workspace"]
    counts = document["jobs"] or {}
    jobs = ", ".join(f"{count} {status.lower()}" for status, count in sorted(counts.items())) or "none"
    ready = "ready" if document["ready"] else "not answering"
    click.echo(
        f"Noriba {document['version']} is {ready} at {document['urls']['api']} (pid {document['pid']})"
    )
    for label, value in (
        ("Home", document["home"]),
        ("Log", document["log_file"] or "the terminal it was started from"),
        ("Started", document["started_at"]),
        ("Engine", f"{document['engine']}, {document['sizing']} sizing, {document['nodes']} nodes"),
        ("Jobs", jobs if document["jobs"] is not None else "not known"),
        ("Isolation", f"{document['isolation']}{reason}"),
        ("Database", document["database"]),
        ("Storage", document["storage"]),
        ("Studio", document["urls"]["studio"]),
        (
            "Workspace",
            f"{workspace['workspace_name']} (resource group {workspace['resource_group']}, "
            f"subscription {workspace['subscription_id']})",
        ),
    ):
        click.echo(f"  {label:<11}{value}")


@click.command(cls=HomeCommand)
@click.option("--follow", "-f", is_flag=True, help="Go on with what is added, until interrupted.")
@click.option(
    "--lines", "-n", type=click.IntRange(0), default=50, show_default=True, help="Last lines to show."
)
def logs(home: Path | None, follow: bool, lines: int) -> None:
    """Show the log of the server in the background."""
    place = home_of(home)
    info = place.server()
    if info is not None and not info.log_file:
        raise ClientError(f"The server (pid {info.pid}) writes its log to the terminal it was started from.")
    if not place.server_log.is_file():
        raise ClientError(f"There is no log in {place.logs}: no server ran in the background here yet.")
    with place.server_log.open("rb") as file:
        file.seek(_start_of_last(file, lines))
        try:
            _copy(file, place.server_log, follow)
        except KeyboardInterrupt:
            note("")


def _start_of_last(file: BinaryIO, lines: int) -> int:
    """Where the last ``lines`` lines begin."""
    end = position = file.seek(0, os.SEEK_END)
    if not lines:
        return end
    found = 0
    while position > 0:
        size = min(65536, position)
        position -= size
        file.seek(position)
        block = file.read(size)
        for index in range(len(block) - 1, -1, -1):
            # The newline that ends the file belongs to its last line.
            if block[index] == 10 and position + index != end - 1:
                found += 1
                if found >= lines:
                    return position + index + 1
    return 0


def _copy(file: BinaryIO, path: Path, follow: bool) -> None:
    out = sys.stdout.buffer
    while True:
        while block := file.read(1 << 16):
            out.write(block)
        out.flush()
        if not follow:
            return
        time.sleep(FOLLOW_S)
        try:
            current = path.stat()
        except FileNotFoundError:
            continue
        mine = os.fstat(file.fileno())
        if current.st_ino != mine.st_ino:
            # Put aside by a new start: show what was still added to it, then go over to the new one.
            out.write(file.read())
            with path.open("rb") as following:
                _copy(following, path, follow)
            return
        if current.st_size < file.tell():
            file.seek(0)
