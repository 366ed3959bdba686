"""Virtual environments with clients of other versions, built once and shared by all test runs of this machine."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from uv import find_uv_bin

from noriba.environments.pipconfig import read_pip_config, uv_arguments, uv_environment

CACHE = Path(os.environ.get("NORIBA_TEST_CACHE") or Path.home() / ".cache" / "noriba-tests")


def client_python(*requirements: str) -> Path:
    """The interpreter of an environment with these requirements."""
    text = "\n".join([f"python {sys.version_info.major}.{sys.version_info.minor}", *sorted(requirements)])
    folder = CACHE / hashlib.sha256(text.encode()).hexdigest()[:16]
    python = folder / "bin" / "python"
    if python.exists():
        return python
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not python.exists():
            _build(folder, requirements)
    return python


def _build(folder: Path, requirements: tuple[str, ...]) -> None:
    uv = find_uv_bin()
    environment = {**os.environ, **_uv_settings()}
    options = uv_arguments(read_pip_config())
    with tempfile.TemporaryDirectory(dir=CACHE) as staging:
        venv = Path(staging) / "venv"
        subprocess.run(
            [uv, "venv", "--quiet", "--relocatable", "--python", sys.executable, str(venv)],
            check=True,
            env=environment,
        )
        subprocess.run(
            [
                uv,
                "pip",
                "install",
                "--quiet",
                *options,
                "--python",
                str(venv / "bin" / "python"),
                *requirements,
            ],
            check=True,
            env=environment,
        )
        shutil.rmtree(folder, ignore_errors=True)
        venv.rename(folder)


def _uv_settings() -> dict[str, str]:
    """What pip is configured to use: uv does not read that by itself."""
    return uv_environment(read_pip_config())


def run_client(python: Path, script: str, environment: dict[str, str], timeout_s: float = 240) -> str:
    """Run a script with an environment's interpreter; returns what it prints. Fails with its output."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
    done = subprocess.run(
        [str(python), "-c", script],
        env={**kept, "MLFLOW_DISABLE_TELEMETRY": "true", **environment},
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout
