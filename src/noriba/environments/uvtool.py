"""uv, asked to resolve and to install. What it answers is turned into this package's errors."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec
import uv

from noriba.environments import errors
from noriba.environments.errors import EnvironmentBuildError
from noriba.environments.pipconfig import uv_arguments, uv_environment
from noriba.environments.process import Finished, Programs
from noriba.environments.spec import PipOptions


class Resolution(msgspec.Struct, frozen=True, kw_only=True):
    """What to resolve: requirement lines and rules. ``overrides`` replace what packages say of each other."""

    requirements: tuple[str, ...]
    constraints: tuple[str, ...] = ()
    overrides: tuple[str, ...] = ()
    options: PipOptions = PipOptions()
    wheels_only: bool = False


class Uv:
    """uv with its cache under the store, so that environments share files with it by hard links."""

    def __init__(self, programs: Programs, cache: Path, pythons: Path, options: PipOptions) -> None:
        self.programs = programs
        self.binary = uv.find_uv_bin()
        self.options = options
        self._env = {
            "UV_CACHE_DIR": str(cache),
            "UV_PYTHON_INSTALL_DIR": str(pythons),
            "UV_PYTHON_DOWNLOADS": "never",
            "UV_LINK_MODE": "hardlink",
            "UV_NO_PROGRESS": "1",
            "UV_NO_CONFIG": "1",
            "NO_COLOR": "1",
            **uv_environment(options),
        }

    def run(self, *arguments: str, cwd: Path | None = None, show: bool = False, **env: str) -> Finished:
        """Run one uv command."""
        return self.programs.run([self.binary, *arguments], env={**self._env, **env}, cwd=cwd, show=show)

    def create(self, path: Path, python: str) -> None:
        """Make an empty relocatable virtual environment. Raises ``EnvironmentBuildError``."""
        done = self.run(
            "venv", "--relocatable", "--no-project", "--allow-existing", "--python", python, str(path)
        )
        if done.status:
            raise EnvironmentBuildError(
                errors.BUILD_FAILED, f"the virtual environment could not be made: {_short(done.errors)}"
            )

    def compile(
        self, wish: Resolution, python: str, work: Path, cwd: Path, offline: bool = False
    ) -> Finished:
        """Resolve. The lock is in ``output``; ``work`` receives the input files."""
        source, constraints, overrides = (
            work / "requirements.in",
            work / "constraints.txt",
            work / "overrides.txt",
        )
        source.write_text("".join(f"{line}\n" for line in wish.requirements))
        constraints.write_text(
            "".join(f"{line}\n" for line in (*wish.constraints, *wish.options.constraints))
        )
        overrides.write_text("".join(f"{line}\n" for line in wish.overrides))
        return self.run(
            "pip", "compile", str(source), "--quiet", "--no-header", "--python", python, "--constraint", str(constraints),
            "--override", str(overrides), "--annotation-style", "line", "--no-strip-extras",
            *uv_arguments(wish.options),
            *(["--only-binary", ":all:"] if wish.wheels_only else []),
            *(["--offline"] if offline else []),
            cwd=cwd,
        )  # fmt: skip

    def install(self, lock: Path, python: Path, options: PipOptions, cwd: Path, wheels_only: bool) -> str:
        """Install a lock: from the cache if that holds all of it, else from the indexes. Returns which of the two.

        Raises ``EnvironmentBuildError``.
        """
        arguments = [
            "pip", "install", "--no-deps", "--python", str(python), "--requirement", str(lock), *uv_arguments(options),
            *(["--only-binary", ":all:"] if wheels_only else []),
        ]  # fmt: skip
        if self.run(*arguments, "--offline", cwd=cwd).status == 0:
            return "cache"
        done = self.run(*arguments, cwd=cwd)
        if done.status:
            raise explain(done.errors)
        return "index"

    def check(self, python: Path) -> list[str]:
        """Contradictions between installed packages, one line each."""
        done = self.run("pip", "check", "--python", str(python))
        return [
            line.strip()
            for line in done.errors.splitlines()
            if " requires " in line or "incompatible" in line
        ]

    def freeze(self, python: Path) -> str:
        """The installed packages, as requirement lines."""
        return self.run("pip", "freeze", "--python", str(python)).output

    def download_python(self, version: str, timeout_s: float) -> bool:
        """Have uv fetch an interpreter (``3.10``); False where its server is out of reach or has none."""
        start = time.monotonic()
        done = self.run(
            "python", "install", "--no-bin", version,
            UV_PYTHON_DOWNLOADS="automatic", UV_HTTP_RETRIES="0", UV_HTTP_TIMEOUT=str(max(1, round(timeout_s))),
            UV_HTTP_CONNECT_TIMEOUT=str(max(1, round(timeout_s))),
        )  # fmt: skip
        if done.status:
            self.programs.log(
                f"Python {version} cannot be downloaded ({time.monotonic() - start:.1f} s): {_short(done.errors, 120)}"
            )
        return done.status == 0


_NOT_FOUND = re.compile(
    r"Because (?:all versions of )?([A-Za-z0-9._-]+) was not found in the (?:package registry|provided package locations)"
)
_NO_VERSION = re.compile(
    r"(?:Because|and) (?:there is no version of|only) ([A-Za-z0-9._-]+)(?:\[[^\]]*\])?(\S*)"
)
_UNREACHABLE = re.compile(
    r"Failed to fetch|error sending request|dns error|Connection refused|timed out|Network connectivity is disabled",
    re.I,
)


def missing_package(message: str) -> str | None:
    """The name of a package that no index holds, as uv's message tells it."""
    match = _NOT_FOUND.search(_flat(message))
    return match[1] if match else None


