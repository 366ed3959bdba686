"""The environments of a node: built once, found by content, shared by all jobs, collected when old.

    ROOT/envs/ID/             a finished environment; never changes again, but for compiled bytecode
                /environment.json, /noriba/requirements.lock, /noriba/build.log
    ROOT/staging/ID.NONCE/    being built; renamed to envs/ID in one step when done
    ROOT/locks/KEY            who builds KEY holds this file's lock, and so do the programs it runs
    ROOT/resolutions/ID.json  locks of all environments ever built here: rebuilding gives the same versions
    ROOT/leases/ID/OWNER      who uses an environment; ROOT/used/ID: when it was last asked for
    ROOT/uv-cache, conda-cache, pythons   caches on the same file system, so that files are linked, not copied

``ID`` is the plan's key and how it was satisfied (``-py310``, ``-conda``, ``-container``). What is not named
``environment.json`` last is not an environment: a build that is killed at any point leaves only staging behind,
which the next holder of its lock removes.
"""

from __future__ import annotations

import os
import threading
import time
import uuid
from pathlib import Path
from typing import IO

import msgspec

from noriba.environments import bytecode, pythons
from noriba.environments.errors import EnvironmentBuildError
from noriba.environments.keeping import RECORD, EnvironmentFolder, EnvironmentRecord, remove_tree
from noriba.environments.locks import KeyLock, key_lock
from noriba.environments.plan import EnvironmentPlan
from noriba.environments.process import BuildLog, Programs
from noriba.environments.pythons import Interpreter
from noriba.environments.spec import BuildSettings, BuiltEnvironment


