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
import shutil
import threading
import time
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import IO, TypeAlias

import msgspec

from noriba.environments import bytecode, pythons
from noriba.environments.errors import EnvironmentBuildError
from noriba.environments.locks import KeyLock, key_lock
from noriba.environments.plan import EnvironmentPlan
from noriba.environments.process import BuildLog, Programs
from noriba.environments.pythons import Interpreter
from noriba.environments.spec import BuildSettings, BuiltEnvironment

RECORD = "environment.json"

Names: TypeAlias = list[str]
"""Ids or names of folders (``list`` means the method inside the class)."""


class EnvironmentRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is written down of a finished environment. Sizes in bytes, times in seconds since the epoch.

    ``exact`` is False where something differs from what was asked (see ``warnings``); ``python`` and ``bin_dir``
    are relative to the environment's folder. ``fingerprint`` is the state of the node that the choice rested on.
    """

    key: str
    id: str
    name: str = ""
    version: str = ""
    key_parts: dict[str, str] = {}
    requirements: list[str] = []
    python: str = "bin/python"
    bin_dir: str = "bin"
    python_version: str = ""
    python_prefix: str = ""
    env: dict[str, str] = {}
    warnings: list[str] = []
    exact: bool = True
    fingerprint: str = ""
    packages: int = 0
    size_bytes: int = 0
    built_at: float = 0.0
    build_seconds: float = 0.0
    container_image: str | None = None
    container_runtime: str | None = None


class EnvironmentInfo(msgspec.Struct, frozen=True, kw_only=True):
    """An environment as ``EnvironmentStore.list`` shows it."""

    record: EnvironmentRecord
    path: str
    last_used_at: float
    leases: list[str]


Infos: TypeAlias = list[EnvironmentInfo]


class EnvironmentStore:
    """The store below ``root``. Any number of processes may use it at once."""

    def __init__(self, root: Path, settings: BuildSettings | None = None) -> None:
        self.root = root.absolute()
        self.settings = settings or BuildSettings()
        for name in ("envs", "staging", "locks", "resolutions", "leases", "used"):
            (self.root / name).mkdir(parents=True, exist_ok=True)

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
                _remove_tree(staging)
                raise
            except BaseException:
                _remove_tree(staging)
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

    # --- looking after them -------------------------------------------------------------------------------

    def list(self) -> Infos:
        """All finished environments, most recently used first."""
        found = []
        for path in (self.root / "envs").iterdir():
            record = self._read(path)
            if record is not None:
                found.append(
                    EnvironmentInfo(
                        record=record,
                        path=str(path),
                        last_used_at=self._last_used(record),
                        leases=self._leases(record.id),
                    )
                )
        return sorted(found, key=lambda info: -info.last_used_at)

    def build_log(self, environment_id: str) -> str:
        """The build log of an environment. Raises ``KeyError`` where there is no such environment."""
        return self._text(environment_id, "build.log")

    def lock_file(self, environment_id: str) -> str:
        """The exact packages of an environment. Raises ``KeyError`` where there is no such environment."""
        return self._text(environment_id, "requirements.lock")

    def _text(self, environment_id: str, name: str) -> str:
        try:
            return (self.root / "envs" / Path(environment_id).name / "noriba" / name).read_text("utf-8")
        except OSError:
            raise KeyError(environment_id) from None

    def release(self, owner: str) -> None:
        """End all leases of ``owner``."""
        for path in (self.root / "leases").glob(f"*/{_file_name(owner)}"):
            path.unlink(missing_ok=True)

    def release_all_except(self, owners: Iterable[str]) -> None:
        """End the leases of everyone else: for an agent that comes back and knows what still runs."""
        kept = {_file_name(owner) for owner in owners}
        for path in (self.root / "leases").glob("*/*"):
            if path.name not in kept:
                path.unlink(missing_ok=True)

    def remove(self, key: str, forget_lock: bool = False) -> Names:
        """Remove the environments of a key (or of one id); with ``forget_lock`` their resolved versions too.

        Returns the ids removed; those in use or being built are left alone.
        """
        removed = [
            path.name
            for path in sorted((self.root / "envs").glob(f"{Path(key).name}*"))
            if self._remove_idle(path.name)
        ]
        for path in (self.root / "resolutions").glob(f"{Path(key).name}*") if forget_lock else ():
            path.unlink(missing_ok=True)
        return removed

    def collect(
        self, max_bytes: int | None = None, max_age_s: float | None = None, now: float | None = None
    ) -> Names:
        """Remove environments unused for ``max_age_s``, then the least recently used until all fit ``max_bytes``.

        Leased ones stay. Returns the ids removed. What builds left behind goes too.
        """
        now = time.time() if now is None else now
        self.clean_stale()
        removed: Names = []
        total = 0
        for info in self.list():  # most recently used first
            too_old = max_age_s is not None and now - info.last_used_at > max_age_s
            too_much = max_bytes is not None and total + info.record.size_bytes > max_bytes
            if (too_old or too_much) and not info.leases and self._remove_idle(info.record.id):
                removed.append(info.record.id)
            else:
                total += info.record.size_bytes
        return removed

    def clean_stale(self) -> Names:
        """Remove what killed builds left in staging, and folders that are no environments; what is being built stays.

        Returns the folders' names.
        """
        removed: Names = []
        for key in {path.name.split(".")[0] for path in (self.root / "staging").iterdir()}:
            with key_lock(self.root / "locks" / key) as lock:
                if lock.try_lock():
                    removed += self._clear_staging(key)
        for path in [path for path in (self.root / "envs").iterdir() if self._read(path) is None]:
            with key_lock(self.root / "locks" / path.name.split("-")[0]) as lock:
                if lock.try_lock() and self._read(path) is None:
                    self._discard(path)
                    removed.append(path.name)
        return sorted(removed)

    def _clear_staging(self, key: str) -> Names:
        found = list((self.root / "staging").glob(f"{key}.*"))
        for path in found:
            _remove_tree(path)
        return [path.name for path in found]

    def _remove_idle(self, environment_id: str) -> bool:
        key = environment_id.split("-")[0]
        with key_lock(self.root / "locks" / key) as lock:
            if not lock.try_lock() or self._leases(environment_id):
                return False
            self._discard(self.root / "envs" / environment_id)
        (self.root / "used" / environment_id).unlink(missing_ok=True)
        return True

    def _discard(self, path: Path) -> None:
        """Take a folder out of sight in one step, then remove it."""
        trash = self.root / "staging" / f"{path.name.split('-')[0]}.{uuid.uuid4().hex[:8]}"
        os.chmod(path, 0o700)  # a sealed folder cannot be moved by its owner
        path.rename(trash)
        _remove_tree(trash)

    def _read(self, path: Path) -> EnvironmentRecord | None:
        try:
            return msgspec.json.decode((path / RECORD).read_bytes(), type=EnvironmentRecord)
        except (OSError, msgspec.DecodeError):
            return None  # not finished, or of a format that this version does not know

    def _touch(self, environment_id: str, lease: str | None) -> None:
        if lease is not None:
            folder = self.root / "leases" / environment_id
            folder.mkdir(exist_ok=True)
            (folder / _file_name(lease)).touch()
        (self.root / "used" / environment_id).touch()

    def _last_used(self, record: EnvironmentRecord) -> float:
        try:
            return (self.root / "used" / record.id).stat().st_mtime
        except OSError:
            return record.built_at

    def _leases(self, environment_id: str) -> Names:
        folder = self.root / "leases" / environment_id
        return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


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


def _file_name(owner: str) -> str:
    return owner.replace("/", "_").lstrip(".") or "_"


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


def _remove_tree(path: Path) -> None:
    bytecode.make_writable(path)
    shutil.rmtree(path)


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
