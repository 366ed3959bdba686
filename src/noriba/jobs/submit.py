"""Take a job in: check it, look up what it refers to, choose its size, write it down (architecture.md, Admission).

Everything that can be known to be wrong is told now, as a 4xx, and nothing is left behind.
"""

from __future__ import annotations

import re
from typing import Any

import sqlalchemy as sa

from noriba.database.tables import jobs
from noriba.jobs.admission import command_values, flag_of, strings_of, text_of
from noriba.jobs.store import COMPUTED_PROPERTIES, add_event_in, find_in, update_metadata_in
from noriba.models.errors import BadRequest, Conflict
from noriba.models.job import JobStatus
from noriba.models.principal import Principal
from noriba.models.workspace import Workspace
from noriba.services import Services
from noriba.tracking import store as tracking

NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_\-]{0,254}")
DEFINING = (
    "jobType",
    "command",
    "codeId",
    "environmentId",
    "computeId",
    "inputs",
    "distribution",
    "resources",
    "limits",
    "environmentVariables",
)
"""What makes two definitions of a name different jobs."""


async def submit_job(
    services: Services, workspace: Workspace, principal: Principal, name: str, properties: dict[str, Any]
) -> bool:
    """Submit a job, or update the metadata of the one with that name. True if it is new.

    Raises BadRequest, NotFound (of what it refers to) or Conflict (the name is taken by another job).
    """
    if not NAME.fullmatch(name):
        raise BadRequest(
            f"'{name[:80]}' is not a job name: use up to 255 letters, digits, '-' and '_', beginning with a letter "
            "or digit.",
            target="name",
            code="InvalidJobName",
        )
    existing = await services.database.read(lambda connection: find_in(connection, workspace.id, name))
    if existing is not None:
        await _update(services, workspace, principal, name, properties)
        return False
    kind = properties.get("jobType")
    if kind != "Command":
        raise BadRequest(
            f"Jobs of type '{kind}' can not be run by this version; it runs Command jobs.",
            target="jobType",
            code="JobTypeNotSupported",
        )
    values = await command_values(services, workspace, principal, name, properties)
    now = services.clock()

    def insert(connection: sa.Connection) -> bool:
        if find_in(connection, workspace.id, name) is not None:
            return False
        connection.execute(jobs.insert().values(**values, created_at=now, status_at=now, modified_at=now))
        tracking.create_run_in(
            connection,
            workspace_id=workspace.id,
            run_id=name,
            experiment_name=values["experiment"],
            run_name=values["display_name"],
            user_id=principal.name,
            start_time=now,
            tags=_run_tags(properties),
            parent_run_id=values["parent"],
        )
        add_event_in(
            connection,
            workspace.id,
            name,
            at=now,
            kind="status",
            status=JobStatus.QUEUED.value,
            message=f"Submitted. Size {values['size']} x {values['instance_count']}, {values['tier']}.",
            who=principal.name,
        )
        return True

    created = await services.database.write(insert)
    if not created:
        # Somebody was faster with the same name (or this is a retry of a request whose answer was lost).
        await _update(services, workspace, principal, name, properties)
    services.control.wake()
    return created


async def _update(
    services: Services, workspace: Workspace, principal: Principal, name: str, properties: dict[str, Any]
) -> None:
    now = services.clock()
    changes = {
        "display_name": text_of(properties, "displayName"),
        "description": text_of(properties, "description"),
        "tags": strings_of(properties.get("tags"), "tags"),
        "properties": {
            key: value
            for key, value in strings_of(properties.get("properties"), "properties").items()
            if key not in COMPUTED_PROPERTIES
        },
        "is_archived": flag_of(properties, "isArchived"),
    }

    def update(connection: sa.Connection) -> None:
        row = find_in(connection, workspace.id, name)
        assert row is not None
        different = [
            field
            for field in DEFINING
            if field in properties and (properties[field] or None) != (row.definition.get(field) or None)
        ]
        if different:
            raise Conflict(
                f"There is a job '{name}' already and it differs in {', '.join(different)}. "
                "A submitted job can not be changed: choose another name.",
                code="JobAlreadyExists",
                target="name",
            )
        update_metadata_in(connection, row, changes, now=now, who=principal.name)

    await services.database.write(update)


def _run_tags(properties: dict[str, Any]) -> dict[str, str]:
    """The run's tags: the job's, and the git facts that the SDK puts into ``properties`` (wire.md 4.1)."""
    git = {
        key: value
        for key, value in strings_of(properties.get("properties"), "properties").items()
        if key.startswith("mlflow.")
    }
    return {**git, **strings_of(properties.get("tags"), "tags")}
