"""PyTorch without CUDA for nodes without a GPU, and whether there is a GPU.

PyPI's ``torch`` for x86-64 Linux brings several gigabytes of CUDA. Builds without it carry the local version
``+cpu`` and live on PyTorch's own index or in a folder of wheels that pip's ``find-links`` names. On a node without
a GPU only those may be taken: what a resolver chose is checked before anything is downloaded.
"""

from __future__ import annotations

import glob
import os
import re
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from noriba.environments.requirements import name_of, parse

FAMILY = ("torch", "torchvision", "torchaudio", "torchtext", "torchdata")
"""Packages released together with torch, each requiring one version of it."""

GPU_ONLY = ("nvidia-nccl-cu12", "nvidia-nccl-cu13", "nvidia-nccl-cu11")
"""Required by XGBoost's wheels on Linux, used with several GPUs only, a quarter of a gigabyte."""


def nvidia_gpu_present() -> bool:
    """True where the NVIDIA driver shows at least one GPU."""
    return bool(glob.glob("/dev/nvidia[0-9]*")) or bool(glob.glob("/proc/driver/nvidia/gpus/*"))


class CpuBuild(msgspec.Struct, frozen=True, order=True):
    """A wheel without CUDA: package, version with its local part, and CPython tags such as ``cp311``."""

    name: str
    version: str
    tag: str


_WHEEL = re.compile(
    r"(?P<name>torch|torchvision|torchaudio)-(?P<version>[^-]+)(-\d[^-]*)?-(?P<python>[^-]+)-(?P<abi>[^-]+)-(?P<platform>.+)\.whl$"
)


def cpu_builds(file_names: Iterable[str], platform: str = "linux-64") -> list[CpuBuild]:
    """The CPU builds for the platform among wheel file names. Pure."""
    machine = {"linux-64": "x86_64", "linux-aarch64": "aarch64"}.get(platform, "x86_64")
    found = set()
    for file_name in file_names:
        match = _WHEEL.search(urllib.parse.unquote(file_name.split("#")[0].rsplit("/", 1)[-1]))
        if match is None or "linux" not in match["platform"] or machine not in match["platform"]:
            continue
        try:
            version = Version(match["version"])
        except InvalidVersion:
            continue
        if version.local != "cpu" or match["abi"].endswith("t"):
            continue
        for tag in match["python"].split("."):
            found.add(CpuBuild(match["name"], str(version), tag))
    return sorted(found)


def find_cpu_builds(
    find_links: Sequence[str], index: str, timeout_s: float, platform: str = "linux-64"
) -> tuple[list[CpuBuild], str | None]:
    """Look for CPU builds in pip's ``find-links`` folders and, where it answers, on PyTorch's index.

    Returns the builds and the index's URL, None where it did not answer in ``timeout_s`` or is ''.
    """
    names: list[str] = []
    for link in find_links:
        folder = (
            Path(urllib.parse.unquote(link.removeprefix("file://")))
            if link.startswith(("file://", "/"))
            else None
        )
        if folder is not None and folder.is_dir():
            names += os.listdir(folder)
    reached = None
    for package in ("torch", "torchvision", "torchaudio") if index else ():
        page = _page(f"{index.rstrip('/')}/{package}/", timeout_s)
        if page is None:
            break
        reached = index
        names += re.findall(r"href=[\"']([^\"']+)[\"']", page)
    return cpu_builds(names, platform), reached


def _page(url: str, timeout_s: float) -> str | None:
    if url.startswith("file://"):
        path = Path(urllib.parse.unquote(url.removeprefix("file://"))) / "index.html"
        return path.read_text("utf-8") if path.is_file() else None
    try:
        with urllib.request.urlopen(url, timeout=timeout_s) as answer:
            return str(answer.read().decode("utf-8", "replace"))
    except (OSError, urllib.error.URLError, ValueError):
        return None  # not in reach, which is what the question was


