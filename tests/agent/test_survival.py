"""What happens when parts die: the agent, the shim, the control plane."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

from noriba.agent import processes
from noriba.agent.protocol import TaskExited, TaskSamples
from tests.agent.conftest import wait_until

PATIENT = "echo up; until [ -e $HOME/go ]; do sleep 0.05; done; echo went; exit 7"


def go_on(node: Any, task: str) -> None:
    (node.folder(task) / "home" / "go").touch()


def test_a_new_agent_takes_over_a_running_task(node: Any) -> None:
    task = node.submit(PATIENT)
    node.control_plane.wait(lambda: b"up" in node.control_plane.log(task))
    shim = node.shim(task)
    node.kill()
    assert shim.is_alive()
    node.start()
    node.control_plane.wait(lambda: len(node.control_plane.nodes[node.name].incarnations) == 2)
    assert node.shim(task) == shim
    go_on(node, task)
    end = node.control_plane.exited(node.name, task)
    assert (end.outcome, end.exit_code) == ("failed", 7)
    assert node.control_plane.log(task) == b"up\nwent\n"
    assert node.control_plane.phases(node.name, task).count("running") == 1


def test_a_task_that_ends_while_the_agent_is_dead_is_reported(node: Any) -> None:
    task = node.submit(PATIENT)
    node.control_plane.wait(lambda: b"up" in node.control_plane.log(task))
    node.kill()
    go_on(node, task)
    wait_until((node.folder(task) / "exit.json").exists)
    node.start()
    assert node.control_plane.exited(node.name, task).exit_code == 7
    assert node.control_plane.log(task) == b"up\nwent\n"


def test_the_timeout_holds_while_the_agent_is_dead(node: Any) -> None:
    task = node.submit("echo up; sleep 1000", timeout_s=1.0, grace_s=0.2)
    node.control_plane.wait(lambda: b"up" in node.control_plane.log(task))
    node.kill()
    wait_until((node.folder(task) / "exit.json").exists)
    assert node.marked() == []
    node.start()
    assert node.control_plane.exited(node.name, task).code == "TimedOut"


def test_a_stop_wished_while_the_agent_was_dead_is_carried_out(node: Any) -> None:
    task = node.submit("echo up; sleep 1000")
    node.control_plane.wait(lambda: b"up" in node.control_plane.log(task))
    node.kill()
    node.control_plane.cancel(node.name, task)
    node.start()
    assert node.control_plane.exited(node.name, task).outcome == "stopped"
    assert node.marked() == []


def test_sigterm_leaves_tasks_alone(node: Any) -> None:
    task = node.submit(PATIENT)
    node.control_plane.wait(lambda: b"up" in node.control_plane.log(task))
    assert node.terminate() == 0
    assert node.shim(task).is_alive()
    node.start()
    go_on(node, task)
    assert node.control_plane.exited(node.name, task).exit_code == 7


def test_killing_the_agent_again_and_again_runs_a_task_once(node: Any) -> None:
    task = node.submit("echo run >> $HOME/runs; " + PATIENT, code=None)
    for _ in range(4):
        incarnations = len(node.control_plane.nodes[node.name].incarnations)
        node.kill()
        node.start()
        node.control_plane.wait(
            lambda n=incarnations: len(node.control_plane.nodes[node.name].incarnations) > n
        )
    node.control_plane.wait(lambda: b"up" in node.control_plane.log(task))
    runs = node.folder(task) / "home" / "runs"
    go_on(node, task)
    node.control_plane.exited(node.name, task)
    assert runs.read_text() == "run\n"


def test_work_goes_on_while_the_control_plane_is_away(node: Any) -> None:
    task = node.submit(PATIENT)
    node.control_plane.wait(lambda: b"up" in node.control_plane.log(task))
    node.control_plane.stop()
    go_on(node, task)
    wait_until((node.folder(task) / "outcome.json").exists)
    node.control_plane.start()
    end = node.control_plane.exited(node.name, task)
    assert end.exit_code == 7
    assert node.control_plane.log(task) == b"up\nwent\n"


def test_an_agent_that_starts_without_a_control_plane_still_ends_its_tasks(node: Any) -> None:
    task = node.submit(PATIENT)
    node.control_plane.wait(lambda: b"up" in node.control_plane.log(task))
    node.control_plane.stop()
    node.kill()
    node.start()
    go_on(node, task)
    wait_until((node.folder(task) / "outcome.json").exists, 20.0)
    node.kill()  # the outcome is in the folder, perhaps in the journal, and not told to anyone
    node.control_plane.start()
    node.start()
    assert node.control_plane.exited(node.name, task).exit_code == 7
    assert node.control_plane.log(task) == b"up\nwent\n"


def test_a_lost_journal_does_not_silence_the_agent(node: Any) -> None:
    node.run("true")
    node.kill()
    (node.work_dir / "journal").unlink()
    node.start()
    assert node.run("exit 4").exit_code == 4


def test_a_killed_shim_is_told_and_nothing_of_the_user_stays(node: Any) -> None:
    task = node.submit("setsid sleep 1000 & echo up; sleep 1000")
    node.control_plane.wait(lambda: b"up" in node.control_plane.log(task))
    os.kill(node.shim(task).pid, signal.SIGKILL)
    end = node.control_plane.exited(node.name, task)
    assert (end.outcome, end.code, end.user_error) == ("failed", "ShimLost", False)
    assert node.marked() == []
    assert node.run("echo next").outcome == "completed"


def test_a_shim_killed_while_the_agent_is_dead_is_told_too(node: Any) -> None:
    task = node.submit("setsid sleep 1000 & echo up; sleep 1000")
    node.control_plane.wait(lambda: b"up" in node.control_plane.log(task))
    node.kill()
    os.kill(node.shim(task).pid, signal.SIGKILL)
    node.start()
    assert node.control_plane.exited(node.name, task).code == "ShimLost"
    assert node.marked() == []


def test_a_killed_spawner_is_done_without(node: Any) -> None:
    node.run("true")
    (spawner,) = [
        pid
        for pid in processes.descendants(node.process.pid)
        if Path(f"/proc/{pid}/comm").read_text().strip() == "noriba-spawner"
    ]
    os.kill(spawner, signal.SIGKILL)
    wait_until(lambda: processes.start_ticks(spawner) is None)
    assert node.run("exit 5").exit_code == 5
    assert node.run("exit 6").exit_code == 6


def test_a_warm_shim_serves_one_task_after_the_other(node: Any) -> None:
    node.run("true")
    first = node.shim("job-1.0")
    node.run("true")
    assert node.shim("job-2.0") == first


def test_a_finished_task_does_not_wait_for_the_next_one_of_its_shim(node: Any) -> None:
    node.run("true")
    task = node.submit(PATIENT)
    node.control_plane.wait(lambda: b"up" in node.control_plane.log(task))
    assert node.shim("job-1.0") == node.shim(task)
    node.kill()
    for name in ("outcome.json", "reported"):
        (node.folder("job-1.0") / name).unlink()
    (node.work_dir / "journal").unlink()  # it remembers what was told
    node.start()

    def ends() -> int:
        return sum(isinstance(e, TaskExited) for e in node.control_plane.events(node.name, "job-1.0"))

    node.control_plane.wait(lambda: ends() == 2)
    assert node.shim(task).is_alive()
    go_on(node, task)
    assert node.control_plane.exited(node.name, task).exit_code == 7


def test_a_stray_sigterm_to_a_shim_ends_nothing(node: Any) -> None:
    task = node.submit(PATIENT)
    node.control_plane.wait(lambda: b"up" in node.control_plane.log(task))
    os.kill(node.shim(task).pid, signal.SIGTERM)
    go_on(node, task)
    assert node.control_plane.exited(node.name, task).exit_code == 7


def test_an_adopted_task_is_still_sampled(node: Any) -> None:
    task = node.submit(PATIENT)
    node.control_plane.wait(lambda: b"up" in node.control_plane.log(task))
    node.kill()
    node.start()

    def samples() -> int:
        return sum(isinstance(e, TaskSamples) for e in node.control_plane.events(node.name, task))

    before = samples()
    node.control_plane.wait(lambda: samples() > before + 1)
    go_on(node, task)
    node.control_plane.exited(node.name, task)


def test_two_agents_never_share_a_folder(node: Any) -> None:
    node.control_plane.wait(lambda: node.name in node.control_plane.nodes)
    first = node.process
    node.start()
    assert node.process.wait(10) == 1
    node.process = first
    assert "another agent works in" in node.log_file.read_text()
    assert node.run("true").outcome == "completed"


def test_a_wrong_token_is_tried_again_until_it_is_right(make_node: Any) -> None:
    node = make_node()
    node.token_file.write_text("wrong")
    node.start()
    wait_until(lambda: "HTTP 401" in (node.log_file.read_text() if node.log_file.exists() else ""))
    node.token_file.write_text(node.control_plane.token)
    assert node.run("true").outcome == "completed"


def test_an_idle_agent_rests(node: Any) -> None:
    node.run("true")
    node.control_plane.wait(lambda: node.control_plane.nodes[node.name].held)
    pids = [node.process.pid, *processes.descendants(node.process.pid)]

    def used() -> int:
        total = 0
        for pid in pids:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            total += int(fields[11]) + int(fields[12])
        return total

    wait_until(lambda: node.control_plane.requests > 3)
    before, requests = used(), node.control_plane.requests
    signal.sigtimedwait([], 2.0)
    assert used() - before <= 2
    assert node.control_plane.requests - requests <= 1
    memory = 0
    for pid in pids:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                memory += int(line.split()[1])
    assert memory < 40_000, f"{memory} KiB"
