"""A task's folder on the node's disk: where things lie, and the records by which a restarted agent goes on.

::

    tasks/{name}/
      spec.msgpack   the task as last told by the control plane
      progress.json  the steps that are behind us (Progress)
      launch.json    what the shim is to start (Launch); written before the shim is asked for
      lock           held by the shim while it lives: never two for one task
      shim.json      who the shim is (Identity); written before it starts anything
      stop.json      wish to end (StopWish); then the shim is sent SIGTERM
      exit.json      how the user's processes ended (Exit); the shim's last word
      outcome.json   what is reported (TaskExited); everything is stored by then
      reported       empty; the control plane has the outcome
      environment/   the task's own face on its (shared, read-only) environment
      logs/          log files, named as they are in the job's artifacts
      code/ inputs/ outputs/ home/ tmp/     what the user's processes see (inputs and outputs only if there are any)
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import shutil
import stat
from hashlib import sha256
from pathlib import Path
from typing import Literal, TypeVar

import msgspec

from noriba.agent.distribution import Peer
from noriba.agent.processes import Identity
from noriba.agent.protocol import TaskExited, TaskSpec

T = TypeVar("T")

_PLAIN_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}")


class Progress(msgspec.Struct, kw_only=True, omit_defaults=True):
    """Steps that need not be done again after a restart of the agent, with what they found."""

    code_ready: bool = False
    inputs_ready: list[str] = []
    file_inputs: list[str] = []
    """Inputs of a type that may be either, which turned out to be a file."""
    outputs_ready: list[str] = []
    rendezvous_port: int | None = None
    peers: list[Peer] = []
    warnings_sent: list[str] = []
    outputs_stored: dict[str, tuple[int, int]] = {}


class LaunchProcess(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One process to start. ``log`` is relative to the task's logs; ``background`` ones do not keep a task alive."""

    name: str
    argv: list[str]
    environment: dict[str, str]
    folder: str
    log: str
    background: bool = False