class EnvironmentStore(EnvironmentFolder):
    """The store below ``root``. Any number of processes may use it at once."""

    def __init__(self, root: Path, settings: BuildSettings | None = None) -> None:
        super().__init__(root)
        self.settings = settings or BuildSettings()

    # --- getting one --------------------------------------------------------------------------------------

    def ensure(
        self,
        plan: EnvironmentPlan,
        log: IO[str],
        cancel: threading.Event | None = None,
        lease: str | None = None,
    ) -> BuiltEnvironment:
        """The environment of a plan: found, or waited for while another builds it, or built.

        ``log`` receives the build log as it grows. ``lease`` names a user of the environment, who keeps it from
        being collected until ``release``. Raises ``EnvironmentBuildError``.
        """
        out, key = BuildLog(log), plan.key()
        _header(plan, out)
        if plan.problems:
            raise _problems(plan)
        with key_lock(self.root / "locks" / key) as lock:
            if lock.try_lock(shared=True) and (found := self._find(plan, key)):
                return self._hit(found, out, lease)
            waited = lock.wait(cancel, lambda seconds: self._tell_waiting(lock, plan, seconds, out))
            if found := self._find(plan, key):
                out(f"waited {waited:.1f} s for the build")
                return self._hit(found, out, lease)
            self._clear_staging(key)
            out(f"cache miss: {self._why_missed(plan)}")
            return self._build(plan, key, lock, out, cancel, lease)

    def find(self, plan: EnvironmentPlan) -> BuiltEnvironment | None:
        """The environment of a plan if it is there already; never waits, never builds."""
        record = self._find(plan, plan.key())
        return None if record is None else self._built(record, hit=True)

    def _find(self, plan: EnvironmentPlan, key: str) -> EnvironmentRecord | None:
        records = [r for path in (self.root / "envs").glob(f"{key}-*") if (r := self._read(path)) is not None]
        for record in sorted(records, key=lambda r: (not r.exact, -r.built_at)):
            if record.exact or record.fingerprint == self.fingerprint(plan):
                return record
        return None

    def fingerprint(self, plan: EnvironmentPlan) -> str:
        """What a choice of second best rests on: the interpreters of the node and its folders of wheels."""
        minors = sorted({interpreter.minor for interpreter in self.interpreters()})
        wheels: list[str] = []
        for link in plan.options.find_links if plan.cpu_torch else ():
            folder = Path(link.removeprefix("file://"))
            wheels += sorted(path.name for path in folder.glob("torch-*.whl")) if folder.is_dir() else []
        return " ".join([*minors, *wheels])

    def interpreters(self) -> list[Interpreter]:
        """The node's interpreters, uv's own ones included."""
        return pythons.discover(self.root / "pythons.json", [self.root / "pythons"])

    def _hit(self, record: EnvironmentRecord, out: BuildLog, lease: str | None) -> BuiltEnvironment:
        built = self._built(record, hit=True)
        self._touch(record.id, lease)
        age = _span(time.time() - record.built_at)
        out(
            f"cache hit: {record.id}, built {age} ago in {record.build_seconds:.1f} s, {record.packages} packages"
        )
        for warning in record.warnings:
            out(f"warning: {warning}")
        return built

    def _built(self, record: EnvironmentRecord, hit: bool) -> BuiltEnvironment:
        path = self.root / "envs" / record.id
        bin_dir = path / record.bin_dir
        env = dict(record.env)
        mounts = [str(path)]
        if record.container_image is None:
            conda = (path / "conda-meta").is_dir()
            env |= (
                {"CONDA_PREFIX": str(path), "CONDA_DEFAULT_ENV": str(path)}
                if conda
                else {"VIRTUAL_ENV": str(path)}
            )
            mounts += [record.python_prefix] if record.python_prefix and not conda else []
        return BuiltEnvironment(
            key=record.key,
            id=record.id,
            path=path,
            python=path / record.python,
            bin_dir=bin_dir,
            env=env,
            cache_hit=hit,
            warnings=list(record.warnings),
            python_version=record.python_version,
            packages=record.packages,
            seconds=record.build_seconds,
            mounts=mounts,
            container_image=record.container_image,
            container_runtime=record.container_runtime,
        )

    def _tell_waiting(self, lock: KeyLock, plan: EnvironmentPlan, seconds: float, out: BuildLog) -> None:
        holder = lock.holder()
        who = f"process {holder['pid']}" if "pid" in holder else "another process"
        out(
            f"waiting for '{plan.name or plan.key()[:12]}', which is being built by {who} ({seconds:.0f} s so far)"
        )
        if seconds and isinstance(name := holder.get("log"), str):
            last = _last_line(Path(name))
            if last:
                out(f"  its log: {last}")

    # --- building -----------------------------------------------------------------------------------------

    def _build(
        self,
        plan: EnvironmentPlan,
        key: str,
        lock: KeyLock,
        out: BuildLog,
        cancel: threading.Event | None,
        lease: str | None,
    ) -> BuiltEnvironment:
        from noriba.environments.builder import Builder  # builders are heavy and most calls are hits

        staging = self.root / "staging" / f"{key}.{uuid.uuid4().hex[:8]}"
        meta = staging / "noriba"
        meta.mkdir(parents=True)
        log_path = meta / "build.log"
        start = time.monotonic()
        with log_path.open("w", encoding="utf-8") as copy:
            log = out.tee(copy)
            lock.describe(log=str(log_path))
            try:
                record = Builder(self, plan, staging, Programs(log, cancel, keep_open=(lock.fd,))).build()
                record = msgspec.structs.replace(
                    record,
                    key=key,
                    name=plan.name,
                    version=plan.version,
                    key_parts=plan.key_parts(),
                    env={**plan.env, **record.env},
                    fingerprint="" if record.exact else self.fingerprint(plan),
                    warnings=list(dict.fromkeys([*plan.warnings, *record.warnings])),
                    built_at=time.time(),
                    build_seconds=round(time.monotonic() - start, 3),
                )
                log(f"done in {record.build_seconds:.1f} s: {record.id}, {record.packages} packages")
            except EnvironmentBuildError as error:
                log(f"failed: {error.code}: {error.message}")
                remove_tree(staging)
                raise
            except BaseException:
                remove_tree(staging)
                raise
        self._publish(staging, record)
        self._touch(record.id, lease)
        self._finish(record)
        return self._built(record, hit=False)

    def _publish(self, staging: Path, record: EnvironmentRecord) -> None:
        target = self.root / "envs" / record.id
        if target.exists():  # one of the same id that no longer counts (see _find), or a damaged one
            self._discard(target)
        (staging / RECORD).write_bytes(msgspec.json.format(msgspec.json.encode(record), indent=1))
        _sync(staging / RECORD)
        staging.rename(target)
        _sync(target.parent)

    def _finish(self, record: EnvironmentRecord) -> None:
        path = self.root / "envs" / record.id
        mode = "off" if record.container_image else self.settings.bytecode
        if mode == "background":
            bytecode.start_finishing(path)
            return
        if mode == "inline":
            bytecode.compile_environment(path, path / record.python)
        bytecode.make_read_only(path)

    def _why_missed(self, plan: EnvironmentPlan) -> str:
        earlier = [info.record for info in self.list() if plan.name and info.record.name == plan.name]
        if not earlier:
            return "it was not built on this node before"
        last, parts = max(earlier, key=lambda r: r.built_at), plan.key_parts()
        changed = [part for part, value in parts.items() if last.key_parts.get(part) != value]
        if not changed:
            return "what could be had on this node has changed since it was built"
        text = f"'{plan.name}' built {_span(time.time() - last.built_at)} ago differs in {', '.join(changed)}"
        if "packages" in changed:
            new, old = set(plan.requirements), set(last.requirements)
            moves = [f"+{line}" for line in sorted(new - old)] + [f"-{line}" for line in sorted(old - new)]
            text += f" ({', '.join(moves[:12])}{', …' if len(moves) > 12 else ''})" if moves else ""
        return text


def _header(plan: EnvironmentPlan, out: BuildLog) -> None:
    name = f"'{plan.name}'{' version ' + plan.version if plan.version else ''} " if plan.name else ""
    out(f"environment {name}key {plan.key()}")
    for note in plan.notes:
        out(note)
    for warning in plan.warnings:
        out(f"warning: {warning}")


def _problems(plan: EnvironmentPlan) -> EnvironmentBuildError:
    messages = list(dict.fromkeys(problem.message for problem in plan.problems))
    return EnvironmentBuildError(plan.problems[0].code, "; ".join(messages))


def _span(seconds: float) -> str:
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(0, seconds):.0f} s"


def _last_line(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            stream.seek(0, os.SEEK_END)
            stream.seek(max(0, stream.tell() - 2000))
            lines = stream.read().decode("utf-8", "replace").strip().splitlines()
    except OSError:
        return ""  # the build has just ended
    return lines[-1] if lines else ""


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
