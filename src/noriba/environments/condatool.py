"""Conda channels: whether they answer, solving, installing. By py-rattler, the library beneath pixi."""

from __future__ import annotations

import asyncio
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import rattler

from noriba.environments import errors
from noriba.environments.conda import channel_url
from noriba.environments.errors import EnvironmentBuildError
from noriba.environments.plan import CondaPlan
from noriba.environments.process import Programs


class CondaRecord(msgspec.Struct, frozen=True):
    """One solved conda package; ``record`` is the library's own object."""

    name: str
    version: str
    url: str
    record: Any


def unreachable_channels(channels: Sequence[str], timeout_s: float) -> list[str]:
    """Those channels that do not answer, each with the reason. All are asked at once."""

    def ask(channel: str) -> str | None:
        url = channel_url(channel)
        if url.startswith("file://"):
            root = Path(urllib.parse.unquote(url.removeprefix("file://")))
            return None if any(root.glob("*/repodata.json*")) else f"{url} has no repodata.json"
        last = ""
        for name in ("repodata.json.zst", "repodata.json"):
            request = urllib.request.Request(
                f"{url}/noarch/{name}", method="HEAD", headers={"User-Agent": "noriba"}
            )
            try:
                with urllib.request.urlopen(request, timeout=timeout_s):
                    return None
            except urllib.error.HTTPError as error:
                last = f"{url} answers {error.code}"
            except OSError as error:
                return f"{url} cannot be reached: {getattr(error, 'reason', error)}"
        return last

    with ThreadPoolExecutor(max_workers=8) as pool:
        return [reason for reason in pool.map(ask, channels) if reason is not None]


def specs(conda: CondaPlan, with_pip: bool) -> list[str]:
    """The MatchSpecs to solve. pip packages need a Python to live in, named or not."""
    names = {dependency.name for dependency in conda.dependencies}
    implied = ["python"] if with_pip and "python" not in names else []
    return [*(dependency.match_spec() for dependency in conda.dependencies), *implied]


def solve(channels: Sequence[str], wanted: Sequence[str], timeout_s: float = 120.0) -> list[CondaRecord]:
    """Solve for this machine, channels in strict order of priority. Raises ``EnvironmentBuildError``."""
    # Channels named in front of a package (channel::name) must be among those searched.
    extra = [spec.split("channel='")[1].split("'")[0] for spec in wanted if "channel='" in spec]
    urls = list(dict.fromkeys(channel_url(channel) for channel in [*channels, *extra]))
    named = [_with_channel_url(spec) for spec in wanted]

    async def run() -> list[rattler.RepoDataRecord]:
        return await rattler.solve(
            sources=urls,
            specs=named,
            virtual_packages=rattler.VirtualPackage.detect(),
            timeout=timedelta(seconds=timeout_s),
        )

    try:
        found = asyncio.run(run())
    except Exception as error:  # rattler raises its own exception types, one per cause, all with a clear text
        text = " ".join(str(error).split())
        if type(error).__name__ in ("SolverError",) or "Cannot solve" in text or "No candidates" in text:
            raise EnvironmentBuildError(
                errors.PACKAGE_NOT_FOUND,
                f"the conda channels {', '.join(urls)} cannot satisfy the environment: {text}. Correct the names and versions, or add "
                "the channel that has them",
            ) from error
        raise EnvironmentBuildError(
            errors.CHANNEL_UNREACHABLE, f"the conda channels could not be read: {text}"
        ) from error
    return sorted(
        (CondaRecord(r.name.normalized, str(r.version), str(r.url), r) for r in found),
        key=lambda record: record.name,
    )


def _with_channel_url(spec: str) -> str:
    if "channel='" not in spec:
        return spec
    head, _, tail = spec.partition("channel='")
    channel, _, rest = tail.partition("'")
    return f"{head}channel='{channel_url(channel)}'{rest}"


def install(records: Sequence[CondaRecord], staging: Path, target: Path, cache: Path) -> None:
    """Install into ``staging`` what will live at ``target``: paths written into files are those of the latter.

    Scripts that packages would run after linking are not run. Raises ``EnvironmentBuildError``.
    """
    cache.mkdir(parents=True, exist_ok=True)

    async def run() -> None:
        await rattler.install(
            records=[record.record for record in records],
            target_prefix=staging,
            alternative_target_prefix=target,
            cache_dir=cache,
            show_progress=False,
            execute_link_scripts=False,
        )

    try:
        asyncio.run(run())
    except Exception as error:  # see solve
        raise EnvironmentBuildError(
            errors.BUILD_FAILED, f"the conda packages could not be installed: {' '.join(str(error).split())}"
        ) from error


def move_scripts(staging: Path, target: Path) -> None:
    """Point scripts that pip wrote for ``staging`` to ``target``: their first line holds an absolute path."""
    old, new = str(staging).encode(), str(target).encode()
    for path in (staging / "bin").iterdir():
        if path.is_symlink() or not path.is_file():
            continue
        content = path.read_bytes()
        if content.startswith(b"#!") and old in content[:4096]:
            mode = path.stat().st_mode
            path.unlink()  # it may be a hard link to the cache
            path.write_bytes(content.replace(old, new))
            path.chmod(mode)


def python_version(programs: Programs, python: Path) -> str:
    """``3.11.7``. Raises ``EnvironmentBuildError`` where the interpreter does not run."""
    done = programs.run([python, "-I", "-c", "import platform; print(platform.python_version())"])
    if done.status:
        raise EnvironmentBuildError(
            errors.BUILD_FAILED, f"the conda environment's Python does not run: {done.errors.strip()}"
        )
    return done.output.strip()
