"""Hand-made wheels, folders of them and conda channels, so that real builds need no network."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from noriba.environments.spec import BuildSettings, PipOptions
from noriba.environments.store import EnvironmentStore

MINOR = f"{sys.version_info.major}.{sys.version_info.minor}"


def make_wheel(
    folder: Path,
    name: str,
    version: str,
    code: str = "",
    requires: tuple[str, ...] = (),
    scripts: dict[str, str] | None = None,
    tag: str = "py3-none-any",
) -> Path:
    """Write a wheel with one module of the package's name; ``scripts`` are console entry points."""
    module = name.replace("-", "_")
    info = f"{module}-{version}.dist-info"
    files = {
        f"{module}/__init__.py": f"__version__ = {version!r}\n{code}",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        + "".join(f"Requires-Dist: {line}\n" for line in requires),
        f"{info}/WHEEL": f"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: {tag}\n",
    }
    if scripts:
        lines = "".join(f"{script} = {target}\n" for script, target in scripts.items())
        files[f"{info}/entry_points.txt"] = f"[console_scripts]\n{lines}"
    record = ""
    for path, content in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(content.encode()).digest()).rstrip(b"=").decode()
        record += f"{path},sha256={digest},{len(content.encode())}\n"
    files[f"{info}/RECORD"] = record + f"{info}/RECORD,,\n"
    folder.mkdir(parents=True, exist_ok=True)
    wheel = folder / f"{module}-{version}-{tag}.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path, content in files.items():
            archive.writestr(path, content)
    return wheel


