"""Build one environment in a process of its own, so that the agent neither holds the builders nor waits in them.

    python -m noriba.environments.build --spec spec.json --store DIR --log FILE --result FILE [--settings FILE] [--lease ID]

The log is appended to as the build goes on. The result is JSON: a ``BuiltEnvironment``, or ``{"code", "message"}``.
Exit status: 0 built or found, 1 not to be had, 2 wrong arguments, 143 stopped by SIGTERM (result: canceled).
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from pathlib import Path

import msgspec

from noriba.environments import accelerator, errors, pipconfig
from noriba.environments.catalogue import find_curated
from noriba.environments.errors import EnvironmentBuildError
from noriba.environments.plan import plan_environment
from noriba.environments.spec import BuildSettings, BuiltEnvironment, EnvironmentSpec
from noriba.environments.store import EnvironmentStore


def detect_settings(base: BuildSettings | None = None) -> BuildSettings:
    """``base`` with what the node tells by itself: whether it has a GPU, and pip's configuration beneath its own.

    Raises ``ValueError`` where pip's configuration cannot be read.
    """
    base = base or BuildSettings()
    return msgspec.structs.replace(
        base, gpu=base.gpu or accelerator.nvidia_gpu_present(), pip=base.pip.over(pipconfig.read_pip_config())
    )


def build_environment(
    spec: EnvironmentSpec,
    store: Path,
    log: Path,
    settings: BuildSettings | None = None,
    cancel: threading.Event | None = None,
    lease: str | None = None,
) -> BuiltEnvironment:
    """Plan ``spec`` by this node's settings and have it built in ``store``. Raises ``EnvironmentBuildError``."""
    try:
        detected = detect_settings(settings)
    except ValueError as error:
        raise EnvironmentBuildError(errors.BUILD_FAILED, str(error)) from None
    plan = plan_environment(spec, find_curated, detected)
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a", encoding="utf-8") as stream:
        return EnvironmentStore(store, detected).ensure(plan, stream, cancel, lease)


def main(arguments: list[str] | None = None) -> int:
    """The child process's entry point; see the module's text."""
    parser = argparse.ArgumentParser(prog="python -m noriba.environments.build")
    for name in ("--spec", "--store", "--log", "--result"):
        parser.add_argument(name, type=Path, required=True)
    parser.add_argument("--settings", type=Path)
    parser.add_argument("--lease")
    given = parser.parse_args(arguments)
    try:
        spec = msgspec.json.decode(given.spec.read_bytes(), type=EnvironmentSpec)
        settings = (
            msgspec.json.decode(given.settings.read_bytes(), type=BuildSettings) if given.settings else None
        )
    except (OSError, msgspec.DecodeError) as error:
        parser.error(str(error))
    cancel = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: cancel.set())
    try:
        result = build_environment(spec, given.store, given.log, settings, cancel, given.lease).to_json()
        status = 0
    except EnvironmentBuildError as error:
        result = msgspec.json.encode({"code": error.code, "message": error.message})
        status = 143 if error.code == errors.CANCELED else 1
    _write(given.result, result)
    return status


def _write(path: Path, content: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_bytes(content)
    temporary.replace(path)


if __name__ == "__main__":
    sys.exit(main())
