"""All routes of MLflow's API, at all places where clients look for them."""

from __future__ import annotations

from typing import Any

from starlette.responses import Response

from noriba.models.errors import NotFound
from noriba.rest import (
    mlflow_artifacts,
    mlflow_azure,
    mlflow_experiments,
    mlflow_logging,
    mlflow_models,
    mlflow_registry,
    mlflow_runs,
    mlflow_transfers,
    mlflow_versions,
)
from noriba.rest.mlflow import API, MlflowCall, add, mount
from noriba.rest.router import Routes

routes = Routes()

SPOKEN_VERSION = "3.15.0"
"""The release of MLflow whose REST API this is; ``/version`` says so."""


async def no_endpoint(request: MlflowCall) -> Any:
    """Parts of MLflow that are not offered (traces, prompts' optimisation, gateways …): clients go on without."""
    raise NotFound(
        f"This server does not offer {request.call.request.method} {request.call.request.url.path}.",
        code="ENDPOINT_NOT_FOUND",
    )


async def server_info(request: MlflowCall) -> Any:
    """What clients of MLflow 3 ask to learn what there is."""
    return {
        "store_type": "SqlStore",
        "workspaces_enabled": False,
        "trace_archival_enabled": False,
        "multipart_uploads_enabled": False,
        "multipart_downloads_enabled": False,
    }


async def version(request: MlflowCall) -> Any:
    """The release of MLflow that this server speaks like."""
    return Response(SPOKEN_VERSION, media_type="text/plain")


def _mount() -> None:
    for module in (
        mlflow_experiments,
        mlflow_runs,
        mlflow_logging,
        mlflow_registry,
        mlflow_versions,
        mlflow_models,
        mlflow_artifacts,
    ):
        mount(routes, module.api)
    mlflow_artifacts.mount_proxy(routes)
    mlflow_transfers.mount(routes)
    for root, azure in mlflow_artifacts.MOUNTS:
        preview = f"{root}/api/2.0/preview/mlflow/runs"
        add(
            routes, "POST", f"{preview}/log-batch-async", "write", mlflow_logging.log_batch_async, azure=azure
        )
        add(
            routes,
            "GET",
            f"{preview}/get-run-data-status",
            "read",
            mlflow_logging.get_run_data_status,
            azure=azure,
        )
        add(routes, "GET", f"{root}/version", "read", version, azure=azure)
        for info in ("/api/3.0/mlflow/server-info", "/ajax-api/3.0/mlflow/server-info"):
            add(routes, "GET", root + info, "read", server_info, azure=azure)
        for prefix in (API, "/api/3.0/mlflow", "/ajax-api/2.0/mlflow", "/ajax-api/3.0/mlflow"):
            for method in ("GET", "POST", "PUT", "PATCH", "DELETE"):
                add(routes, method, f"{root}{prefix}/{{rest:path}}", "read", no_endpoint, azure=azure)
    routes.routes.extend(mlflow_azure.routes.routes)


_mount()