@pytest.fixture(scope="session")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of wheels: the tools that every environment gets, and a small application with a dependency."""
    folder = tmp_path_factory.mktemp("wheels")
    make_wheel(folder, "pip", "24.0")
    make_wheel(folder, "setuptools", "70.0")
    make_wheel(folder, "wheel", "0.43")
    make_wheel(folder, "greeting", "1.0", "def say():\n    return 'hello'\n")
    make_wheel(folder, "greeting", "2.0", "def say():\n    return 'good day'\n")
    make_wheel(
        folder,
        "greeter",
        "0.1",
        "import greeting, sys\ndef main():\n    print(greeting.say(), sys.prefix)\n",
        requires=("greeting>=1",),
        scripts={"greet": "greeter:main"},
    )
    return folder


@pytest.fixture
def settings(wheels: Path) -> BuildSettings:
    """Settings of a node that knows nothing but ``wheels`` and the interpreter of the tests."""
    return BuildSettings(
        python_downloads=False,
        conda_timeout_s=1.0,
        torch_cpu_index="http://127.0.0.1:9/whl/cpu",
        bytecode="off",
        pip=PipOptions(no_index=True, find_links=(str(wheels),)),
    )


@pytest.fixture
def store(tmp_path: Path, settings: BuildSettings) -> EnvironmentStore:
    """An empty store."""
    return EnvironmentStore(tmp_path / "store", settings)


def conda_package(
    channel: Path,
    name: str,
    version: str,
    files: dict[str, str],
    depends: tuple[str, ...] = (),
    subdir: str = "noarch",
    entry_points: tuple[str, ...] = (),
    links: dict[str, str] | None = None,
    prefix_files: tuple[str, ...] = (),
) -> None:
    """Write a conda package (.tar.bz2) and its entry in the channel's repodata.

    ``entry_points`` make it a noarch Python package; files in ``prefix_files`` hold ``PREFIX_PLACEHOLDER``.
    """
    folder = channel / subdir
    folder.mkdir(parents=True, exist_ok=True)
    noarch_python = bool(entry_points)
    index = {
        "name": name,
        "version": version,
        "build": "0",
        "build_number": 0,
        "depends": list(depends),
        "subdir": subdir,
        "timestamp": 1700000000000,
    }
    if noarch_python:
        index |= {"noarch": "python"}
    paths = []
    for path, content in files.items():
        entry = {
            "_path": path,
            "path_type": "hardlink",
            "sha256": hashlib.sha256(content.encode()).hexdigest(),
            "size_in_bytes": len(content.encode()),
        }
        if path in prefix_files:
            entry |= {"prefix_placeholder": "PREFIX_PLACEHOLDER", "file_mode": "text"}
        paths.append(entry)
    for path in links or {}:
        paths.append(
            {
                "_path": path,
                "path_type": "softlink",
                "sha256": hashlib.sha256(b"").hexdigest(),
                "size_in_bytes": 0,
            }
        )
    members = dict(files)
    members["info/index.json"] = json.dumps(index)
    members["info/paths.json"] = json.dumps({"paths": paths, "paths_version": 1})
    members["info/files"] = "".join(f"{path}\n" for path in [*files, *(links or {})])
    if noarch_python:
        members["info/link.json"] = json.dumps(
            {"noarch": {"type": "python", "entry_points": list(entry_points)}, "package_metadata_version": 1}
        )
    archive = folder / f"{name}-{version}-0.tar.bz2"
    with tarfile.open(archive, "w:bz2") as tar:
        for path, content in members.items():
            member = tarfile.TarInfo(path)
            member.size, member.mode = len(content.encode()), 0o755
            tar.addfile(member, io.BytesIO(content.encode()))
        for path, target in (links or {}).items():
            member = tarfile.TarInfo(path)
            member.type, member.linkname = tarfile.SYMTYPE, target
            tar.addfile(member)
    repodata_path = folder / "repodata.json"
    repodata = (
        json.loads(repodata_path.read_text())
        if repodata_path.exists()
        else {"packages": {}, "packages.conda": {}}
    )
    packed = archive.read_bytes()
    repodata["packages"][archive.name] = {
        **index,
        "md5": hashlib.md5(packed).hexdigest(),
        "sha256": hashlib.sha256(packed).hexdigest(),
        "size": len(packed),
    }
    repodata["info"] = {"subdir": subdir}
    repodata_path.write_text(json.dumps(repodata))


@pytest.fixture(scope="session")
def channel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A conda channel with a Python, a noarch Python package with an entry point, and one with a prefix in a file.

    The Python is this machine's, in a conda package: ``pyvenv.cfg`` tells the interpreter that its prefix is the
    conda environment.
    """
    from noriba.environments.spec import current_platform

    root = tmp_path_factory.mktemp("channel")
    base = Path(sys.base_prefix) / "bin" / f"python{MINOR}"
    conda_package(
        root,
        "python",
        f"{MINOR}.99",
        {
            "pyvenv.cfg": f"home = {base.parent}\n",
            f"lib/python{MINOR}/site-packages/README.txt": "packages\n",
        },
        subdir=current_platform(),
        links={
            "bin/python": f"python{MINOR}",
            f"bin/python{MINOR}": str(base),
            "bin/python3": f"python{MINOR}",
        },
    )
    conda_package(
        root,
        "conda-hello",
        "1.2",
        {
            "site-packages/conda_hello/__init__.py": "import sys\ndef main():\n    print('conda says hello from', sys.prefix)\n",
            "site-packages/conda_hello-1.2.dist-info/METADATA": "Metadata-Version: 2.1\nName: conda-hello\nVersion: 1.2\n",
        },
        depends=("python >=3.8",),
        entry_points=("conda-hello = conda_hello:main",),
    )
    conda_package(
        root,
        "where-am-i",
        "1.0",
        {"etc/where": "PREFIX_PLACEHOLDER/etc\n"},
        prefix_files=("etc/where",),
    )
    return root


@pytest.fixture
def write_context(tmp_path: Path) -> Callable[[dict[str, str]], str]:
    """Write the files of a build context; returns its folder."""

    def write(files: dict[str, str]) -> str:
        root = tmp_path / "context"
        for name, content in files.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
        return str(root)

    return write
