"""From a prepared task to the launch record that its shim reads."""

from __future__ import annotations

import shutil
from functools import partial
from hashlib import sha256
from pathlib import Path

from noriba.agent import cgroups, container, distribution, processes, runtime, variables
from noriba.agent.command import expand
from noriba.agent.distribution import Peer, ProcessPlan
from noriba.agent.folder import Launch, LaunchProcess, TaskFolder, folder_name
from noriba.agent.node import Node
from noriba.agent.protocol import TaskSpec
from noriba.agent.runtime import Surroundings, bash, wrap
from noriba.environments.spec import BuiltEnvironment


def node_cgroup(node_id: str, work_dir: Path) -> str:
    """The control group of a node's tasks, relative to the base of each hierarchy."""
    return f"noriba/{folder_name(node_id)}-{sha256(str(work_dir).encode()).hexdigest()[:8]}"


def limits(spec: TaskSpec, pids_guard: int) -> cgroups.Limits:
    """Hard limits in strict sizing; otherwise only a guard against fork bombs."""
    if not spec.size.strict:
        return cgroups.Limits(pids=pids_guard)
    return cgroups.Limits(
        memory_bytes=int(spec.size.memory_gib * 2**30), cpus=float(spec.size.vcpus), pids=pids_guard
    )


def make_launch(
    node: Node,
    folder: TaskFolder,
    spec: TaskSpec,
    environment: BuiltEnvironment,
    peers: list[Peer],
    inputs: dict[str, str | None],
    outputs: dict[str, str],
    read_only: list[Path],
) -> Launch:
    """The launch record. Raises ``CommandError`` if the command does not fit the job."""
    command = expand(spec.command, inputs, outputs)
    user = {name: expand(value, inputs, outputs) for name, value in spec.user_environment_variables.items()}
    literals = {name for name, item in spec.inputs.items() if item.type == "literal"}
    settings = node.settings
    job_environment = partial(
        variables.job_environment,
        node=node.base_environment,
        environment={k: v for k, v in environment.env.items() if k != "NORIBA_ENVIRONMENT_PATH"},
        programs=environment.env.get("NORIBA_ENVIRONMENT_PATH", str(environment.bin_dir)),
        platform={
            **spec.environment_variables,
            "NORIBA_NODE": settings.node_id,
            processes.TASK_VARIABLE: str(folder.root),
        },
        paths={
            **variables.path_variables(folder),
            **variables.certificate_variables(node.trust.bundle()),
        },
        data=variables.data_variables(inputs, literals, outputs),
        user=user,
        vcpus=spec.size.vcpus if spec.size.strict else None,
        visible_gpus=node.visible_gpus,
    )
    path = job_environment(distribution={})["PATH"]
    plans = distribution.plan(
        spec.distribution,
        spec.rank,
        peers,
        has_mpirun=spec.distribution is not None
        and spec.distribution.type == "mpi"
        and shutil.which("mpirun", path=path) is not None,
        vcpus=spec.size.vcpus,
        gpus=len(settings.gpus),
    )
    node_variables = distribution.node_variables(peers, spec.rank)
    launched, removals = [], []
    for plan in plans:
        own = {**node_variables, **plan.variables}
        if plan.script is not None:
            own["NORIBA_COMMAND"] = command
            own["NORIBA_RAY_FOLDER"] = f"/tmp/noriba-ray-{folder.root.name[:40]}"
        values = job_environment(distribution=own)
        argv = [bash(), "-c", plan.script if plan.script is not None else command]
        if environment.container_image:
            argv, removal = _in_container(node, folder, spec, environment, plan, argv, values, read_only)
            removals.append(removal)
        else:
            argv = wrap(argv, _surroundings(node, folder, environment, read_only))
        launched.append(
            LaunchProcess(
                name=plan.name,
                argv=argv,
                environment=values,
                folder=str(folder.code),
                log=plan.log,
                background=plan.background,
            )
        )
    held = limits(spec, settings.pids_guard)
    if spec.distribution is not None and spec.distribution.type == "ray":
        removals.append(["rm", "-rf", f"/tmp/noriba-ray-{folder.root.name[:40]}"])
    return Launch(
        task_id=spec.id,
        processes=launched,
        grace_s=spec.grace_s,
        timeout_s=spec.timeout_s,
        cgroup=""
        if node.cgroups.kind == "none"
        else f"{node_cgroup(settings.node_id, settings.work_dir)}/{folder.root.name}",
        memory_bytes=held.memory_bytes,
        cpus=held.cpus,
        pids=held.pids,
        read_only=[str(p) for p in read_only] if node.can_mount else [],
        shm_size_bytes=spec.shm_size_bytes if node.can_mount else None,
        log_disk_bytes=settings.log_disk_bytes,
        after_commands=removals,
    )


def _surroundings(
    node: Node, folder: TaskFolder, environment: BuiltEnvironment, read_only: list[Path]
) -> Surroundings:
    return runtime.Surroundings(
        isolation=node.settings.isolation,
        folder=folder.root,
        writable=_writable(folder),
        readable=[*map(Path, environment.mounts), *read_only, Path(node.trust.bundle())],
    )


def _writable(folder: TaskFolder) -> list[Path]:
    parts = (
        folder.environment,
        folder.code,
        folder.outputs,
        folder.inputs,
        folder.home,
        folder.tmp,
        folder.logs,
    )
    return [path for path in parts if path.is_dir()]


def _in_container(
    node: Node,
    folder: TaskFolder,
    spec: TaskSpec,
    environment: BuiltEnvironment,
    plan: ProcessPlan,
    argv: list[str],
    values: dict[str, str],
    read_only: list[Path],
) -> tuple[list[str], list[str]]:
    runtime_name = environment.container_runtime or "podman"
    box = container.Container(
        runtime=shutil.which(runtime_name) or runtime_name,
        image=environment.container_image or "",
        name=container.container_name(node.settings.node_id, spec.id, plan.name),
    )
    held = limits(spec, node.settings.pids_guard)
    # The image brings its own programs; the node's paths mean nothing in it.
    inside = {
        k: v for k, v in values.items() if k not in ("PATH", "LD_LIBRARY_PATH", "SHELL", "USER", "LOGNAME")
    }
    line = container.command_line(
        box,
        ["bash", *argv[1:]],
        working_folder=folder.code,
        writable=_writable(folder),
        readable=[*read_only, Path(node.trust.bundle())],
        environment=inside,
        environment_file=folder.root / f"container-{len(plan.name)}-{plan.log.rpartition('/')[2]}.env",
        shm_size_bytes=spec.shm_size_bytes,
        memory_bytes=held.memory_bytes,
        cpus=held.cpus,
        gpus=list(node.settings.gpus),
        extra=list(spec.container_args),
    )
    return line, container.removal(box)
