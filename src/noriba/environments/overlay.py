"""A writable face on a shared, read-only environment, so that a job's own ``pip install`` works and stays its own.

Jobs often begin with ``pip install -r requirements.txt && python train.py``. The overlay is a tiny virtual
environment of the job's: its interpreter sees the packages of the shared environment, what pip installs goes to
the overlay and wins. Making one costs about a millisecond.
"""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import msgspec

from noriba.environments.spec import BuiltEnvironment


def overlay_environment(built: BuiltEnvironment, folder: Path) -> BuiltEnvironment:
    """Make an overlay of ``built`` in ``folder`` (absolute; created) and return the environment to run in.

    The result's ``PATH`` entry is ``env["NORIBA_ENVIRONMENT_PATH"]``: the overlay's programs, then the shared ones.
    Containers have no overlay: what is given is returned.
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
    _copy_scripts(built, bin_dir)
    path = os.pathsep.join([str(bin_dir), str(built.bin_dir)])
    return msgspec.structs.replace(
        built,
        python=bin_dir / "python",
        bin_dir=bin_dir,
        env={**built.env, "VIRTUAL_ENV": str(folder), "NORIBA_ENVIRONMENT_PATH": path},
        mounts=[*built.mounts, str(interpreter.parent.parent)],
    )


_RELOCATABLE = """'''exec' "$(dirname -- "$(realpath -- "$0")")"/'python'"""


def _copy_scripts(built: BuiltEnvironment, bin_dir: Path) -> None:
    """Give the overlay the shared environment's Python scripts (pip, torchrun, mlflow …), run by its own interpreter.

    The shared scripts would start the shared interpreter, which does not see what the job installed.
    """
    own = shlex.quote(str(bin_dir / "python"))
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
