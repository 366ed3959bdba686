"""All routes of the server."""

from __future__ import annotations

from noriba.rest import (
    agents,
    assets,
    blob,
    bootstrap,
    computes,
    datastores,
    deployments,
    history,
    jobs,
    mlflow_routes,
    operations,
    registries,
    studio,
    workspaces,
)
from noriba.rest.router import Router


def all_routes() -> Router:
    """The one router, made of every module's routes."""
    return Router(
        bootstrap.routes,
        blob.routes,
        workspaces.routes,
        deployments.routes,
        datastores.routes,
        assets.routes,
        registries.routes,
        computes.routes,
        operations.routes,
        jobs.routes,
        studio.routes,
        history.routes,
        agents.routes,
        mlflow_routes.routes,
        fallback=blob.registry_route,
    )
