"""One task's processes, from their start to their end (the heart of the shim, ``shim.py``)."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import select
import signal
import subprocess
import time

from noriba.agent import cgroups, linux, processes
from noriba.agent.folder import (
    Exit,
    Launch,
    LaunchProcess,
    ProcessExit,
    ReservedRecord,
    StopWish,
    TaskFolder,
    read_record,
    write_record,
)

_OOM_SCORE = b"500"
"""Of all on the machine the kernel should end a user's process first, not the agent or the control plane."""

_LEFTOVER_GRACE_S = 1.0
"""What background processes get between SIGTERM and SIGKILL when the task's own processes have ended well."""

_TICK_S = 1.0
_GIVE_UP_S = 20.0


class Supervisor:
    """Starts, watches and ends the processes of one launch record. ``wake`` becomes readable when a signal came."""

    def __init__(
        self, folder: TaskFolder, launch: Launch, notify: int | None, groups: cgroups.Cgroups, wake: int
    ) -> None:
        self.folder = folder
        self.launch = launch
        self.notify_pipe = notify
        self.wake = wake
        self.groups = groups
        self.group = cgroups.TaskCgroup(groups, launch.cgroup) if launch.cgroup else None
        self.inside = False
        """Whether this process is itself in the task's group (only while it starts the task's processes)."""
        self.changed = False
        """Whether this process got mounts of its own, which it can not get rid of again."""
        self.usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        self.machine_oom_kills = _machine_oom_kills()
        self.pids: dict[int, int] = {}
        """pid -> index of the process in the launch record"""
        self.exits: dict[int, ProcessExit] = {}
        self.started_at = 0.0
        self.first: int | None = None
        self.cause = ""
        self.reason = ""
        self.error = ""
        self.kill_at: float | None = None
        self.killed = False
        self.paused: list[int] = []
        self.childless = False

    # -- life ---------------------------------------------------------------------------------------------

    def run(self) -> bool:
        """Do the task; True if nothing of it is left in this process."""
        write_record(self.folder.shim_file, processes.own_identity())
        self.exit_record = ReservedRecord(self.folder.exit_file)
        self._set_limits()
        self._set_mounts()
        self._start_all()
        if self.folder.stop_file.exists():
            self._on_stop()
        self._supervise()
        self._finish()
        return self.childless and not self.changed and not self.inside

    def _tell(self, message: str) -> None:
        if self.notify_pipe is not None:
            try:
                os.write(self.notify_pipe, message.encode())
            except OSError:
                self.notify_pipe = None  # that agent is gone; the next one reads the folder

    def _note(self, message: str) -> None:
        """Leave a line for the task's system log (the agent picks it up)."""
        with (
            contextlib.suppress(OSError),
            open(self.folder.root / "shim.notes", "a", encoding="utf-8") as file,
        ):
            file.write(f"{time.time():.3f} {message}\n")

    # -- start --------------------------------------------------------------------------------------------

    def _set_limits(self) -> None:
        if self.group is None:
            return
        limits = cgroups.Limits(
            memory_bytes=self.launch.memory_bytes, cpus=self.launch.cpus, pids=self.launch.pids
        )
        try:
            missing = self.group.create(limits)
        except OSError as error:
            self.group = None
            self._note(f"no control group could be made ({error}); limits are per process only")
            return
        for words in missing:
            self._note(f"a limit could not be set by control group: {words}")

    def _set_mounts(self) -> None:
        if not self.launch.read_only and self.launch.shm_size_bytes is None:
            return
        try:
            self.changed = True
            linux.unshare_mounts()
            if self.launch.shm_size_bytes is not None:
                options = f"size={self.launch.shm_size_bytes},mode=1777"
                linux.mount("noriba-shm", "/dev/shm", "tmpfs", linux.MS_NOSUID | linux.MS_NODEV, options)
            for path in self.launch.read_only:
                linux.mount_read_only(path)
        except OSError as error:
            self._note(f"private mounts are not to be had ({error}); inputs are protected by file modes")

    def _start_all(self) -> None:
        """Start the processes, born in the task's group: this process goes in, starts them and comes out again."""
        timeout_s = self.launch.timeout_s
        self.deadline = None if timeout_s is None else time.monotonic() + timeout_s
        self._go_in()
        try:
            for index, process in enumerate(self.launch.processes):
                try:
                    pid = self._start(process)
                except OSError as error:
                    self.cause = "not_started"
                    where = f": {error.filename}" if error.filename else ""
                    self.error = f"{process.argv[0]}: {error.strerror or error}{where}"
                    self.exits[index] = ProcessExit(name=process.name, at=time.time())
                    break
                self.pids[pid] = index
            self.started_at = time.time()
            if self.cause != "not_started":
                self._tell(f"started {self.started_at}\n")
        finally:
            self._come_out()
        if self.cause == "not_started":
            self._end_all(0.0)

    def _start(self, process: LaunchProcess) -> int:
        """One process in a session of its own; raises ``OSError`` as exec does."""
        path = self.folder.logs / process.log
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        try:
            log = os.open(path, flags, 0o644)
        except FileNotFoundError:
            path.parent.mkdir(parents=True, exist_ok=True)
            log = os.open(path, flags, 0o644)
        try:
            # vfork: nothing of this process is copied.
            started = subprocess.Popen(
                process.argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=process.folder,
                env=process.environment,
                start_new_session=True,
            )
        finally:
            os.close(log)
        started.returncode = 0  # we wait for it ourselves, with all that it leaves behind
        held = self.group is not None and self.groups.limits_memory
        if self.launch.memory_bytes is not None and not held:
            bounds = (self.launch.memory_bytes, self.launch.memory_bytes)
            with contextlib.suppress(ProcessLookupError):
                resource.prlimit(started.pid, resource.RLIMIT_DATA, bounds)
        return started.pid

    def _go_in(self) -> None:
        _set_oom_score(_OOM_SCORE)
        if self.group is not None:
            self.inside = True
            try:
                self.group.join()
            except OSError as error:
                self._note(f"the control group can not be used ({error}); limits are per process only")
                self.group = None

    def _come_out(self) -> None:
        _set_oom_score(b"0")
        if self.inside:
            try:
                cgroups.leave(self.groups)
                self.inside = False
            except OSError as error:
                self._note(f"the shim could not leave the task's control group: {error}")

    # -- watch --------------------------------------------------------------------------------------------

    def _supervise(self) -> None:
        poller = select.poll()
        poller.register(self.wake, select.POLLIN)
        while True:
            self._reap()
            if self._all_gone():
                return
            now = time.monotonic()
            if self.deadline is not None and now >= self.deadline and not self.cause:
                self.deadline = None
                self.cause = "timeout"
                self._end_all(self.launch.grace_s)
            if self.kill_at is not None and now >= self.kill_at:
                self._kill_everything()
                return
            self._guard_log_disk()
            times = [t - now for t in (self.deadline, self.kill_at) if t is not None]
            wait_s = max(0.0, min([*times, _TICK_S]))
            if poller.poll(wait_s * 1000 + 0.999) and signal.SIGTERM in os.read(self.wake, 4096):
                self._on_stop()

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                self.childless = True
                return
            if pid == 0:
                return
            index = self.pids.pop(pid, None)
            if index is not None:
                self._on_exit(index, os.waitstatus_to_exitcode(status))

    def _on_exit(self, index: int, code: int) -> None:
        process = self.launch.processes[index]
        self.exits[index] = ProcessExit(
            name=process.name, code=code, at=time.time(), background=process.background
        )
        main_left = any(not self.launch.processes[i].background for i in self.pids.values())
        only_background = all(p.background for p in self.launch.processes)
        if self.cause:
            return
        counts = not process.background or only_background
        if (code != 0 and counts) or (not main_left and (not only_background or not self.pids)):
            self.cause, self.first = "exited", index
            # The others of a failed task may still want to save something; strays of a finished one not.
            self._end_all(self.launch.grace_s if self.pids and code != 0 else _LEFTOVER_GRACE_S)

    def _on_stop(self) -> None:
        wish = read_record(self.folder.stop_file, StopWish)
        if wish is None:
            return  # meant for the task that this process did before
        if not self.cause:
            self.cause, self.reason = "stopped", wish.reason
        until = time.monotonic() + wish.grace_s
        if self.kill_at is None:
            self._end_all(wish.grace_s)
        self.kill_at = min(self.kill_at or until, until)

    def _all_gone(self) -> bool:
        """Whether no process of the task is left. As subreaper we have a child as long as any of them lives."""
        return self.childless

    def _members(self) -> list[int]:
        """All living processes of the task."""
        found = dict.fromkeys(self.group.pids() if self.group is not None else [])
        found.update(dict.fromkeys(processes.descendants(os.getpid())))
        found.pop(os.getpid(), None)
        return list(found)

    def _end_all(self, grace_s: float) -> None:
        """Ask everything to end; what still lives after ``grace_s`` is killed."""
        self.kill_at = time.monotonic() + grace_s
        self._reap()
        if self.childless:
            return
        self._resume()
        processes.send(self._members(), signal.SIGTERM)

    def _kill_everything(self) -> None:
        """SIGKILL until nothing is left; what can not be killed (stuck in the kernel) is counted."""
        give_up = time.monotonic() + _GIVE_UP_S
        pause_s = 0.0005
        while True:
            if self.group is not None and not self.inside:
                self.group.kill()
            processes.send(self._members(), signal.SIGKILL)
            self._reap()
            if self.childless or time.monotonic() > give_up:
                return
            time.sleep(pause_s)
            pause_s = min(0.02, pause_s * 2)

    # -- a log that outruns the disk ----------------------------------------------------------------------

    def _guard_log_disk(self) -> None:
        """Hold the task still while its unsent log takes more disk than it may; the agent frees what it sent."""
        used = 0
        for process in self.launch.processes:
            with contextlib.suppress(FileNotFoundError):
                used += os.stat(self.folder.logs / process.log).st_blocks * 512
        if not self.paused and used > self.launch.log_disk_bytes and self.kill_at is None:
            self.paused = self._members()
            processes.send(self.paused, signal.SIGSTOP)
            self._note(
                f"paused the job: {used >> 20} MiB of its log wait to be sent and may not fill the disk; "
                "it goes on when they are sent (does the code print too much?)"
            )
        elif self.paused and used < self.launch.log_disk_bytes // 2:
            self._resume()
            self._note("the job goes on")

    def _resume(self) -> None:
        if self.paused:
            processes.send(self.paused, signal.SIGCONT)
            self.paused = []

    # -- end ----------------------------------------------------------------------------------------------

    def _finish(self) -> None:
        left = [] if self.childless else self._members()
        self._run_after_commands()
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        kills, peak = 0, usage.ru_maxrss * 1024
        cpu_s = usage.ru_utime + usage.ru_stime - self.usage.ru_utime - self.usage.ru_stime
        if self.group is not None:
            kills = self.group.oom_kills()
            peak = self.group.memory_peak_bytes() or peak
            cpu_s = self.group.cpu_s() or cpu_s
        machine = _machine_oom_kills() - self.machine_oom_kills
        knows = self.group is not None and self.group.cgroups.limits_memory
        exits = [
            self.exits.get(i) or ProcessExit(name=p.name, background=p.background)
            for i, p in enumerate(self.launch.processes)
        ]
        self.exit_record.write(
            Exit(
                cause=self.cause or "exited",  # type: ignore[arg-type]
                started_at=self.started_at,
                ended_at=time.time(),
                processes=exits,
                first=self.first,
                error=self.error,
                reason=self.reason,
                oom_kills=kills if knows else machine,
                memory_peak_bytes=peak,
                memory_limit_bytes=self.launch.memory_bytes if knows else None,
                machine_out_of_memory=machine > 0,
                left_behind=len(left),
                cpu_s=cpu_s,
            )
        )
        # Told at once: the control plane makes it durable for itself, and needs no disk of the node for that.
        self._tell("exited\n")
        self.exit_record.settle()
        if self.group is not None:
            self.group.remove()

    def _run_after_commands(self) -> None:
        """Such as the removal of a container, which is no descendant of ours."""
        for argv in self.launch.after_commands:
            pid = os.fork()
            if pid == 0:
                try:
                    null = os.open("/dev/null", os.O_RDWR)
                    for descriptor in (0, 1, 2):
                        os.dup2(null, descriptor)
                    os.execvp(argv[0], argv)
                finally:
                    os._exit(127)
            os.waitpid(pid, 0)


def _machine_oom_kills() -> int:
    """How many processes the kernel has killed for lack of memory on the whole machine since boot."""
    with open("/proc/vmstat", "rb") as file:
        for line in file:
            if line.startswith(b"oom_kill "):
                return int(line.split()[1])
    return 0


def _set_oom_score(score: bytes) -> None:
    """Set by whom the kernel's out-of-memory killer goes; what is started then inherits it."""
    descriptor = os.open("/proc/self/oom_score_adj", os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, score)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM):  # already higher than we may set
            raise
    finally:
        os.close(descriptor)
