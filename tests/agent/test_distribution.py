"""Distributed tasks: the plan (pure), and real nodes that meet each other."""

from __future__ import annotations

import json
from typing import Any

import msgspec

from noriba.agent.distribution import Peer, plan, ports_needed, process_log, tensorflow_tasks
from noriba.agent.protocol import TaskDistribution, TaskSpec
from tests.agent.conftest import wait_until

TWO = [Peer(rank=0, host="10.0.0.4", ports=[5000, 5001]), Peer(rank=1, host="10.0.0.5", ports=[6000, 6001])]
SHOW = "python -c 'import os, json; print(json.dumps(dict(os.environ)))'"


def test_a_plain_job_has_one_log() -> None:
    (only,) = plan(None, 0, TWO[:1])
    assert only.log == "user_logs/std_log.txt"
    assert [p.log for rank in (0, 1) for p in plan(None, rank, TWO)] == [process_log(0, 2), process_log(1, 2)]


def test_log_names_sort() -> None:
    assert process_log(3, 10) == "user_logs/std_log_process_3.txt"
    assert process_log(0, 11) == "user_logs/std_log_process_00.txt"
    assert process_log(7, 1000) == "user_logs/std_log_process_007.txt"


def test_pytorch_variables() -> None:
    distribution = TaskDistribution(type="pytorch", process_count_per_instance=2)
    found = [p.variables for rank in (0, 1) for p in plan(distribution, rank, TWO)]
    assert [v["RANK"] for v in found] == ["0", "1", "2", "3"]
    assert [v["LOCAL_RANK"] for v in found] == ["0", "1", "0", "1"]
    assert [v["NODE_RANK"] for v in found] == ["0", "0", "1", "1"]
    assert {(v["MASTER_ADDR"], v["MASTER_PORT"], v["WORLD_SIZE"]) for v in found} == {
        ("10.0.0.4", "5000", "4")
    }


def test_tensorflow_cluster() -> None:
    distribution = TaskDistribution(type="tensorflow", worker_count=3, parameter_server_count=1)
    assert tensorflow_tasks(distribution, 0, 2) == [("worker", 0), ("worker", 2), ("ps", 0)]
    assert tensorflow_tasks(distribution, 1, 2) == [("worker", 1)]
    assert (ports_needed(distribution, 0, 2), ports_needed(distribution, 1, 2)) == (4, 2)
    peers = [Peer(rank=0, host="a", ports=[1, 10, 11, 12]), Peer(rank=1, host="b", ports=[2, 20])]
    processes = [p for rank in (0, 1) for p in plan(distribution, rank, peers)]
    configs = [json.loads(p.variables["TF_CONFIG"]) for p in processes]
    assert {json.dumps(c["cluster"]) for c in configs} == {
        json.dumps({"worker": ["a:10", "b:20", "a:11"], "ps": ["a:12"]})
    }
    assert [c["task"] for c in configs] == [
        {"type": "worker", "index": 0}, {"type": "worker", "index": 2},
        {"type": "ps", "index": 0}, {"type": "worker", "index": 1},
    ]  # fmt: skip
    assert [p.log for p in processes] == [
        f"user_logs/std_log_{n}.txt" for n in ("worker_0", "worker_2", "ps_0", "worker_1")
    ]
    assert [p.background for p in processes] == [False, False, True, False]


def test_mpi_variables() -> None:
    distribution = TaskDistribution(type="mpi", process_count_per_instance=2)
    found = [p.variables for rank in (0, 1) for p in plan(distribution, rank, TWO)]
    assert [v["OMPI_COMM_WORLD_RANK"] for v in found] == ["0", "1", "2", "3"]
    assert [v["OMPI_COMM_WORLD_LOCAL_RANK"] for v in found] == ["0", "1", "0", "1"]
    assert {(v["OMPI_COMM_WORLD_SIZE"], v["OMPI_COMM_WORLD_LOCAL_SIZE"]) for v in found} == {("4", "2")}


def environments(control_plane: Any, task: str, log: str) -> dict[str, str]:
    return json.loads(control_plane.log(task, log))  # type: ignore[no-any-return]


def test_processes_on_one_node(node: Any) -> None:
    task = node.submit(SHOW, distribution=TaskDistribution(type="pytorch", process_count_per_instance=3))
    assert node.control_plane.exited(node.name, task).outcome == "completed"
    found = [environments(node.control_plane, task, process_log(i, 3)) for i in range(3)]
    assert [e["RANK"] for e in found] == ["0", "1", "2"]
    assert {e["MASTER_ADDR"] for e in found} == {"127.0.0.1"}
    assert len({e["MASTER_PORT"] for e in found}) == 1
    assert found[0]["AZ_BATCH_MASTER_NODE"] == f"127.0.0.1:{found[0]['MASTER_PORT']}"


def test_one_failed_process_ends_the_others(node: Any) -> None:
    task = node.submit(
        'echo "I am $RANK"; if [ $RANK = 1 ]; then sleep 0.3; exit 9; fi; sleep 1000',
        distribution=TaskDistribution(type="pytorch", process_count_per_instance=3),
        grace_s=1.0,
    )
    end = node.control_plane.exited(node.name, task)
    assert (end.outcome, end.exit_code) == ("failed", 9)
    assert end.message.startswith("Process 1 exited with code 9")
    assert node.marked() == []


def gang(make_node: Any, count: int, command: str, **values: Any) -> tuple[list[Any], list[TaskSpec]]:
    nodes = [make_node().start() for _ in range(count)]
    specs = [
        nodes[0].spec(command, job="gang", rank=rank, node_count=count, **values) for rank in range(count)
    ]
    for node, spec in zip(nodes, specs, strict=True):
        node.control_plane.submit(node.name, spec)
    return nodes, specs


