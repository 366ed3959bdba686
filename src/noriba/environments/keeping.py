"""The finished environments of a node: listed, leased, removed, collected (the layout is told in ``store``)."""

from __future__ import annotations

import os
import shutil
import time
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import TypeAlias

import msgspec

from noriba.environments import bytecode
from noriba.environments.locks import key_lock

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


class EnvironmentFolder:
    """What is below ``root``. Any number of processes may use it at once."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        for name in ("envs", "staging", "locks", "resolutions", "leases", "used"):
            (self.root / name).mkdir(parents=True, exist_ok=True)

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
            remove_tree(path)
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
        remove_tree(trash)

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


def remove_tree(path: Path) -> None:
    """Remove a folder, read-only or not."""
    bytecode.make_writable(path)
    shutil.rmtree(path)


def _file_name(owner: str) -> str:
    return owner.replace("/", "_").lstrip(".") or "_"