def torch_versions(builds: Iterable[CpuBuild], python: str) -> list[str]:
    """Versions of torch with a CPU build for a Python (``3.11``), newest first."""
    tag = f"cp{python.replace('.', '')}"
    return sorted(
        (b.version for b in builds if b.name == "torch" and b.tag == tag), key=Version, reverse=True
    )


def pinned_torch(requirements: Iterable[str]) -> list[Requirement]:
    """The direct requirements on torch."""
    parsed = (parse(line) for line in requirements if name_of(line) == "torch")
    return [requirement for requirement in parsed if requirement is not None]


def admissible(requirements: Sequence[str], versions: Sequence[str]) -> list[str]:
    """Those of ``versions`` (newest first) that the direct requirements on torch admit."""
    wishes = [r.specifier for r in pinned_torch(requirements)]
    return [v for v in versions if all(w.contains(v, prereleases=True) for w in wishes)]


def nearest(requirements: Sequence[str], versions: Sequence[str]) -> str:
    """Of ``versions``, the closest to what was asked: the oldest that is newer, else the newest. Not empty."""
    asked = [
        Version(s.version.removesuffix(".*"))
        for r in pinned_torch(requirements)
        for s in r.specifier
        if s.operator != "!="
    ]
    newer = [v for v in versions if asked and Version(v) >= max(asked)]
    return min(newer, key=Version) if newer else max(versions, key=Version)


def relax(requirements: Sequence[str], version: str) -> list[str]:
    """Rewrite the direct requirements for another version of torch: torch pinned to it, its family left free."""
    result = []
    for line in requirements:
        name = name_of(line)
        requirement = parse(line)
        if name in FAMILY and requirement is not None:
            extras = f"[{','.join(sorted(requirement.extras))}]" if requirement.extras else ""
            line = f"{name}{extras}=={version}" if name == "torch" else f"{name}{extras}"
        result.append(line)
    return list(dict.fromkeys(result))


def torch_constraint(versions: Sequence[str]) -> list[str]:
    """Constraint lines that keep the resolver within the range of the CPU builds ``versions`` (not empty)."""
    ordered = sorted(versions, key=Version)
    low, high = ordered[0], ordered[-1]
    if low == high:
        return [f"torch=={low}"]
    return [f"torch>={Version(low).public},<={Version(high).public}"]


def locked(lock: str) -> dict[str, str]:
    """Package -> version of a lock as ``uv pip compile`` writes it (packages given by URL have version '')."""
    found: dict[str, str] = {}
    for line in lock.splitlines():
        text = line.split("#")[0].strip()
        match = re.match(r"([A-Za-z0-9._-]+)(\[[^\]]*\])?\s*(==\s*(?P<version>[^\s;]+)|@\s*\S+)", text)
        if match:
            found[canonicalize_name(match[1])] = match["version"] or ""
    return found


def cuda_packages(lock: str) -> list[str]:
    """What of a lock would bring CUDA: a torch that is no CPU build, and NVIDIA's library packages."""
    packages = locked(lock)
    found = [f"torch=={v}" for n, v in packages.items() if n == "torch" and v and Version(v).local != "cpu"]
    found += [
        f"{n}=={v}"
        for n, v in packages.items()
        if re.match(r"(nvidia-(?!ml-py).*-cu\d+|nvidia-cu.*|nvidia-nccl.*|nvidia-nv.*)$", n)
    ]
    return found


def strip_gpu_extras(requirements: Sequence[str]) -> list[str]:
    """Leave out extras that only bring CUDA: ``tensorflow[and-cuda]``, ``jax[cuda12]``."""
    result = []
    for line in requirements:
        requirement = parse(line)
        if requirement is not None and any(_is_gpu_extra(extra) for extra in requirement.extras):
            requirement.extras = {extra for extra in requirement.extras if not _is_gpu_extra(extra)}
            line = str(requirement)
        result.append(line)
    return result


def _is_gpu_extra(extra: str) -> bool:
    return extra == "and-cuda" or bool(re.match(r"cuda\d*", extra))
