"""Finishing an environment: compile its modules, then make it read-only.

Compiling takes far longer than installing (14 s against 0.7 s for scikit-learn, pandas and MLflow) and saves each
job's first import some seconds, so it happens after the environment is in use, in a process of its own:
``python -m noriba.environments.bytecode FOLDER``. It takes no lock: an environment that is removed meanwhile is moved
away first, so there is nothing at its path any more, which is no harm.
"""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path


def start_finishing(path: Path) -> subprocess.Popen[bytes]:
    """Finish in the background, at low priority, in a session of its own that outlives the caller."""
    env = {k: v for k, v in os.environ.items() if k not in ("PYTHONDONTWRITEBYTECODE", "PYTHONPYCACHEPREFIX")}
    return subprocess.Popen(
        [sys.executable, "-m", "noriba.environments.bytecode", str(path)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=env,
        start_new_session=True,
    )


def compile_environment(path: Path, python: Path) -> bool:
    """Compile all modules below ``path`` with the environment's own ``python``. Files that do not compile (templates,
    code for other Pythons) are left as they are. Returns False where the compiler itself failed."""
    env = {k: v for k, v in os.environ.items() if k not in ("PYTHONDONTWRITEBYTECODE", "PYTHONPYCACHEPREFIX")}
    library = path / "lib"
    workers = max(1, (os.cpu_count() or 1) // 2)  # the other half is the first job's, which imports just now
    done = subprocess.run(
        [str(python), "-I", "-m", "compileall", "-qq", "-j", str(workers), str(library)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=env,
        check=False,
    )
    return done.returncode in (0, 1)  # 1: some file did not compile


def make_read_only(path: Path) -> None:
    """Take the write permission from every file and folder below ``path``, links excepted."""
    for folder, folders, files in os.walk(path, topdown=False):
        for name in files:
            _without_write(Path(folder) / name)
        for name in folders:
            _without_write(Path(folder) / name)
    _without_write(path)


def make_writable(path: Path) -> None:
    """Give the owner the write permission on all folders below ``path``, so that it can be removed."""
    for folder, _, _ in os.walk(path):
        os.chmod(folder, stat.S_IMODE(os.stat(folder).st_mode) | stat.S_IRWXU)


def _without_write(path: Path) -> None:
    if not path.is_symlink():
        mode = stat.S_IMODE(path.stat().st_mode)
        path.chmod(mode & ~(stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH))


def main(arguments: list[str]) -> int:
    """Compile and seal one environment."""
    path = Path(arguments[0])
    os.nice(19)
    try:
        compile_environment(path, path / "bin" / "python")
        make_read_only(path)
    except FileNotFoundError:
        return 1  # removed meanwhile
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