def explain(message: str) -> EnvironmentBuildError:
    """uv's message as an error with a code, its drawing characters taken away."""
    text = _flat(message)
    if missing := missing_package(message):
        return EnvironmentBuildError(
            errors.PACKAGE_NOT_FOUND,
            f"no package index in reach holds '{missing}'; correct the name, or add the index that has it "
            "(--extra-index-url in the conda file's pip list, or pip's configuration of the node)",
        )
    if "No solution found" in text or "unsatisfiable" in text:
        reason = (
            text.split("No solution found when resolving dependencies")[-1]
            .removeprefix(":")
            .strip()
            .removeprefix("cause: ")
        )
        if _NO_VERSION.search(text) and "depends on" not in text:
            return EnvironmentBuildError(
                errors.PACKAGE_NOT_FOUND, f"a requested version does not exist for this Python: {reason}"
            )
        return EnvironmentBuildError(errors.CONFLICT, f"the packages exclude each other: {reason}")
    if _UNREACHABLE.search(text):
        return EnvironmentBuildError(
            errors.INDEX_UNREACHABLE,
            f"a package index did not answer and the cache does not hold all packages: {_short(message)}",
        )
    return EnvironmentBuildError(errors.BUILD_FAILED, _short(message, 1500))


def _flat(message: str) -> str:
    text = re.sub(r"[│╭╰├─▶×✕]+", " ", message)
    return " ".join(text.split())


def _short(message: str, length: int = 600) -> str:
    text = _flat(message).removeprefix("error: ")
    return text if len(text) <= length else text[: length - 1] + "…"


def not_found(names: Sequence[str], details: Sequence[str] = ()) -> EnvironmentBuildError:
    """One error for all packages that cannot be had."""
    listed = ", ".join(f"'{name}'" for name in names)
    more = f" ({'; '.join(details)})" if details else ""
    return EnvironmentBuildError(
        errors.PACKAGE_NOT_FOUND,
        f"not available from any package index in reach: {listed}{more}. Correct the names, or add the index that has "
        "them (--extra-index-url in the conda file's pip list, or pip's configuration of the node)",
    )
