"""The control plane in this process: a real database and blob store, an engine that only remembers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from noriba.agent.protocol import (
    Event,
    LogChunk,
    NodeFacts,
    SyncRequest,
    SyncResponse,
    TaskExited,
    TaskPhase,
    TaskSpec,
)
from noriba.engines.memory import MemoryEngine
from noriba.home import Home
from noriba.jobs import store
from noriba.jobs.control import Control
from noriba.jobs.submit import submit_job
from noriba.models.principal import Principal
from noriba.models.workspace import Workspace
from noriba.server import build_services
from noriba.services import Services
from noriba.settings import load_settings
from tests.databases import NewDatabase

ENVIRONMENT = "azureml://registries/azureml/environments/sklearn-1.5/labels/latest"


class Clock:
    """A clock that tests move."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


class Plane:
    """The control plane under test. ``cycle`` is called by hand; the loops do not run."""

    def __init__(self, services: Services, engine: MemoryEngine, clock: Clock) -> None:
        self.services = services
        self.engine = engine
        self.clock = clock
        self.workspace: Workspace
        self.principal: Principal

    async def prepare(self) -> None:
        first = self.services.settings.workspace
        self.workspace = await self.services.workspaces.find(
            first.subscription_id, first.resource_group, first.name
        )
        credentials = Home(self.services.settings.home_path).credentials()
        assert credentials is not None
        principal = await self.services.principals.by_secret(credentials.secret)
        assert principal is not None
        self.principal = principal

    async def submit(self, name: str, **properties: Any) -> bool:
        """Submit a command job; keywords are wire fields."""
        body = {"jobType": "Command", "command": "true", "environmentId": ENVIRONMENT, **properties}
        return await submit_job(self.services, self.workspace, self.principal, name, body)

    async def cycle(self) -> None:
        """One scheduling cycle and all that it set off."""
        await self.services.control.cycle()
        await self.services.control.settled()

    def job(self, name: str) -> store.JobRow:
        return self.services.database.read_now(
            lambda connection: store.load_in(connection, self.workspace.id, name)
        )

    def status(self, name: str) -> str:
        return str(self.job(name).status)

    def statuses(self, name: str) -> list[str]:
        """All statuses the job went through."""
        events = self.services.database.read_now(
            lambda connection: store.events_in(connection, self.workspace.id, name)
        )
        return [event.status for event in events if event.kind == "status"]

    def agents(self) -> list[Agent]:
        """An agent for each node the engine was asked for."""
        return [Agent(self, node_id) for node_id in self.engine.nodes]

    async def log(self, job: str, file: str) -> bytes:
        name = f"ExperimentRun/dcid.{job}/{file}"
        return await self.services.blobs.read_all(self.workspace.storage_account, "azureml", name)


class Agent:
    """An agent as the control plane sees one."""

    def __init__(self, plane: Plane, node_id: str) -> None:
        self.plane = plane
        self.node_id = node_id
        self.seq = 0
        self.revision = 0
        self.tasks: dict[str, TaskSpec] = {}

    async def sync(self, *events: Event, logs: list[LogChunk] | None = None, **fields: Any) -> SyncResponse:
        """Report and listen, as an agent does."""
        response = await self.plane.services.control.sync.sync(
            self.node_id,
            SyncRequest(
                incarnation="one", revision=self.revision, events=list(events), logs=logs or [], **fields
            ),
        )
        self.revision = response.revision
        self.tasks.update({task.id: task for task in response.tasks})
        return response

    async def arrive(self) -> SyncResponse:
        """Call home for the first time."""
        return await self.sync(facts=NodeFacts(host="h", address="127.0.0.1", pid=1, agent_version="t"))

    def number(self) -> int:
        self.seq += 1
        return self.seq

    @property
    def task(self) -> TaskSpec:
        (task,) = self.tasks.values()
        return task

    def phase(self, phase: Any) -> TaskPhase:
        return TaskPhase(seq=self.number(), task_id=self.task.id, at=self.plane.clock.now, phase=phase)

    def exited(self, outcome: Any = "completed", **fields: Any) -> TaskExited:
        return TaskExited(
            seq=self.number(), task_id=self.task.id, at=self.plane.clock.now, outcome=outcome, **fields
        )


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def plane(tmp_path: Path, clock: Clock, new_database: NewDatabase) -> AsyncIterator[Plane]:
    """A control plane with an engine of 8 nodes."""
    settings = load_settings(home=tmp_path / "home", environ={}, flags={"database.url": new_database()})
    home = Home(settings.home_path)
    home.prepare()
    engine = MemoryEngine(max_nodes=8)
    services = build_services(settings, home, "https://127.0.0.1:1", engine=engine)
    services.clock = clock
    services.control = Control(services, engine)
    plane = Plane(services, engine, clock)
    await plane.prepare()
    yield plane
    await services.control.stop()
    services.database.close()
