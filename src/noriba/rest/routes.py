"""All routes of the server."""

from __future__ import annotations

from noriba.rest import agents, blob, bootstrap, history, jobs
from noriba.rest.router import Router


def all_routes() -> Router:
    """The one router, made of every module's routes."""
    return Router(bootstrap.routes, blob.routes, jobs.routes, history.routes, agents.routes, fallback=blob.registry_route)
