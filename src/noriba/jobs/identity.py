"""Who a job acts as, while it is not over (product.md R12, R13)."""

from __future__ import annotations

from typing import Any

import msgspec

from noriba.jobs.secrets import MANAGED, ON_BEHALF_OF, job_of_secret
from noriba.jobs.store import find_in
from noriba.models.job import TERMINAL, JobStatus
from noriba.models.principal import Principal
from noriba.services import Services


async def principal_of_job_secret(
    services: Services, secret: str, *, client_id: str | None
) -> Principal | None:
    """Who a job acts as when it presents its secret.

    None if the secret is not known, the job is over, or it asks for an identity that is not its own.
    """
    job = job_of_secret(services.keys, MANAGED, secret)
    identity = await _identity_of(services, job)
    if job is None or identity is None:
        return None
    own = (None, "", identity.get("client_id"), identity.get("principal_id"))
    if identity["type"] == "Managed" and client_id not in own:
        return None
    return await _as_job(services, identity["principal_id"], job)


async def principal_of_obo_secret(services: Services, secret: str) -> Principal | None:
    """The user on whose behalf the job with this secret acts; None if it is over."""
    job = job_of_secret(services.keys, ON_BEHALF_OF, secret)
    identity = await _identity_of(services, job)
    if job is None or identity is None:
        return None
    return await _as_job(services, identity["user_id"], job)


async def _identity_of(services: Services, job: tuple[str, str] | None) -> dict[str, Any] | None:
    if job is None:
        return None
    row = await services.database.read(lambda connection: find_in(connection, *job))
    if row is None or JobStatus(row.status) in TERMINAL:
        return None
    return dict(row.identity)


async def _as_job(services: Services, principal_id: str, job: tuple[str, str]) -> Principal:
    principal = await services.principals.by_id(principal_id)
    return msgspec.structs.replace(principal, job=job)
