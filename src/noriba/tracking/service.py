"""Tracking as one service of the server: short look-ups that the hot routes share, kept in small caches."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple

from noriba.database import Database
from noriba.models.errors import NoribaError
from noriba.tracking import experiments, runs
from noriba.tracking.store import DEFAULT_EXPERIMENT_ID

CACHE_SIZE = 20_000
FRESH_S = 10.0
"""How long another replica's deletion of a run may go unseen by a replica that logs to it."""


class OpenRun(NamedTuple):
    """A run that can be logged to."""

    key: int
    experiment_id: str
    until: float


class Tracking:
    """Caches in front of the tracking tables. Changes made through this process are seen at once."""

    def __init__(self, database: Database, clock: Callable[[], float] = time.monotonic) -> None:
        self._database = database
        self._clock = clock
        self._open: OrderedDict[tuple[str, str], OpenRun] = OrderedDict()
        self._with_default: set[str] = set()

    async def open_run(self, workspace_id: str, run_id: str) -> OpenRun:
        """The run, if it may be logged to. Raises NotFound, or BadRequest for a deleted one."""
        now = self._clock()
        found = self._open.get((workspace_id, run_id))
        if found is not None and now < found.until:
            return found
        row = await self._database.read(
            lambda connection: runs.active_row_in(connection, workspace_id, run_id)
        )
        found = self._open[workspace_id, run_id] = OpenRun(row.key, row.experiment_id, now + FRESH_S)
        while len(self._open) > CACHE_SIZE:
            self._open.popitem(last=False)
        return found

    def forget_runs(self) -> None:
        """Drop what is cached of runs, after some were deleted."""
        self._open.clear()

    async def ensure_default(self, workspace_id: str, now: float) -> None:
        """Make sure that the workspace has the experiment that clients use when none is set."""
        if workspace_id in self._with_default:
            return
        try:
            await self._database.read(
                lambda connection: experiments.get_in(connection, workspace_id, DEFAULT_EXPERIMENT_ID)
            )
        except NoribaError:
            await self._database.write(
                lambda connection: experiments.ensure_default_in(connection, workspace_id, round(now * 1000))
            )
        self._with_default.add(workspace_id)
