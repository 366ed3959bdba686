"""The environment a task runs in: looked up by what was asked, built by a child process if it is not there.

The builder (``noriba.environments``) is heavy; it never enters the agent. What it answered is remembered in
memory and beside the store, so that a node's first task in a known environment costs one small file read.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec

import noriba
from noriba.agent.folder import TaskFolder, write_atomic
from noriba.agent.protocol import TaskEnvironment
from noriba.agent.transfer.errors import Cancelled
from noriba.environments.overlay import overlay_environment
from noriba.environments.rules import rules_digest
from noriba.environments.spec import BuiltEnvironment


class EnvironmentFailed(Exception):
    """The environment can not be had; ``code`` is the builder's, the message says what to change."""

    def __init__(self, code: str, message: str, *, user_error: bool = True) -> None:
        super().__init__(message)
        self.code = code
        self.user_error = user_error


class Environments:
    """The store at ``root``. ``settings`` is a JSON file for the builder, or None for its defaults."""

    def __init__(self, root: Path, settings: Path | None = None, python: str = sys.executable) -> None:
        self.root = root
        self._settings = settings
        self._python = python
        self._known: dict[str, BuiltEnvironment] = {}
        self._lock = threading.Lock()
        # What is remembered holds for one builder and one set of rules.
        self._rules = (
            noriba.__version__.encode() + rules_digest() + (settings.read_bytes() if settings else b"")
        )
        self._answers = root / "answers"

    def find(self, asked: TaskEnvironment, lease: str) -> BuiltEnvironment | None:
        """The environment if it is known and there; it is held for ``lease`` until ``release``."""
        if asked.build_context is not None:
            return None  # its files may have changed; the builder looks
        key = self._key(asked)
        with self._lock:
            known = self._known.get(key)
        if known is None:
            try:
                known = BuiltEnvironment.from_json((self._answers / key).read_bytes())
            except (FileNotFoundError, msgspec.DecodeError):
                return None
            with self._lock:
                self._known[key] = known
        self._hold(known, lease)
        if not _is_there(known):
            with self._lock:
                self._known.pop(key, None)
            return None
        return known

    def _hold(self, built: BuiltEnvironment, lease: str) -> None:
        """Leave the marks by which the store knows what is in use (``EnvironmentStore``)."""
        for mark in (self.root / "leases" / built.id / lease, self.root / "used" / built.id):
            try:
                mark.touch()
            except FileNotFoundError:
                mark.parent.mkdir(parents=True, exist_ok=True)
                mark.touch()

    def overlay(self, built: BuiltEnvironment, folder: Path) -> BuiltEnvironment:
        """A task's own face on an environment, so that what it installs stays its own."""
        return overlay_environment(built, folder, self.root / "scripts" / built.id)

    def release(self, lease: str) -> None:
        """The task ``lease`` no longer uses its environment."""
        for mark in (self.root / "leases").glob(f"*/{lease}"):
            mark.unlink(missing_ok=True)

    def build(
        self,
        asked: TaskEnvironment,
        context: Path | None,
        folder: TaskFolder,
        log: Path,
        lease: str,
        stop: int,
        cancelled: Callable[[], bool],
    ) -> BuiltEnvironment:
        """Have the environment built; the build log goes to ``log``. ``stop`` becomes readable to end it.

        ``context`` is the fetched build context. Raises ``EnvironmentFailed`` or ``Cancelled``.
        """
        spec: dict[str, Any] = {"name": asked.name, "version": asked.version}
        if asked.curated:
            spec["curated"] = asked.curated
        else:
            spec |= {"image": asked.image, "conda_file": asked.conda_file}
        if context is not None:
            spec["build"] = {"path": str(context), "dockerfile_path": asked.dockerfile_path}
        spec_file, result_file = folder.root / "environment.json", folder.root / "environment-result.json"
        write_atomic(spec_file, msgspec.json.encode(spec))
        result_file.unlink(missing_ok=True)
        log.parent.mkdir(parents=True, exist_ok=True)
        argv = [
            self._python, "-m", "noriba.environments.build",
            "--spec", str(spec_file), "--store", str(self.root), "--log", str(log), "--result", str(result_file),
            "--lease", lease,
        ]  # fmt: skip
        if self._settings is not None:
            argv += ["--settings", str(self._settings)]
        with open(folder.root / "environment-builder.log", "ab") as output:
            process = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
            )
        code = _wait(process, stop, cancelled)
        built = self._read(result_file)
        if code != 0 or isinstance(built, EnvironmentFailed) or built is None:
            if isinstance(built, EnvironmentFailed):
                raise built
            tail = (folder.root / "environment-builder.log").read_text(errors="replace").strip().splitlines()
            raise EnvironmentFailed(
                "EnvironmentBuildFailed",
                f"The environment could not be built (the builder ended with code {code}): "
                + (tail[-1] if tail else "see azureml-logs/20_image_build_log.txt"),
                user_error=False,
            )
        if context is None:
            key = self._key(asked)
            self._answers.mkdir(parents=True, exist_ok=True)
            write_atomic(self._answers / key, built.to_json())
            with self._lock:
                self._known[key] = built
        return built

    def _read(self, path: Path) -> BuiltEnvironment | EnvironmentFailed | None:
        try:
            content = path.read_bytes()
            answer = msgspec.json.decode(content)
        except (FileNotFoundError, msgspec.DecodeError):
            return None
        if "code" in answer:
            return EnvironmentFailed(answer["code"], answer["message"])
        return BuiltEnvironment.from_json(content)

    def _key(self, asked: TaskEnvironment) -> str:
        parts = (asked.image, asked.conda_file, asked.curated, asked.dockerfile_path)
        return sha256(msgspec.msgpack.encode(parts) + self._rules).hexdigest()


def _is_there(built: BuiltEnvironment) -> bool:
    if built.container_image is not None:
        return True
    return os.access(built.python, os.X_OK)


def _wait(process: subprocess.Popen[bytes], stop: int, cancelled: Callable[[], bool]) -> int:
    """Wait for the builder; end it with all its processes when the task is to stop."""
    descriptor = os.pidfd_open(process.pid)
    try:
        poller = select.poll()
        poller.register(descriptor, select.POLLIN)
        poller.register(stop, select.POLLIN)
        while True:
            ready = {number for number, _ in poller.poll(1000)}
            if descriptor in ready:
                return process.wait()
            if stop in ready and cancelled():
                os.killpg(process.pid, signal.SIGTERM)
                try:
                    process.wait(5.0)
                except subprocess.TimeoutExpired:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
                raise Cancelled
            if stop in ready:
                time.sleep(0.05)  # something else woke us and will be looked at later
    finally:
        os.close(descriptor)
