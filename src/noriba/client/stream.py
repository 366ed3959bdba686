"""Following a job: its log as it grows, its status as it changes (wire.md 5.4)."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Any, Protocol
from urllib.parse import urlsplit

import msgspec

from noriba.client.connection import Connection
from noriba.client.errors import ApiError, NoServer
from noriba.client.session import Session

POLL_S = 0.2
"""How often a running job is looked at: new output is shown within 0.3 s."""
PATIENCE_S = 300.0
"""How long a server that went away (to be restarted) is waited for; the job runs meanwhile."""

TERMINAL = frozenset({"Completed", "Failed", "Canceled"})
BUILD_LOG = re.compile(r"azureml-logs/\d\d.*\.txt")
USER_LOG = re.compile(r"user_logs/std_log[\D]*[0]*(?:_ps)?\.txt")
"""The files that are followed: the first rank's output, as in the SDK."""


class State(msgspec.Struct, frozen=True):
    """Where a job stands. ``error`` is (code, message) of a job that failed."""

    status: str
    reason: str = ""
    error: tuple[str, str] | None = None
    warnings: tuple[str, ...] = ()

    @property
    def is_over(self) -> bool:
        return self.status in TERMINAL


class Listener(Protocol):
    """What ``follow`` reports to."""

    def state(self, state: State) -> None:
        """The job's state, at every look."""

    def output(self, file: str, data: bytes) -> None:
        """Bytes that were added to a log file."""

    def away(self, error: NoServer) -> None:
        """The server does not answer; it is asked again."""


def follow(
    session: Session,
    name: str,
    listener: Listener,
    *,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> State:
    """Report everything that happens to a job until it is over; returns its last state.

    Each byte of a log is reported once, in order. Raises ApiError when there is no such job and NoServer when the
    server stays away.
    """
    reader = _Reader(session, name)
    away_since: float | None = None
    while True:
        try:
            state = reader.look()
            listener.state(state)
            # Read after the status was: what a job wrote before it ended is there when it has ended.
            for file, data in reader.news():
                listener.output(file, data)
        except NoServer as error:
            away_since = clock() if away_since is None else away_since
            if clock() - away_since > PATIENCE_S:
                raise
            listener.away(error)
            sleep(1.0)
            continue
        away_since = None
        if state.is_over:
            return state
        sleep(POLL_S)


class _Reader:
    def __init__(self, session: Session, name: str) -> None:
        self._session = session
        self._path = f"/history/v1.0{session.workspace}/runs/{name}/details"
        self._files: dict[str, str] = {}
        self._offsets: dict[str, int] = {}
        self._elsewhere: dict[str, Connection] = {}

    def look(self) -> State:
        details = self._session.get(self._path)
        self._files = details.get("logFiles") or {}
        return state_of(details)

    def news(self) -> list[tuple[str, bytes]]:
        """What the log files have beyond what was read before."""
        return [(file, data) for file in followed(self._files) if (data := self._read(file))]

    def _read(self, file: str) -> bytes:
        offset = self._offsets.get(file, 0)
        url = self._files[file]
        answer = self._connection(url).request("GET", url, headers={"Range": f"bytes={offset}-"})
        if answer.status in (404, 416):
            # Not there yet, or nothing beyond the offset.
            return b""
        if answer.status not in (200, 206):
            raise ApiError.from_answer(answer.status, answer.json(), f"{file}: HTTP {answer.status}")
        data = answer.body if answer.status == 206 else answer.body[offset:]
        self._offsets[file] = offset + len(data)
        return data

    def _connection(self, url: str) -> Connection:
        parts = urlsplit(url)
        origin = f"{parts.scheme}://{parts.netloc}"
        if origin == self._session.connection.base_url:
            return self._session.connection
        if origin not in self._elsewhere:
            self._elsewhere[origin] = Connection(origin)
        return self._elsewhere[origin]


def followed(files: dict[str, str]) -> list[str]:
    """The log files to show: the environment's build, then the user's output."""
    return sorted(file for file in files if BUILD_LOG.fullmatch(file)) + sorted(
        file for file in files if USER_LOG.fullmatch(file)
    )


def state_of(details: dict[str, Any]) -> State:
    """The state told by run history."""
    error = (details.get("error") or {}).get("error")
    return State(
        status=str(details.get("status") or ""),
        reason=str((details.get("properties") or {}).get("noriba.reason") or ""),
        error=(str(error.get("code") or ""), str(error.get("message") or "")) if error else None,
        warnings=tuple(
            str(warning.get("message")) for warning in details.get("warnings") or [] if warning.get("message")
        ),
    )
