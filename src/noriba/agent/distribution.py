"""Which processes a node runs for its rank of a job, and what each is told about the others. Pure.

The variables are those that Azure ML documents for each kind of distribution; see ``docs/agent.md``.
"""

from __future__ import annotations

import json
import shlex

import msgspec

from noriba.agent.protocol import TaskDistribution

RAY_PORT = 6379


class Peer(msgspec.Struct, frozen=True, kw_only=True):
    """A node of the job, as it told the others: ``ports[0]`` is free for the job's master, the rest for its tasks."""

    rank: int
    host: str
    ports: list[int]


class ProcessPlan(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One process of this node: log file (relative to the artifacts) and what it finds in its environment.

    ``script`` replaces the user's command where a launcher stands around it; it may use ``$NORIBA_COMMAND``.
    ``background`` processes run until the others are done.
    """

    name: str
    log: str
    variables: dict[str, str] = {}
    script: str | None = None
    background: bool = False


def tensorflow_tasks(distribution: TaskDistribution, rank: int, node_count: int) -> list[tuple[str, int]]:
    """The (role, index) pairs that run on node ``rank``: workers, then parameter servers, spread round robin."""
    return [
        (role, index)
        for role, count in (
            ("worker", distribution.worker_count),
            ("ps", distribution.parameter_server_count),
        )
        for index in range(count)
        if index % node_count == rank
    ]


def ports_needed(distribution: TaskDistribution | None, rank: int, node_count: int) -> int:
    """How many free ports the node must find before it meets the others."""
    if distribution is not None and distribution.type == "tensorflow":
        return 1 + len(tensorflow_tasks(distribution, rank, node_count))
    return 1


def process_log(index: int, total: int) -> str:
    """``user_logs/std_log_process_0.txt``; padded with zeros when there are more than ten, so that they sort."""
    width = len(str(total - 1)) if total > 10 else 1
    return f"user_logs/std_log_process_{index:0{width}}.txt"


def node_variables(peers: list[Peer], rank: int) -> dict[str, str]:
    """What every process of a job learns about its nodes (Azure ML's AZ_BATCH family)."""
    hosts = ";".join(peer.host for peer in peers)
    master = peers[0]
    return {
        "AZUREML_NODE_COUNT": str(len(peers)),
        "AZ_BATCHAI_NODE_LIST": hosts,
        "AZ_BATCH_NODE_LIST": hosts,
        "AZ_BATCH_HOST_LIST": hosts.replace(";", ","),
        "AZ_BATCHAI_MPI_MASTER_NODE": master.host,
        "AZ_BATCHAI_JOB_MASTER_NODE_IP": master.host,
        "AZ_BATCHAI_CURRENT_NODE_INDEX": str(rank),
        "AZ_BATCH_MASTER_NODE": f"{master.host}:{master.ports[0]}",
        "AZ_BATCH_NODE_IS_MASTER": "true" if rank == 0 else "false",
    }


def plan(
    distribution: TaskDistribution | None,
    rank: int,
    peers: list[Peer],
    *,
    has_mpirun: bool = False,
    vcpus: int = 1,
    gpus: int = 0,
) -> list[ProcessPlan]:
    """The processes of node ``rank``; ``peers`` are all nodes of the job in the order of their ranks."""
    if distribution is None:
        log = "user_logs/std_log.txt" if len(peers) == 1 else process_log(rank, len(peers))
        return [ProcessPlan(name="main", log=log)]
    if distribution.type == "pytorch":
        return _pytorch(distribution, rank, peers)
    if distribution.type == "mpi":
        return _mpi(distribution, rank, peers, has_mpirun)
    if distribution.type == "tensorflow":
        return _tensorflow(distribution, rank, peers)
    return _ray(distribution, rank, peers, vcpus, gpus)


def _pytorch(distribution: TaskDistribution, rank: int, peers: list[Peer]) -> list[ProcessPlan]:
    local = distribution.process_count_per_instance
    total = local * len(peers)
    return [
        ProcessPlan(
            name=str(rank * local + i),
            log=process_log(rank * local + i, total),
            variables={
                "MASTER_ADDR": peers[0].host,
                "MASTER_PORT": str(peers[0].ports[0]),
                "WORLD_SIZE": str(total),
                "NODE_RANK": str(rank),
                "RANK": str(rank * local + i),
                "LOCAL_RANK": str(i),
                "LOCAL_WORLD_SIZE": str(local),
            },
        )
        for i in range(local)
    ]


_MPI_WRAPPER = """\
rank=${OMPI_COMM_WORLD_RANK:-${PMI_RANK:-${PMIX_RANK:-0}}}
export OMPI_COMM_WORLD_RANK=$rank OMPI_COMM_WORLD_SIZE=%(total)d
export OMPI_COMM_WORLD_LOCAL_RANK=${OMPI_COMM_WORLD_LOCAL_RANK:-${MPI_LOCALRANKID:-$rank}}
export OMPI_COMM_WORLD_LOCAL_SIZE=%(total)d OMPI_COMM_WORLD_NODE_RANK=${OMPI_COMM_WORLD_NODE_RANK:-$rank}
exec >>"$NORIBA_LOGS/user_logs/$(printf 'std_log_process_%%0%(width)dd.txt' "$rank")" 2>&1
exec bash -c "$NORIBA_COMMAND"
"""


def _mpi(distribution: TaskDistribution, rank: int, peers: list[Peer], has_mpirun: bool) -> list[ProcessPlan]:
    local = distribution.process_count_per_instance
    total = local * len(peers)
    master = {"MASTER_ADDR": peers[0].host, "MASTER_PORT": str(peers[0].ports[0])}
    if has_mpirun and len(peers) == 1:
        wrapper = _MPI_WRAPPER % {"total": total, "width": len(str(total - 1)) if total > 10 else 1}
        script = (
            'mkdir -p "$NORIBA_LOGS/user_logs"\n'
            "export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1\n"
            "export OMPI_MCA_rmaps_base_oversubscribe=1 PRTE_MCA_rmaps_default_mapping_policy=:oversubscribe\n"
            f"exec mpirun -n {total} bash -c {shlex.quote(wrapper)}\n"
        )
        return [
            ProcessPlan(name="mpirun", log="system_logs/mpirun/mpirun.log", variables=master, script=script)
        ]
    return [
        ProcessPlan(
            name=str(rank * local + i),
            log=process_log(rank * local + i, total),
            variables={
                **master,
                "OMPI_COMM_WORLD_RANK": str(rank * local + i),
                "OMPI_COMM_WORLD_SIZE": str(total),
                "OMPI_COMM_WORLD_LOCAL_RANK": str(i),
                "OMPI_COMM_WORLD_LOCAL_SIZE": str(local),
                "OMPI_COMM_WORLD_NODE_RANK": str(i),
                "OMPI_UNIVERSE_SIZE": str(total),
                "OMPI_MCA_orte_num_nodes": str(len(peers)),
            },
        )
        for i in range(local)
    ]


def _tensorflow(distribution: TaskDistribution, rank: int, peers: list[Peer]) -> list[ProcessPlan]:
    cluster: dict[str, dict[int, str]] = {"worker": {}, "ps": {}}
    for peer in peers:
        tasks = tensorflow_tasks(distribution, peer.rank, len(peers))
        for (role, index), port in zip(tasks, peer.ports[1:], strict=True):
            cluster[role][index] = f"{peer.host}:{port}"
    addresses = {role: [found[i] for i in sorted(found)] for role, found in cluster.items() if found}
    return [
        ProcessPlan(
            name=f"{role}_{index}",
            log=f"user_logs/std_log_{role}_{index}.txt",
            background=role == "ps",
            variables={
                "TF_CONFIG": json.dumps(
                    {
                        "cluster": addresses,
                        "task": {"type": role, "index": index},
                        "environment": "cloud",
                    }
                )
            },
        )
        for role, index in tensorflow_tasks(distribution, rank, len(peers))
    ]


_RAY_WAIT = """\
import sys, time, ray
ray.init(address=sys.argv[1], logging_level='ERROR', log_to_driver=False)
while sum(node['Alive'] for node in ray.nodes()) < int(sys.argv[2]):
    time.sleep(0.2)
"""


def _ray(
    distribution: TaskDistribution, rank: int, peers: list[Peer], vcpus: int, gpus: int
) -> list[ProcessPlan]:
    head = peers[0]
    port = head.ports[0]
    common = [
        "--disable-usage-stats",
        f"--node-ip-address={peers[rank].host}",
        f"--num-cpus={vcpus}",
        f"--num-gpus={gpus}",
    ]
    variables = {"RAY_ADDRESS": f"{head.host}:{port}", "RAY_DISABLE_IMPORT_WARNING": "1"}
    if rank:
        arguments = [f"--address={head.host}:{port}", *common]
        script = (
            f"exec ray start --block {shlex.join(arguments)} {distribution.worker_node_additional_args}\n"
        )
        return [
            ProcessPlan(
                name=f"ray worker {rank}",
                log=process_log(rank, len(peers)),
                variables=variables,
                script=script,
                background=True,
            )
        ]
    dashboard = "true" if distribution.include_dashboard else "false"
    arguments = ["--head", f"--port={port}", f"--include-dashboard={dashboard}", *common]
    if distribution.dashboard_port is not None:
        arguments.append(f"--dashboard-port={distribution.dashboard_port}")
    start_log = '"$NORIBA_LOGS/system_logs/ray/head.log"'
    wait = f"python -c {shlex.quote(_RAY_WAIT)} {head.host}:{port} {len(peers)}"
    script = (
        'mkdir -p "$NORIBA_LOGS/system_logs/ray"\n'
        f'ray start {shlex.join(arguments)} --temp-dir="$NORIBA_RAY_FOLDER" '
        f"{distribution.head_node_additional_args} >>{start_log} 2>&1 || "
        f"{{ rc=$?; cat {start_log}; echo 'ray could not be started; is it in the environment?'; exit $rc; }}\n"
        + (f"{wait} >>{start_log} 2>&1 || exit 1\n" if len(peers) > 1 else "")
        + 'bash -c "$NORIBA_COMMAND"\n'
    )
    log = "user_logs/std_log.txt" if len(peers) == 1 else process_log(0, len(peers))
    return [ProcessPlan(name="ray head", log=log, variables=variables, script=script)]
