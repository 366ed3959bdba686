"""The edge to the outside while building: a log that people read, and programs that can be stopped."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

import msgspec

from noriba.environments import errors
from noriba.environments.errors import EnvironmentBuildError


class BuildLog:
    """Lines for people, each with the seconds since the start, flushed at once so that they can be followed."""

    def __init__(self, stream: IO[str], copy: IO[str] | None = None) -> None:
        self._streams = [stream] if copy is None else [stream, copy]
        self._start = time.monotonic()
        self._mutex = threading.Lock()

    @property
    def seconds(self) -> float:
        """Seconds since the log was opened."""
        return time.monotonic() - self._start

    def __call__(self, line: str) -> None:
        """Write one step, or several lines of it."""
        with self._mutex:
            for part in line.splitlines() or [""]:
                for stream in self._streams:
                    stream.write(f"[{self.seconds:7.2f}s] {part}\n")
            for stream in self._streams:
                stream.flush()

    def tee(self, copy: IO[str]) -> BuildLog:
        """The same log, also written to ``copy`` from now on; times go on."""
        log = BuildLog(self._streams[0], copy)
        log._start = self._start
        return log


class Finished(msgspec.Struct, frozen=True):
    """A program that ended: its exit status and all it printed, standard output and error each."""

    status: int
    output: str
    errors: str


class Programs:
    """Runs programs on behalf of one build.

    ``keep_open`` are file descriptors that the programs inherit: the build's lock among them, so that the lock
    holds until the last of them is gone, even if the build itself is killed.
    """

    def __init__(
        self,
        log: BuildLog,
        cancel: threading.Event | None = None,
        keep_open: Sequence[int] = (),
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.log, self._cancel, self._keep_open = log, cancel, tuple(keep_open)
        self._env = clean_environment() if env is None else dict(env)

    def check_canceled(self) -> None:
        """Raises ``EnvironmentBuildError`` (canceled) once the caller's event is set."""
        if self._cancel is not None and self._cancel.is_set():
            raise EnvironmentBuildError(errors.CANCELED, "the build was canceled")

    def run(
        self,
        command: Sequence[str | os.PathLike[str]],
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        show: bool = False,
        indent: str = "  ",
    ) -> Finished:
        """Run a program to its end. ``show`` copies what it prints to the log, line by line, as it comes.

        Raises ``EnvironmentBuildError`` when the program cannot be started or the build is canceled.
        """
        self.check_canceled()
        try:
            process = subprocess.Popen(
                [os.fspath(word) for word in command],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
                cwd=cwd,
                env={**self._env, **(env or {})},
                pass_fds=self._keep_open,
            )
        except OSError as error:
            raise EnvironmentBuildError(errors.BUILD_FAILED, f"cannot start {command[0]}: {error}") from error
        collected: tuple[list[str], list[str]] = ([], [])
        assert process.stdout is not None
        assert process.stderr is not None
        threads = [
            threading.Thread(target=self._follow, args=(stream, lines, show, indent), daemon=True)
            for stream, lines in zip((process.stdout, process.stderr), collected, strict=True)
        ]
        if self._cancel is not None:
            threads.append(
                threading.Thread(target=self._stop_when_canceled, args=(process, self._cancel), daemon=True)
            )
        for thread in threads:
            thread.start()
        process.wait()
        for thread in threads[:2]:
            thread.join()
        self.check_canceled()
        return Finished(process.returncode, "".join(collected[0]), "".join(collected[1]))

    def _follow(self, stream: IO[str], lines: list[str], show: bool, indent: str) -> None:
        with stream:
            for line in stream:
                lines.append(line)
                if show and line.strip():
                    self.log(indent + line.rstrip())

    @staticmethod
    def _stop_when_canceled(process: subprocess.Popen[str], cancel: threading.Event) -> None:
        while process.poll() is None:
            if cancel.wait(0.25):
                process.terminate()
                try:
                    process.wait(5)
                except subprocess.TimeoutExpired:
                    process.kill()
                return


_MISLEADING = (
    "VIRTUAL_ENV", "CONDA_PREFIX", "CONDA_DEFAULT_ENV", "PYTHONPATH", "PYTHONHOME", "PYTHONDONTWRITEBYTECODE", "PYTHONSTARTUP",
    "__PYVENV_LAUNCHER__", "UV_PROJECT_ENVIRONMENT", "UV_PYTHON", "UV_CONSTRAINT", "UV_OVERRIDE", "UV_CACHE_DIR",
)  # fmt: skip


def clean_environment(base: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's variables without those that would steer a build by accident."""
    source = os.environ if base is None else base
    return {key: value for key, value in source.items() if key not in _MISLEADING}
