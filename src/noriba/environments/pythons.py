"""Interpreters: which are on this machine, and which one an environment gets."""

from __future__ import annotations

import glob
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

import msgspec
from packaging.specifiers import SpecifierSet
from packaging.version import Version

OLDEST = Version("3.8")
"""The oldest Python that uv installs into."""

_NEEDED = ("ssl", "zlib", "ctypes", "hashlib")
_WANTED = ("bz2", "lzma", "sqlite3", "readline")


class Interpreter(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A Python on this machine. ``prefix`` is the folder that must be visible to whoever runs it.

    ``missing`` are modules of the standard library that this build lacks.
    """

    path: str
    version: str
    prefix: str
    missing: tuple[str, ...] = ()

    @property
    def minor(self) -> str:
        """``3.10``."""
        return ".".join(self.version.split(".")[:2])


_PROBE = f"""
import importlib.util, json, os, platform, sys
missing = []
for name in {(*_NEEDED, *_WANTED)!r}:
    try: __import__(name)
    except ImportError: missing.append(name)
print(json.dumps([platform.python_implementation(), platform.python_version(), sys.base_prefix,
                  sys.prefix != sys.base_prefix, os.path.realpath(sys.executable), missing]))
"""


def candidate_paths(extra: Iterable[Path] = (), env: dict[str, str] | None = None) -> list[Path]:
    """Where interpreters may be, best first: this one's, ``extra`` roots, PATH, pyenv, uv's, usual folders."""
    env = dict(os.environ) if env is None else env
    home = Path(env.get("HOME") or "~").expanduser()
    patterns = [str(Path(sys.base_prefix) / "bin" / "python3*")]
    patterns += [str(root / "*" / "bin" / "python3*") for root in extra]
    patterns += [str(Path(folder) / "python3*") for folder in env.get("PATH", "").split(os.pathsep) if folder]
    roots = [
        Path(env.get("PYENV_ROOT") or home / ".pyenv") / "versions",
        Path(env.get("UV_PYTHON_INSTALL_DIR") or home / ".local/share/uv/python"),
        Path("/opt/python"),
    ]
    patterns += [str(root / "*" / "bin" / "python3*") for root in roots]
    patterns += ["/usr/local/bin/python3*", "/usr/bin/python3*", "/opt/conda/bin/python3*"]
    found: dict[Path, None] = {}
    for pattern in patterns:
        for name in sorted(glob.glob(pattern)):
            if (
                re.fullmatch(r"python3(\.\d+)?", os.path.basename(name))
                and "/shims/" not in name
                and os.access(name, os.X_OK)
            ):
                found.setdefault(Path(name).resolve())
    return list(found)


def discover(
    cache_file: Path | None = None, extra: Iterable[Path] = (), env: dict[str, str] | None = None
) -> list[Interpreter]:
    """The usable CPythons of this machine. Probing costs a process each, so results are kept in ``cache_file``."""
    known = _read_cache(cache_file)
    fresh: dict[str, list[object]] = {}
    result: dict[tuple[str, str], Interpreter] = {}
    for path in candidate_paths(extra, env):
        stat = path.stat()
        stamp = f"{stat.st_mtime_ns}-{stat.st_size}"
        entry = known.get(str(path))
        answer = entry[1] if entry and entry[0] == stamp else _probe(path)
        fresh[str(path)] = [stamp, answer]
        if not isinstance(answer, list):
            continue
        implementation, version, prefix, virtual, real, missing = answer
        if implementation != "CPython" or virtual or set(missing) & set(_NEEDED):
            continue
        if not re.fullmatch(r"\d+\.\d+\.\d+", version) or Version(version) < OLDEST:
            continue
        interpreter = Interpreter(path=real, version=version, prefix=prefix, missing=tuple(missing))
        result.setdefault((interpreter.version, interpreter.path), interpreter)
    if cache_file is not None and fresh != known:
        cache_file.parent.mkdir(parents=True, exist_ok=True)
        temporary = cache_file.with_suffix(f".{os.getpid()}")
        temporary.write_text(json.dumps(fresh))
        temporary.replace(cache_file)
    return list(result.values())


def _read_cache(cache_file: Path | None) -> dict[str, list[object]]:
    if cache_file is None:
        return {}
    try:
        loaded = json.loads(cache_file.read_text())
    except (OSError, ValueError):
        return {}  # no cache, or one cut short: probe again
    return loaded if isinstance(loaded, dict) else {}


def _probe(path: Path) -> object:
    try:
        done = subprocess.run(
            [str(path), "-I", "-c", _PROBE],
            capture_output=True,
            text=True,
            timeout=20,
            stdin=subprocess.DEVNULL,
            check=False,
        )
        return json.loads(done.stdout) if done.returncode == 0 else None
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return None  # not an interpreter that works here, which is what the question was


class Choice(msgspec.Struct, frozen=True):
    """The interpreter taken for a wish; ``exact`` is False where it only comes near."""

    interpreter: Interpreter
    exact: bool


def choose(wanted: str, interpreters: Sequence[Interpreter], default: str = "") -> Choice | None:
    """Pick an interpreter for the specifier ``wanted`` ('' = any, then ``default``'s minor version is preferred). Pure.

    Order: one that satisfies the specifier (most complete, then newest patch), one of the same minor version as
    asked, the closest newer, the closest older. None where there is no interpreter at all.
    """
    if not interpreters:
        return None
    if not wanted:
        near = wanted_minor(default) if default else None
        key = (lambda i: _distance(i, near)) if near is not None else _age
        return Choice(min(interpreters, key=lambda i: (key(i), len(i.missing), _age(i))), True)
    specifier = SpecifierSet(wanted)
    fitting = [i for i in interpreters if specifier.contains(i.version, prereleases=True)]
    if fitting:
        preferred = [i for i in fitting if i.minor == default] if _is_range(wanted) else []
        return Choice(min(preferred or fitting, key=lambda i: (len(i.missing), _age(i))), True)
    target = wanted_minor(wanted)
    chosen = min(interpreters, key=lambda i: (_distance(i, target), len(i.missing), _age(i)))
    # "python=3.8.5" on 3.8.18 is what was meant: patch releases change no interface.
    return Choice(chosen, _minor(Version(chosen.version)) == target and "==" in wanted)


def _is_range(wanted: str) -> bool:
    return "==" not in wanted and "~=" not in wanted


def _age(interpreter: Interpreter) -> tuple[int, ...]:
    return tuple(-number for number in Version(interpreter.version).release)


def _minor(version: Version) -> tuple[int, int]:
    return (version.major, version.minor)


def by_distance(wanted: str, interpreters: Iterable[Interpreter]) -> list[Interpreter]:
    """One interpreter for each minor version, nearest to the specifier first (as ``choose`` has it). Pure."""
    target = wanted_minor(wanted)
    best: dict[str, Interpreter] = {}
    for interpreter in sorted(interpreters, key=lambda i: (_distance(i, target), len(i.missing), _age(i))):
        best.setdefault(interpreter.minor, interpreter)
    return list(best.values())


def wanted_minor(wanted: str) -> tuple[int, int]:
    """The minor version that a specifier is about: of an upper bound, the one just below it."""
    found: list[tuple[int, int]] = []
    for operator, text in re.findall(r"(===|==|~=|!=|<=|>=|<|>)?\s*v?(\d+(?:\.\d+)*)", wanted):
        if operator == "!=":
            continue
        version = Version(text)
        if operator == "<" and len(version.release) <= 2:
            found.append((version.major, max(0, version.minor - 1)))
        else:
            found.append(_minor(version))
    return max(found, default=(3, 11))


def _distance(interpreter: Interpreter, target: tuple[int, int] | None) -> tuple[int, int]:
    assert target is not None
    have = _minor(Version(interpreter.version))
    gap = (have[0] - target[0]) * 100 + have[1] - target[1]
    order: Literal[0, 1, 2] = 0 if gap == 0 else 1 if gap > 0 else 2
    return (order, abs(gap))
