"""Images through podman or docker, for nodes that have one and were told to use it."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from noriba.environments import errors
from noriba.environments.errors import EnvironmentBuildError
from noriba.environments.plan import ContainerPlan
from noriba.environments.process import Programs

CONDA_PREFIX = "/opt/noriba-env"
"""Where an environment made from image + conda file lives inside its image."""


def find_runtime(name: str) -> str:
    """The runtime's executable. Raises ``EnvironmentBuildError`` where the node has none."""
    found = shutil.which(name)
    if found is None:
        raise EnvironmentBuildError(
            errors.IMAGE_UNAVAILABLE,
            f"the node is set to run images with {name}, which is not installed; install it, or clear container_runtime",
        )
    return found


def provide(plan: ContainerPlan, key: str, programs: Programs, work: Path) -> str:
    """Have the image ready in the runtime's storage and return its name. Raises ``EnvironmentBuildError``.

    An image that is already there is not pulled again. ``work`` receives generated files.
    """
    runtime = find_runtime(plan.runtime)
    tag = f"localhost/noriba/environment:{key}"
    if plan.context is not None:
        _build(runtime, tag, Path(plan.context), plan.dockerfile_path, programs)
        return tag
    assert plan.image is not None
    if plan.conda_file is None:
        _pull(runtime, plan.image, programs)
        return plan.image
    folder = work / "context"
    folder.mkdir()
    (folder / "conda.yaml").write_text(plan.conda_file)
    (folder / "Dockerfile").write_text(
        f"FROM {plan.image}\nCOPY conda.yaml /tmp/conda.yaml\n"
        f"RUN conda env create -p {CONDA_PREFIX} -f /tmp/conda.yaml -q && rm /tmp/conda.yaml\n"
        f"ENV PATH={CONDA_PREFIX}/bin:$PATH CONDA_PREFIX={CONDA_PREFIX}\n"
    )
    _build(runtime, tag, folder, "Dockerfile", programs)
    return tag


def _pull(runtime: str, image: str, programs: Programs) -> None:
    if programs.run([runtime, "image", "inspect", image]).status == 0:
        programs.log(f"image {image} is on this node already")
        return
    programs.log(f"pulling {image}")
    done = programs.run([runtime, "pull", image], show=True)
    if done.status:
        raise EnvironmentBuildError(
            errors.IMAGE_UNAVAILABLE, f"the image '{image}' could not be pulled: {_reason(done.errors)}"
        )


def _build(runtime: str, tag: str, context: Path, dockerfile: str, programs: Programs) -> None:
    programs.log(f"building {tag} from {dockerfile}")
    done = programs.run(
        [runtime, "build", "--tag", tag, "--file", str(context / dockerfile), str(context)], show=True
    )
    if done.status:
        unreachable = re.search(
            r"dial tcp|no such host|pinging container registry|Cannot connect|TLS handshake|i/o timeout",
            done.errors,
        )
        code = errors.IMAGE_UNAVAILABLE if unreachable else errors.BUILD_FAILED
        raise EnvironmentBuildError(code, f"the image could not be built: {_reason(done.errors)}")


def _reason(output: str) -> str:
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    return " ".join(lines[-3:])[:800] or "the runtime said nothing"