class Launch(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """All that the shim needs. Sizes in bytes, times in seconds."""

    task_id: str
    processes: list[LaunchProcess]
    grace_s: float = 30.0
    timeout_s: float | None = None
    cgroup: str = ""
    memory_bytes: int | None = None
    cpus: float | None = None
    pids: int | None = None
    read_only: list[str] = []
    shm_size_bytes: int | None = None
    log_disk_bytes: int = 1 << 30
    """The task is paused while more of its log than this waits on disk to be sent."""
    after_commands: list[list[str]] = []
    """Run when the processes are gone, such as the removal of a container."""


class StopWish(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    grace_s: float
    reason: str = ""


class ProcessExit(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """``code`` is the exit code, or minus the number of the signal that ended it; None if it never started."""

    name: str
    code: int | None = None
    at: float = 0.0
    background: bool = False


class Exit(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How the user's processes ended. ``first`` is the index of the process that decided it, if one did."""

    cause: Literal["exited", "timeout", "stopped", "not_started"]
    started_at: float
    ended_at: float
    processes: list[ProcessExit]
    first: int | None = None
    error: str = ""
    reason: str = ""
    oom_kills: int = 0
    memory_peak_bytes: int = 0
    memory_limit_bytes: int | None = None
    machine_out_of_memory: bool = False
    left_behind: int = 0
    cpu_s: float = 0.0


def folder_name(task_id: str) -> str:
    """A safe file name for an id, itself where it is plain."""
    if _PLAIN_NAME.fullmatch(task_id):
        return task_id
    return "x-" + sha256(task_id.encode()).hexdigest()[:40]


def is_disk_full(error: BaseException) -> bool:
    """Whether an error, or one that caused it, is the disk (or the user's share of it) being full."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        seen = seen.__cause__ or seen.__context__
    return False


def write_atomic(path: Path, data: bytes, *, durable: bool = False) -> None:
    """Replace a file so that readers see the old or the new content, never a part.

    ``durable``: returns when it would survive a power cut.
    """
    temporary = f"{path}.{os.getpid()}.tmp"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]
        if durable:
            os.fdatasync(descriptor)
    except BaseException:
        os.unlink(temporary)
        raise
    finally:
        os.close(descriptor)
    os.rename(temporary, path)
    if durable:
        sync_folder(path.parent)


class ReservedRecord:
    """A record whose place on the disk is taken in advance, so that it can be written when the disk is full."""

    _BYTES = 64 << 10

    def __init__(self, path: Path) -> None:
        self._path = path
        self._reserve = path.with_suffix(".reserve")
        self._file = os.open(self._reserve, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with contextlib.suppress(
            OSError
        ):  # a disk that is full already, or can not reserve: try when it counts
            os.posix_fallocate(self._file, 0, self._BYTES)

    def write(self, record: msgspec.Struct) -> None:
        """Put the record down, atomically. It survives this process now, and a power cut after ``settle``."""
        data = msgspec.json.encode(record)
        os.pwrite(self._file, data, 0)
        os.ftruncate(self._file, len(data))
        os.rename(self._reserve, self._path)

    def settle(self) -> None:
        """Wait until the record is on the disk for good."""
        os.fdatasync(self._file)
        os.close(self._file)
        sync_folder(self._path.parent)


def sync_folder(folder: Path) -> None:
    """Make renames in a folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_record(path: Path, record: msgspec.Struct, *, durable: bool = False) -> None:
    """Write a record as JSON, atomically."""
    write_atomic(path, msgspec.json.encode(record), durable=durable)


def read_record(path: Path, kind: type[T]) -> T | None:
    """Read a JSON record; None if there is none. A damaged one raises ``msgspec.DecodeError``."""
    try:
        with open(path, "rb") as file:
            return msgspec.json.decode(file.read(), type=kind)
    except FileNotFoundError:
        return None


def remove_tree(folder: Path) -> None:
    """Remove a folder with everything in it, read-only parts included. Links are removed, never followed."""

    def unlock(function: object, path: str, _: object) -> None:
        parent = os.path.dirname(path)
        for place in (parent, path):
            if not os.path.islink(place) and os.path.isdir(place):
                os.chmod(place, stat.S_IRWXU)
        if os.path.islink(path) or not os.path.isdir(path):
            os.unlink(path)
        elif function is os.rmdir:
            os.rmdir(path)
        else:
            shutil.rmtree(path, onerror=unlock)

    if folder.exists():
        shutil.rmtree(folder, onerror=unlock)


class TaskFolder:
    """Paths and records of one task; see the picture at the top of this module."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.spec_file = root / "spec.msgpack"
        self.progress_file = root / "progress.json"
        self.launch_file = root / "launch.json"
        self.lock_file = root / "lock"
        self.shim_file = root / "shim.json"
        self.stop_file = root / "stop.json"
        self.exit_file = root / "exit.json"
        self.outcome_file = root / "outcome.json"
        self.reported_file = root / "reported"
        self.logs = root / "logs"
        self.code = root / "code"
        self.inputs = root / "inputs"
        self.outputs = root / "outputs"
        self.environment = root / "environment"
        self.home = root / "home"
        self.tmp = root / "tmp"

    def create(self) -> None:
        """Make the folder itself (private to this user) and what each task has."""
        for folder in (self.root, self.logs, self.home, self.tmp):
            with contextlib.suppress(FileExistsError):
                os.mkdir(folder, 0o700)

    def read_spec(self) -> TaskSpec | None:
        try:
            return msgspec.msgpack.decode(self.spec_file.read_bytes(), type=TaskSpec)
        except FileNotFoundError:
            return None

    def write_spec(self, spec: TaskSpec) -> None:
        write_atomic(self.spec_file, msgspec.msgpack.encode(spec))

    def read_progress(self) -> Progress:
        return read_record(self.progress_file, Progress) or Progress()

    def write_progress(self, progress: Progress) -> None:
        """Note how far the task is. On a full disk it is not noted: the step is taken again if it comes to that."""
        try:
            write_record(self.progress_file, progress)
        except OSError as error:
            if not is_disk_full(error):
                raise

    def read_launch(self) -> Launch | None:
        return read_record(self.launch_file, Launch)

    def read_shim(self) -> Identity | None:
        return read_record(self.shim_file, Identity)

    def shim_at_work(self) -> Identity | None:
        """The shim if it lives and works on this task: a warm one goes on to others, under the same pid."""
        shim = self.read_shim()
        if shim is None or not shim.is_alive():
            return None
        try:
            lock = os.open(self.lock_file, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return shim
        finally:
            os.close(lock)
        return None

    def read_exit(self) -> Exit | None:
        return read_record(self.exit_file, Exit)

    def read_outcome(self) -> TaskExited | None:
        return read_record(self.outcome_file, TaskExited)
