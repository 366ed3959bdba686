"""The life of command jobs, from submission to their end, as agents and the control plane make it."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from noriba.agent.protocol import LogChunk, TaskRendezvous
from noriba.engines.base import EngineError
from noriba.models.errors import BadRequest, Conflict
from tests.jobs.conftest import Plane


async def test_a_job_runs_on_a_new_node_to_its_end(plane: Plane) -> None:
    assert await plane.submit("j", experimentName="e")
    assert plane.status("j") == "Queued"
    await plane.cycle()
    assert plane.status("j") == "Provisioning"
    (agent,) = plane.agents()
    await agent.arrive()
    assert plane.status("j") == "Preparing"
    assert agent.task.command == "true"
    assert agent.task.environment_variables["AZUREML_RUN_ID"] == "j"
    await agent.sync(agent.phase("environment"), agent.phase("running"))
    assert plane.status("j") == "Running"
    chunk = LogChunk(task_id=agent.task.id, file="user_logs/std_log.txt", offset=0, data=b"hi\n")
    await agent.sync(agent.phase("finalizing"), agent.exited(exit_code=0), logs=[chunk])
    assert plane.statuses("j") == [
        *("Queued", "Provisioning", "Preparing", "Running", "Finalizing", "Completed")
    ]
    assert await plane.log("j", "user_logs/std_log.txt") == b"hi\n"


async def test_reports_that_are_repeated_change_nothing(plane: Plane) -> None:
    await plane.submit("j")
    await plane.cycle()
    (agent,) = plane.agents()
    await agent.arrive()
    phase = agent.phase("running")
    chunk = LogChunk(task_id=agent.task.id, file="user_logs/std_log.txt", offset=0, data=b"one\n")
    for _ in range(3):
        response = await agent.sync(phase, logs=[chunk])
        assert response.acked_seq == 1
        assert response.log_sizes[0].size == 4
    # An event that is ahead of one that was lost is not taken.
    ahead = agent.exited()
    gap = type(ahead)(**{**{f: getattr(ahead, f) for f in ahead.__struct_fields__}, "seq": 9})
    assert (await agent.sync(gap)).acked_seq == 1
    assert plane.status("j") == "Running"
    assert plane.statuses("j").count("Running") == 1


async def test_a_warm_node_is_used_again_by_the_same_user(plane: Plane) -> None:
    await plane.submit("one")
    await plane.cycle()
    (agent,) = plane.agents()
    await agent.arrive()
    await agent.sync(agent.exited())
    await plane.submit("two")
    await plane.cycle()
    assert plane.status("two") == "Preparing"
    assert len(plane.engine.nodes) == 1


async def test_an_idle_node_is_given_back_after_its_warm_time(plane: Plane) -> None:
    await plane.submit("one")
    await plane.cycle()
    (agent,) = plane.agents()
    await agent.arrive()
    await agent.sync(agent.exited())
    await plane.cycle()
    assert plane.engine.stopped == []
    plane.clock.now += plane.services.settings.engine.keep_warm_s + 1
    await plane.cycle()
    assert plane.engine.stopped == [agent.node_id]
    assert (await agent.sync()).node_state == "released"


async def test_a_failure_says_why(plane: Plane) -> None:
    await plane.submit("j")
    await plane.cycle()
    (agent,) = plane.agents()
    await agent.arrive()
    await agent.sync(agent.exited("failed", exit_code=3, code="UserProcessFailed", message="exit code 3"))
    row = plane.job("j")
    assert row.status == "Failed"
    assert row.error["code"] == "UserError"
    assert row.error["details"][0]["code"] == "UserProcessFailed"


async def test_a_gang_starts_whole_and_fails_together(plane: Plane) -> None:
    await plane.submit(
        "gang",
        resources={"instanceCount": 3},
        distribution={"distributionType": "PyTorch", "processCountPerInstance": 2},
    )
    await plane.cycle()
    agents = plane.agents()
    assert len(agents) == 3
    for agent in agents[:2]:
        await agent.arrive()
    assert plane.status("gang") == "Provisioning"
    await agents[2].arrive()
    assert plane.status("gang") == "Preparing"
    leader = next(agent for agent in agents if agent.task.rank == 0)
    others = [agent for agent in agents if agent is not leader]
    await leader.sync(
        TaskRendezvous(
            seq=leader.number(), task_id=leader.task.id, at=plane.clock.now, address="127.0.0.1:29500"
        )
    )
    for agent in others:
        await agent.sync()
        assert agent.task.leader == "127.0.0.1:29500"
    await others[0].sync(
        others[0].exited("failed", exit_code=1, code="UserProcessFailed", message="exit code 1")
    )
    assert plane.status("gang") != "Failed", "not over while others run"
    for agent in (leader, others[1]):
        await agent.sync()
        assert agent.task.desired == "stop"
        await agent.sync(agent.exited("stopped"))
    assert plane.status("gang") == "Failed"
    assert "exit code 1" in plane.job("gang").error["message"]


async def test_cancel_in_the_queue_and_while_running(plane: Plane) -> None:
    control = plane.services.control
    await plane.submit("queued")
    assert await control.cancel_job(plane.workspace.id, "queued", "me") == "Canceled"
    with pytest.raises(BadRequest, match="over"):
        await control.cancel_job(plane.workspace.id, "queued", "me")
    await plane.submit("running")
    await plane.cycle()
    (agent,) = plane.agents()
    await agent.arrive()
    await agent.sync(agent.phase("running"))
    assert await control.cancel_job(plane.workspace.id, "running", "me") == "CancelRequested"
    assert await control.cancel_job(plane.workspace.id, "running", "me") == "CancelRequested"
    await agent.sync()
    assert agent.task.desired == "stop"
    await agent.sync(agent.exited("stopped"))
    assert plane.status("running") == "Canceled"


async def test_a_lost_node_sends_its_job_back_to_the_queue(plane: Plane) -> None:
    await plane.submit("j")
    for attempt in (1, 2, 3):
        await plane.cycle()
        agent = plane.agents()[-1]
        await agent.arrive()
        await agent.sync(
            agent.phase("running"),
            logs=[
                LogChunk(
                    task_id=agent.task.id,
                    file="user_logs/std_log.txt",
                    offset=0,
                    data=f"attempt {attempt}\n".encode(),
                )
            ],
        )
        plane.engine.lose(agent.node_id)
        await plane.services.control.look_after_nodes()
        await plane.services.control.settled()
        assert plane.status("j") == ("Queued" if attempt < 3 else "Failed")
    assert plane.job("j").error["code"] == "SystemError"
    assert await plane.log("j", "user_logs/std_log.txt") == b"attempt 1\nattempt 2\nattempt 3\n"


async def test_an_agent_that_died_is_started_again(plane: Plane) -> None:
    plane.engine.restartable = True
    await plane.submit("j")
    await plane.cycle()
    (agent,) = plane.agents()
    await agent.arrive()
    await agent.sync(agent.phase("running"))
    plane.engine.lose(agent.node_id)
    await plane.services.control.look_after_nodes()
    assert plane.status("j") == "Running"


async def test_a_node_that_can_not_be_had_fails_the_job_in_the_end(plane: Plane) -> None:
    plane.engine.refuse = EngineError("NoRoom", "The machine has no memory left.")
    await plane.submit("j")
    for _ in range(3):
        await plane.cycle()
    assert plane.status("j") == "Failed"
    assert "no memory left" in plane.job("j").error["message"]


async def test_more_jobs_than_nodes_wait_with_a_reason_and_then_run(plane: Plane) -> None:
    for number in range(9):
        await plane.submit(f"j{number}")
    await plane.cycle()
    assert plane.status("j8") == "Queued"
    assert plane.job("j8").reason["code"] == "WaitingForNodes"
    agent = plane.agents()[0]
    await agent.arrive()
    await agent.sync(agent.exited())
    await plane.cycle()
    assert plane.status("j8") == "Preparing"


async def test_a_name_in_use_by_another_job_is_refused(plane: Plane) -> None:
    assert await plane.submit("j", command="echo 1", tags={"a": "1"})
    assert not await plane.submit("j", command="echo 1", tags={"b": "2"})
    assert plane.job("j").tags == {"a": "1", "b": "2"}
    with pytest.raises(Conflict, match="command"):
        await plane.submit("j", command="echo 2")


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"command": " "}, "needs a command"),
        ({"environmentId": None}, "needs an environment"),
        ({"environmentId": "azureml:nothing:1"}, "nothing"),
        ({"command": "echo ${{inputs.x}}"}, "no input 'x'"),
        ({"inputs": {"x": {"jobInputType": "uri_file", "uri": "azureml:none:1"}}}, "none"),
        ({"inputs": {"x": {"jobInputType": "uri_banana", "uri": "a"}}}, "uri_banana"),
        ({"resources": {"instanceCount": 0}}, "at least 1"),
        ({"resources": {"instanceCount": 1000}}, "8"),
        ({"resources": {"instanceType": "Standard_Nothing"}}, "Standard_Nothing"),
        ({"queueSettings": {"jobTier": "gold"}}, "gold"),
        ({"limits": {"timeout": "ten minutes"}}, "ISO 8601"),
        ({"distribution": {"distributionType": "Smoke"}}, "Smoke"),
        ({"resources": "big"}, "wrong kind"),
        ({"jobType": "Dance"}, "Dance"),
        ({"queueSettings": {"priority": 9**30}}, "priority"),
        ({"parentJobName": "nobody"}, "nobody"),
        ({"isArchived": "maybe"}, "true or false"),
        ({"identity": {"identityType": "Managed", "clientId": "nobody"}}, "nobody"),
    ],
)
async def test_bad_jobs_are_refused_and_leave_nothing(
    plane: Plane, fields: dict[str, object], words: str
) -> None:
    from noriba.models.errors import NoribaError, NotFound

    with pytest.raises(NoribaError, match=words):
        await plane.submit("bad", **fields)
    with pytest.raises(NotFound):
        plane.job("bad")


async def test_a_job_whose_data_is_gone_when_it_starts_fails_and_frees_its_node(plane: Plane) -> None:
    from noriba.database.tables import datastores

    def add(connection: sa.Connection) -> None:
        values = {
            "workspace_id": plane.workspace.id,
            "key": "mine",
            "name": "mine",
            "is_default": False,
            "properties": {"datastoreType": "AzureBlob", "accountName": "a", "containerName": "c"},
            "created_at": 0,
            "created_by": "me",
            "modified_at": 0,
        }
        connection.execute(datastores.insert().values(**values))

    await plane.services.database.write(add)
    uri = "azureml://datastores/mine/paths/a.csv"
    await plane.submit("j", inputs={"x": {"jobInputType": "uri_file", "uri": uri}})
    await plane.services.database.write(
        lambda connection: connection.execute(datastores.delete().where(datastores.c.key == "mine"))
    )
    await plane.cycle()
    (agent,) = plane.agents()
    await agent.arrive()
    assert agent.tasks == {}
    row = plane.job("j")
    assert row.status == "Failed"
    assert "mine" in row.error["message"]
    await plane.submit("next")
    await plane.cycle()
    assert plane.status("next") == "Preparing", "the node is free for others"
