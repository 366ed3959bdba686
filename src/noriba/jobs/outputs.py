"""What becomes of a completed job's outputs: named ones are registered as data assets or models."""

from __future__ import annotations

import sqlalchemy as sa

from noriba.assets import registering
from noriba.jobs.store import JobRow
from noriba.models.errors import NoribaError


def register_outputs_in(connection: sa.Connection, row: JobRow, now: float) -> tuple[str, str] | None:
    """Register the outputs that have an asset name. Returns (code, message) when one can not be."""
    for name, output in ((row.resolved or {}).get("outputs") or {}).items():
        if not output.get("asset_name"):
            continue
        try:
            registering.register_output_in(
                connection,
                scope=row.workspace_id,
                name=output["asset_name"],
                version=output.get("asset_version"),
                type=output["type"],
                uri=output["data"]["uri"],
                job=row.name,
                output=name,
                created_by=row.created_by_name,
                now=now,
            )
        except NoribaError as error:
            return (
                "OutputRegistrationFailed",
                f"Output '{name}' is stored but could not be registered as '{output['asset_name']}': {error.message}",
            )
    return None
