"""Showing a job as it goes: its output on standard output, everything about it on standard error."""

from __future__ import annotations

import sys
import time

from noriba.cli.framework import note
from noriba.client.errors import NoServer
from noriba.client.session import Session
from noriba.client.stream import State, follow

SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
PHASES = {
    "NotStarted": "accepted",
    "Queued": "waits for a node",
    "Provisioning": "gets a node",
    "Preparing": "prepares environment and data",
    "Starting": "starts",
    "Running": "runs",
    "Finalizing": "stores what the job leaves",
    "CancelRequested": "is being canceled",
    "NotResponding": "its node does not answer",
    "Paused": "is paused",
}


class Printer:
    """Prints what ``follow`` reports. On a terminal, a line at the bottom tells what the job waits for."""

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()
        self._out = self._current = sys.stdout.buffer
        self._last: State | None = None
        self._since = time.monotonic()
        self._file = ""
        self._at_line_start = True
        self._line = False
        self._away = False
        self._warned: set[str] = set()
        self._turn = 0

    def state(self, state: State) -> None:
        self._away = False
        for warning in state.warnings:
            if warning not in self._warned:
                self._warned.add(warning)
                self._say(f"Warning: {warning}")
        if state.is_over:
            # Told by ``finish``, below the last of the log.
            self._last = state
            return
        if self._last is None or (state.status, state.reason) != (self._last.status, self._last.reason):
            if self._last is None or state.status != self._last.status:
                self._since = time.monotonic()
            reason = f": {state.reason}" if state.reason else ""
            if not (self._terminal and reason and self._last and self._last.status == state.status):
                self._say(f"{time.strftime('%H:%M:%S')}  {state.status}{reason}")
        self._last = state
        if self._terminal and not self._file.startswith("user_logs/"):
            self._show_waiting(state)

    def output(self, file: str, data: bytes) -> None:
        self._clear()
        # Standard output gets what the job prints; how its environment was built is told beside it.
        out = self._out if file.startswith("user_logs/") else sys.stderr.buffer
        if file != self._file:
            self._end_line()
            if file != "user_logs/std_log.txt":
                note(f"--- {file}")
            self._file = file
            self._current = out
        out.write(data)
        out.flush()
        self._at_line_start = data.endswith(b"\n")

    def away(self, error: NoServer) -> None:
        if not self._away:
            self._away = True
            self._say(f"{error} The job goes on; asking again …")

    def finish(self) -> None:
        """Tell how it ended, and leave the terminal in order."""
        if self._last is not None and self._last.is_over:
            self._say(f"{time.strftime('%H:%M:%S')}  {self._last.status}")
        self._clear()
        self._end_line()

    def _say(self, message: str) -> None:
        self._clear()
        self._end_line()
        note(message)

    def _end_line(self) -> None:
        if not self._at_line_start:
            self._current.write(b"\n")
            self._current.flush()
            self._at_line_start = True

    def _show_waiting(self, state: State) -> None:
        self._turn += 1
        waited = int(time.monotonic() - self._since)
        why = state.reason or PHASES.get(state.status, state.status)
        width = 100
        text = f"{SPINNER[self._turn % len(SPINNER)]} {waited} s  {why}"[:width]
        sys.stderr.write(f"\r\033[2K\033[2m{text}\033[0m")
        sys.stderr.flush()
        self._line = True

    def _clear(self) -> None:
        if self._line:
            sys.stderr.write("\r\033[2K")
            sys.stderr.flush()
            self._line = False


def stream(session: Session, name: str, *, hint: str = "") -> int:
    """Show a job until it is over; the exit code for it. Interrupting leaves the job as it is."""
    printer = Printer()
    try:
        state = follow(session, name, printer)
    except KeyboardInterrupt:
        printer.finish()
        note(
            f"The job {name} goes on. Follow it again with: noriba job stream -n {name}{hint}\n"
            f"Stop it with: noriba job cancel -n {name}{hint}"
        )
        return 130
    printer.finish()
    if state.status != "Failed":
        return 0
    code, message = state.error or ("", "")
    note(f"noriba: The job {name} failed: {message or 'see its log'}")
    if code:
        note(f"  code: {code}")
    return 1
