"""Make torchvision and torchaudio built for CUDA importable beside a PyTorch built without it.

PyPI has both for x86-64 Linux only as CUDA builds, and these cannot be imported on a PyTorch without CUDA. Where
PyTorch's own index is out of reach, there are no others. Most of either package is plain Python.
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from packaging.version import Version

_HOOK = """

# Added by Noriba: this build's compiled operators need CUDA libraries that are not here.
if not _has_ops():
    from . import _cpu_operators
"""

_REMEDY = "Make the index of torch_cpu_index reachable from the node to get the full one"


def adapt(site_packages: Path, packages: dict[str, str]) -> list[str]:
    """Adapt what is installed in ``site_packages`` (``packages``: name -> version). Returns warnings for the user."""
    torch = packages.get("torch")
    if not torch or Version(torch).local != "cpu":
        return []
    warnings = []
    if _built_for_cuda(packages.get("torchvision")) and _adapt_torchvision(site_packages):
        warnings.append(
            "torchvision has no CPU build in reach: its CUDA build is installed, without its compiled operators. Models, "
            "transforms, datasets, nms and roi_align work; roi_pool, deform_conv2d and torchvision.io's decoders do not. "
            + _REMEDY
        )
    if _built_for_cuda(packages.get("torchaudio")) and _adapt_torchaudio(site_packages):
        warnings.append(
            "torchaudio has no CPU build in reach: its CUDA build is installed, without its compiled functions. Transforms, "
            "models and datasets work; lfilter, the RNN-T loss and forced alignment do not. " + _REMEDY
        )
    return warnings


def _built_for_cuda(version: str | None) -> bool:
    return bool(version) and Version(str(version)).local is None


def _adapt_torchvision(site_packages: Path) -> bool:
    extension = site_packages / "torchvision" / "extension.py"
    if not extension.is_file() or "def _has_ops" not in (text := extension.read_text("utf-8")):
        return False
    code = (
        resources.files("noriba.environments")
        .joinpath("data/torchvision_cpu_operators.py.txt")
        .read_text("utf-8")
    )
    (extension.parent / "_cpu_operators.py").write_text(code, "utf-8")
    extension.unlink()  # the file may be a hard link to the cache, which other environments share
    extension.write_text(text + _HOOK, "utf-8")
    return True


def _adapt_torchaudio(site_packages: Path) -> bool:
    """torchaudio does without a library that is missing, but not with one that cannot be loaded."""
    libraries = list((site_packages / "torchaudio" / "lib").glob("*.so"))
    for library in libraries:
        library.unlink()
    return bool(libraries)
