"""A writable face on a shared, read-only environment, so that a job's own ``pip install`` works and stays its own.

Jobs often begin with ``pip install -r requirements.txt && python train.py``. The overlay is a tiny virtual
environment of the job's: its interpreter sees the packages of the shared environment, what pip installs goes to
the overlay and wins. Making one costs about a millisecond.
"""

from __future__ import annotations

import functools
import os
import shlex
import shutil
import tempfile
from pathlib import Path

import msgspec

from noriba.environments.spec import BuiltEnvironment


def overlay_environment(
    built: BuiltEnvironment, folder: Path, scripts: Path | None = None
) -> BuiltEnvironment:
    """Make an overlay of ``built`` in ``folder`` (absolute; created) and return the environment to run in.

    The result's ``PATH`` entry is ``env["NORIBA_ENVIRONMENT_PATH"]``: the overlay's programs, then the shared ones.
    Containers have no overlay: what is given is returned.

    ``scripts`` is a folder that all overlays of this environment share: the environment's Python scripts are put
    there once, and find the overlay's interpreter by a variable, so that an overlay copies nothing.
    """
    if built.container_image is not None:
        return built
    minor = ".".join(built.python_version.split(".")[:2])
    site = folder / "lib" / f"python{minor}" / "site-packages"
    shared = built.path / "lib" / f"python{minor}" / "site-packages"
    bin_dir = folder / "bin"
    site.mkdir(parents=True, exist_ok=True)
    bin_dir.mkdir(exist_ok=True)
    # The interpreter itself, not the shared environment's link to it: a link to a link would lead Python back there.
    interpreter = Path(os.path.realpath(built.python))
    for name in ("python", "python3", f"python{minor}"):
        (bin_dir / name).symlink_to(interpreter)
    (folder / "pyvenv.cfg").write_text(
        f"home = {interpreter.parent}\ninclude-system-site-packages = false\nversion = {built.python_version}\n"
    )
    # addsitedir, unlike a bare path, also runs the shared environment's own .pth files.
    (site / "_noriba_shared.pth").write_text(f"import site; site.addsitedir({str(shared)!r})\n")
    _mirror_data(built, folder)
    variables = {"VIRTUAL_ENV": str(folder)}
    if scripts is None:
        _copy_scripts(built, bin_dir, shlex.quote(str(bin_dir / "python")))
        path = os.pathsep.join([str(bin_dir), str(built.bin_dir)])
    else:
        _share_scripts(built, scripts)
        path = os.pathsep.join([str(bin_dir), str(scripts), str(built.bin_dir)])
        variables[_INTERPRETER] = str(bin_dir / "python")
    return msgspec.structs.replace(
        built,
        python=bin_dir / "python",
        bin_dir=bin_dir,
        env={**built.env, **variables, "NORIBA_ENVIRONMENT_PATH": path},
        mounts=[*built.mounts, str(interpreter.parent.parent), *([str(scripts)] if scripts else [])],
    )


_RELOCATABLE = """'''exec' "$(dirname -- "$(realpath -- "$0")")"/'python'"""


_INTERPRETER = "NORIBA_ENVIRONMENT_PYTHON"
_MIRRORED = 2000


def _mirror_data(built: BuiltEnvironment, folder: Path) -> None:
    """Let what packages put beside Python (libraries in ``lib``, files in ``share``, ``etc``) be found from ``sys.prefix``.

    Folders are real ones and files are links, so that an installation never writes into the shared environment.
    """
    folders, files = _data_of(built.path)
    for name in folders:
        (folder / name).mkdir(parents=True, exist_ok=True)
    for name in files:
        os.symlink(built.path / name, folder / name)


@functools.lru_cache(maxsize=64)
def _data_of(root: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Folders (parents first) and files of an environment that are neither programs nor Python's own library.

    Of one with very many (a conda environment) only the libraries and ``share``'s and ``etc``'s top are taken.
    """
    folders: list[str] = []
    files: list[str] = []
    for top, inner, names in os.walk(root):
        place = os.path.relpath(top, root)
        if place == ".":
            inner[:] = [name for name in inner if name in ("lib", "share", "etc")]
            continue
        if place == "lib":
            inner[:] = [name for name in inner if not name.startswith("python")]
        if len(files) > _MIRRORED and place.count(os.sep):
            inner[:] = []
            continue
        folders.append(place)
        links = [name for name in inner if os.path.islink(os.path.join(top, name))]
        files += [os.path.join(place, name) for name in (*names, *links)]
    return tuple(folders), tuple(files)


def _share_scripts(built: BuiltEnvironment, scripts: Path) -> None:
    """Make the shared folder of scripts, if it is not there; whole or not at all."""
    if scripts.is_dir():
        return
    scripts.parent.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(prefix=".new-", dir=scripts.parent))
    _copy_scripts(built, made, f'"${{{_INTERPRETER}:-{built.python}}}"')
    made.chmod(0o755)
    try:
        made.rename(scripts)
    except OSError:  # another agent was quicker
        shutil.rmtree(made)
        if not scripts.is_dir():
            raise


def _copy_scripts(built: BuiltEnvironment, bin_dir: Path, own: str) -> None:
    """Put the shared environment's Python scripts (pip, torchrun, mlflow …) into ``bin_dir``, to be run by ``own``.

    The shared scripts would start the shared interpreter, which does not see what the job installed.
    """
    absolute = f"#!{built.bin_dir}/python".encode()
    for script in built.bin_dir.iterdir():
        if script.is_symlink() or not script.is_file():
            continue
        with script.open("rb") as stream:
            head = stream.read(256)
            if _RELOCATABLE.encode() in head:
                content = (head + stream.read()).replace(_RELOCATABLE.encode(), f"'''exec' {own}".encode(), 1)
            elif head.startswith(absolute):
                _, _, rest = (head + stream.read()).partition(b"\n")
                content = f"#!/bin/sh\n'''exec' {own} \"$0\" \"$@\"\n' '''\n".encode() + rest
            else:
                continue
        copy = bin_dir / script.name
        copy.write_bytes(content)
        copy.chmod(0o755)
