"""A node without a GPU never gets a CUDA build of PyTorch."""

from __future__ import annotations

from pathlib import Path

import pytest

from noriba.environments import accelerator, torch_family
from noriba.environments.accelerator import CpuBuild
from noriba.environments.spec import BuildSettings

LINUX = "manylinux_2_28_x86_64"


def test_cpu_builds_are_told_by_their_file_names() -> None:
    names = [
        f"torch-2.13.0+cpu-cp311-cp311-{LINUX}.whl",
        f"/whl/cpu/torch-2.2.0%2Bcpu-cp310-cp310-{LINUX}.whl#sha256=00",
        f"torch-2.14.1-cp311-cp311-{LINUX}.whl",
        f"torch-2.13.0+cu126-cp311-cp311-{LINUX}.whl",
        "torch-2.13.0+cpu-cp311-cp311-win_amd64.whl",
        "torch-2.13.0+cpu-cp311-cp311-manylinux_2_28_aarch64.whl",
        f"torch-2.13.0+cpu-cp313-cp313t-{LINUX}.whl",
        "torch_geometric-2.8.0-py3-none-any.whl",
        f"torchvision-0.28.0+cpu-cp311-cp311-{LINUX}.whl",
    ]
    assert accelerator.cpu_builds(names) == [
        CpuBuild("torch", "2.13.0+cpu", "cp311"),
        CpuBuild("torch", "2.2.0+cpu", "cp310"),
        CpuBuild("torchvision", "0.28.0+cpu", "cp311"),
    ]


def test_builds_come_from_folders_and_the_index(tmp_path: Path) -> None:
    links, index = tmp_path / "links", tmp_path / "index"
    links.mkdir()
    (links / f"torch-2.13.0+cpu-cp311-cp311-{LINUX}.whl").touch()
    for name, version in (("torch", "2.2.0"), ("torchvision", "0.17.0"), ("torchaudio", "2.2.0")):
        (index / name).mkdir(parents=True)
        (index / name / "index.html").write_text(
            f'<a href="{name}-{version}%2Bcpu-cp311-cp311-{LINUX}.whl">x</a>'
        )
    builds, reached = accelerator.find_cpu_builds([str(links)], f"file://{index}", 1)
    assert reached == f"file://{index}"
    assert accelerator.torch_versions(builds, "3.11") == ["2.13.0+cpu", "2.2.0+cpu"]
    assert accelerator.torch_versions(builds, "3.10") == []
    builds, reached = accelerator.find_cpu_builds([f"file://{links}"], "http://127.0.0.1:9/whl", 1)
    assert reached is None
    assert [b.version for b in builds] == ["2.13.0+cpu"]


@pytest.mark.parametrize(
    ("requirements", "versions", "expected"),
    [
        (["torch"], ["2.13.0+cpu", "2.2.0+cpu"], ["2.13.0+cpu", "2.2.0+cpu"]),
        (["torch==2.2.0"], ["2.13.0+cpu", "2.2.0+cpu"], ["2.2.0+cpu"]),
        (["torch>=2,<2.10", "six"], ["2.13.0+cpu", "2.2.0+cpu"], ["2.2.0+cpu"]),
        (["torch==1.9"], ["2.13.0+cpu"], []),
    ],
)
def test_which_builds_a_wish_admits(
    requirements: list[str], versions: list[str], expected: list[str]
) -> None:
    assert accelerator.admissible(requirements, versions) == expected


@pytest.mark.parametrize(
    ("wish", "expected"),
    [
        ("torch==2.3.1", "2.4.0+cpu"),
        ("torch==2.9", "2.4.0+cpu"),
        ("torch<2", "2.2.0+cpu"),
        ("torch==1.9.*", "2.2.0+cpu"),
    ],
)
def test_the_nearest_build_is_the_next_newer_one(wish: str, expected: str) -> None:
    assert accelerator.nearest([wish], ["2.4.0+cpu", "2.2.0+cpu"]) == expected


def test_a_moved_torch_takes_its_family_along() -> None:
    lines = ["torch==1.9.0", "torchvision==0.10.0", "torchaudio[x]>=0.9", "numpy<2", "torch==1.9.0"]
    assert accelerator.relax(lines, "2.2.0+cpu") == [
        "torch==2.2.0+cpu",
        "torchvision",
        "torchaudio[x]",
        "numpy<2",
    ]


def test_a_lock_is_searched_for_cuda() -> None:
    lock = "numpy==1.26.4\ntorch==2.14.1\nnvidia-cublas-cu12==12.1\nnvidia-nccl-cu12==2\nnvidia-ml-py==12\n# nvidia-x-cu12==1\n"
    assert accelerator.cuda_packages(lock) == [
        "torch==2.14.1",
        "nvidia-cublas-cu12==12.1",
        "nvidia-nccl-cu12==2",
    ]
    assert accelerator.cuda_packages("torch==2.13.0+cpu\n") == []


def test_extras_that_only_bring_cuda_are_left_out() -> None:
    assert accelerator.strip_gpu_extras(
        ["tensorflow[and-cuda]==2.16.2", "jax[cuda12,k8s]", "ray[default]"]
    ) == [
        "tensorflow==2.16.2",
        "jax[k8s]",
        "ray[default]",
    ]


@pytest.mark.parametrize(
    ("build", "gpu", "platform", "expected"),
    [
        ("auto", False, "linux-64", True),
        ("auto", True, "linux-64", False),
        ("cpu", True, "linux-64", True),
        ("any", False, "linux-64", False),
        ("auto", False, "linux-aarch64", False),
    ],
)
def test_where_the_rule_holds(build: str, gpu: bool, platform: str, expected: bool) -> None:
    assert BuildSettings(torch_build=build, gpu=gpu, platform=platform).wants_cpu_torch is expected  # type: ignore[arg-type]


def test_torchvision_and_torchaudio_built_for_cuda_are_adapted_without_touching_the_cache(
    tmp_path: Path,
) -> None:
    site, cache = tmp_path / "site", tmp_path / "cached.py"
    (site / "torchvision").mkdir(parents=True)
    (site / "torchaudio" / "lib").mkdir(parents=True)
    (site / "torchaudio" / "lib" / "_torchaudio.so").touch()
    cache.write_text("def _has_ops():\n    return False\n")
    (site / "torchvision" / "extension.py").hardlink_to(cache)
    warnings = torch_family.adapt(
        site, {"torch": "2.13.0+cpu", "torchvision": "0.28.0", "torchaudio": "2.11.0"}
    )
    assert len(warnings) == 2
    assert "_cpu_operators" in (site / "torchvision" / "extension.py").read_text()
    assert "_cpu_operators" not in cache.read_text()
    compile((site / "torchvision" / "_cpu_operators.py").read_text(), "x", "exec")
    assert not list((site / "torchaudio" / "lib").iterdir())


@pytest.mark.parametrize(
    "packages",
    [{"torch": "2.13.0", "torchvision": "0.28.0"}, {"torch": "2.13.0+cpu", "torchvision": "0.28.0+cpu"}, {}],
)
def test_full_builds_are_left_alone(tmp_path: Path, packages: dict[str, str]) -> None:
    assert torch_family.adapt(tmp_path, packages) == []
