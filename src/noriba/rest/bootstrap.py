"""What a client asks before anything else: cloud metadata, tokens, discovery, health (wire.md 1, 2.1)."""

from __future__ import annotations

from typing import Any

from starlette.responses import Response

from noriba import metrics
from noriba.identity.tokens import LIFETIME_S, MAX_LIFETIME_S
from noriba.jobs.identity import principal_of_job_secret, principal_of_obo_secret
from noriba.models.errors import BadRequest, Unauthenticated, Unavailable
from noriba.models.principal import Principal
from noriba.rest.call import Call
from noriba.rest.router import PUBLIC, SELF, Routes

routes = Routes()


@routes.get("/healthz", access=PUBLIC)
async def healthz(call: Call) -> Any:
    """The process is alive."""
    return {"status": "ok"}


@routes.get("/readyz", access=PUBLIC)
async def readyz(call: Call) -> Any:
    """The process can serve: its database answers."""
    try:
        call.services.database.check()
    except Unavailable as error:
        return 503, {"status": "unavailable", "message": error.message}
    return {"status": "ready"}


@routes.get("/metrics", access=PUBLIC)
async def prometheus(call: Call) -> Any:
    """Metrics for Prometheus. They name no user, job or workspace."""
    return Response(metrics.render(), media_type="text/plain; version=0.0.4")


@routes.get("/metadata/endpoints", access=PUBLIC)
async def cloud_metadata(call: Call) -> Any:
    """The cloud description that ``ARM_CLOUD_METADATA_URL`` points to (wire.md 1.1)."""
    services = call.services
    base = services.base_url
    return [
        {
            # Free text that the SDK builds the registry discovery URL from: this makes it a path of ours.
            "name": f"{services.host}/ty/",
            "portal": "https://portal.azure.com/",
            "authentication": {"loginEndpoint": f"{base}/login", "audiences": [base], "tenant": "common"},
            "resourceManager": base,
            "suffixes": {"storage": "local/"},
        }
    ]


@routes.get("/discovery", access=PUBLIC)
async def discovery(call: Call) -> Any:
    """Addresses of the data planes: all are this server."""
    names = (
        "api catalog experimentation history hyperdrive labeling modelmanagement pipelines studio "
        "modelregistry jobs runs schedule"
    )
    return dict.fromkeys(names.split(), call.services.base_url)


@routes.get("/msi/token", access=SELF)
async def managed_identity_token(call: Call) -> Any:
    """The managed-identity endpoint: a secret for a token (wire.md 1.2, 8.1).

    The secret is a user's (from ``noriba env``) or a job's (from its environment).
    """
    secret = call.request.headers.get("secret") or call.request.headers.get("x-identity-header") or ""
    principal = await call.services.principals.by_secret(secret) if secret else None
    if principal is None and secret:
        principal = await principal_of_job_secret(
            call.services, secret, client_id=call.query.get("clientid") or call.query.get("client_id")
        )
    if principal is None:
        return _oauth_error('The secret is not known here. Run: eval "$(noriba env)"')
    return _token_answer(call, principal)


@routes.get("/obo/{secret}", access=SELF)
async def on_behalf_of_token(call: Call) -> Any:
    """A token of the job's user, for ``AzureMLOnBehalfOfCredential`` (wire.md 8.1): the path is the secret."""
    principal = await principal_of_obo_secret(call.services, call.params["secret"])
    if principal is None:
        return _oauth_error("This job can not act for its user any more.")
    return _token_answer(call, principal)


def _token_answer(call: Call, principal: Principal) -> Any:
    resource = call.query.get("resource") or call.query.get("scope", "").removesuffix("/.default")
    if not resource:
        raise BadRequest("Say which resource the token is for: ?resource=…", target="resource")
    lifetime_s = LIFETIME_S
    wished = call.query.get("lifetime_s", "")
    # A user's secret gets tokens at any time, so a longer one gives nothing away; a job's end with the job.
    if wished.isdigit() and principal.job is None:
        lifetime_s = min(float(wished), MAX_LIFETIME_S)
    token, expires = call.services.tokens.issue(
        principal, resource, now=call.services.clock(), lifetime_s=lifetime_s
    )
    return {
        "access_token": token,
        "expires_on": str(expires),
        "expires_in": str(int(lifetime_s)),
        "resource": resource,
        "token_type": "Bearer",
    }


def _oauth_error(message: str) -> Any:
    # azure-identity shows error_description to its user; the envelope would be dropped.
    error = Unauthenticated(message)
    return 400, {"error": "invalid_client", "error_description": error.message}