def test_nodes_meet(make_node: Any) -> None:
    nodes, specs = gang(
        make_node, 3, SHOW, distribution=TaskDistribution(type="pytorch", process_count_per_instance=2)
    )
    control_plane = nodes[0].control_plane
    for node, spec in zip(nodes, specs, strict=True):
        assert control_plane.exited(node.name, spec.id).outcome == "completed"
    found = [environments(control_plane, specs[i // 2].id, process_log(i, 6)) for i in range(6)]
    assert [e["RANK"] for e in found] == [str(i) for i in range(6)]
    assert {e["AZ_BATCHAI_NODE_LIST"] for e in found} == {"127.0.0.1;127.0.0.1;127.0.0.1"}
    assert len({e["MASTER_PORT"] for e in found}) == 1


def test_a_collective_over_nodes(make_node: Any) -> None:
    # What a framework does: rank 0 listens at MASTER_ADDR:MASTER_PORT, the others connect and send their rank.
    script = """
import os, socket, time
rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
address = (os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]))
if rank == 0:
    door = socket.create_server(address)
    total = 0
    for _ in range(size - 1):
        peer, _ = door.accept()
        total += int(peer.recv(10))
    print("sum", total)
else:
    for _ in range(200):
        try:
            socket.create_connection(address).sendall(str(rank).encode())
            break
        except ConnectionRefusedError:
            time.sleep(0.05)
"""
    nodes, specs = gang(
        make_node, 2, f"python -c '{script}'",
        distribution=TaskDistribution(type="pytorch", process_count_per_instance=2),
    )  # fmt: skip
    for node, spec in zip(nodes, specs, strict=True):
        assert node.control_plane.exited(node.name, spec.id).outcome == "completed"
    assert nodes[0].control_plane.log(specs[0].id, process_log(0, 4)) == b"sum 6\n"


def test_a_node_that_only_serves_ends_with_the_leader(make_node: Any) -> None:
    nodes, specs = gang(
        make_node, 2,
        'echo $TF_CONFIG; case "$TF_CONFIG" in *\'"type": "ps"\'*) sleep 1000;; *) sleep 0.5;; esac',
        distribution=TaskDistribution(type="tensorflow", worker_count=1, parameter_server_count=2),
    )  # fmt: skip
    control_plane = nodes[0].control_plane
    for node, spec in zip(nodes, specs, strict=True):
        end = control_plane.exited(node.name, spec.id)
        assert (end.outcome, end.exit_code) == ("completed", 0)
    config = json.loads(control_plane.log(specs[1].id, "user_logs/std_log_ps_1.txt"))
    assert config["task"] == {"type": "ps", "index": 1}
    assert len(config["cluster"]["ps"]) == 2
    assert nodes[0].marked() == nodes[1].marked() == []


def test_the_meeting_survives_a_killed_leader(make_node: Any) -> None:
    nodes = [make_node().start(), make_node()]
    specs = [
        nodes[0].spec(SHOW, job="gang", rank=rank, node_count=2, distribution=TaskDistribution(type="mpi"))
        for rank in range(2)
    ]
    control_plane = nodes[0].control_plane
    control_plane.submit(nodes[0].name, specs[0])
    control_plane.submit(nodes[1].name, specs[1])
    control_plane.wait(lambda: control_plane.nodes[nodes[1].name].tasks[specs[1].id].leader)
    nodes[0].kill()
    nodes[0].start()
    nodes[1].start()
    for node, spec in zip(nodes, specs, strict=True):
        assert control_plane.exited(node.name, spec.id).outcome == "completed"


def test_a_stop_ends_the_wait_for_others(make_node: Any) -> None:
    for rank in (0, 1):
        node = make_node().start()
        spec = node.spec(
            SHOW, job=f"lonely{rank}", rank=rank, node_count=2, distribution=TaskDistribution(type="mpi")
        )
        node.control_plane.submit(node.name, spec)
        node.control_plane.wait(lambda n=node, s=spec: "starting" in n.control_plane.phases(n.name, s.id))
        node.control_plane.cancel(node.name, spec.id)
        assert node.control_plane.exited(node.name, spec.id).outcome == "stopped"


def test_a_leader_of_another_job_is_not_joined(make_node: Any) -> None:
    node = make_node().start()
    spec = node.spec(SHOW, job="a", rank=0, node_count=2, distribution=TaskDistribution(type="mpi"))
    other = msgspec.structs.replace(node.spec(SHOW, job="b", rank=1, node_count=2), id="b.1")
    node.control_plane.submit(node.name, spec)
    leader = node.control_plane.wait(lambda: node.control_plane.nodes[node.name].tasks[spec.id].leader)
    stranger = make_node().start()
    node.control_plane.submit(stranger.name, msgspec.structs.replace(other, leader=leader))
    wait_until(lambda: "starting" in node.control_plane.phases(stranger.name, "b.1"))
    log = stranger.folder("b.1") / "logs/system_logs/lifecycler/node-1.log"
    wait_until(lambda: "waiting to hear of rank 0" in log.read_text())
    assert not (stranger.folder("b.1") / "launch.json").exists()
    node.control_plane.cancel(node.name, spec.id)
    node.control_plane.cancel(stranger.name, "b.1")
    assert node.control_plane.exited(stranger.name, "b.1").outcome == "stopped"
    assert node.control_plane.exited(node.name, spec.id).outcome == "stopped"
