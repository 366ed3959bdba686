"""Tasks in container images, through podman or docker: the command line, and what removes the container again."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Container:
    """``runtime`` is ``podman`` or ``docker``; ``name`` is unique on the machine."""

    runtime: str
    image: str
    name: str


def container_name(node_id: str, task_id: str, process: str) -> str:
    """A name that both runtimes take."""
    return "noriba-" + re.sub(r"[^A-Za-z0-9_.-]", "-", f"{node_id}-{task_id}-{process}")[:100]


def command_line(
    container: Container,
    argv: list[str],
    *,
    working_folder: Path,
    writable: list[Path],
    readable: list[Path],
    environment: Mapping[str, str],
    environment_file: Path,
    shm_size_bytes: int | None,
    memory_bytes: int | None,
    cpus: float | None,
    gpus: list[str],
    extra: list[str],
) -> list[str]:
    """The line that runs ``argv`` in the container; folders appear under their own paths.

    Variables go through ``environment_file`` (written here, readable by its owner alone), so that no secret shows
    in ``ps``. Its format knows no line breaks: variables with one are passed by name from the runtime's own
    environment.
    """
    plain = {name: value for name, value in environment.items() if "\n" not in value}
    environment_file.touch(mode=0o600)
    environment_file.write_text("".join(f"{name}={value}\n" for name, value in plain.items()))
    line = [container.runtime, "run", "--rm", "--init", "--name", container.name, "--network", "host"]
    line += ["--env-file", str(environment_file), "--workdir", str(working_folder)]
    for name in environment.keys() - plain.keys():
        line += ["--env", name]
    for path in writable:
        line += ["--volume", f"{path}:{path}:rw"]
    for path in readable:
        line += ["--volume", f"{path}:{path}:ro"]
    if shm_size_bytes is not None:
        line += ["--shm-size", str(shm_size_bytes)]
    if memory_bytes is not None:
        line += ["--memory", str(memory_bytes)]
    if cpus is not None:
        line += ["--cpus", str(cpus)]
    if gpus:
        devices = [f"nvidia.com/gpu={name}" for name in gpus]
        if container.runtime == "podman":
            for device in devices:
                line += ["--device", device]
        else:
            line += ["--gpus", f'"device={",".join(gpus)}"']
    return [*line, *extra, "--entrypoint", argv[0], container.image, *argv[1:]]


def removal(container: Container) -> list[str]:
    """The line that ends and removes the container, whatever state it is in."""
    return [container.runtime, "rm", "--force", "--volumes", container.name]
