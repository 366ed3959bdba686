"""From a request's bearer token to a principal."""

from __future__ import annotations

from noriba.models.errors import Unauthenticated
from noriba.models.principal import Principal
from noriba.rest.call import Call


async def authenticate(call: Call) -> Principal:
    """The principal whose valid token the request carries. Raises Unauthenticated."""
    header = call.request.headers.get("authorization", "")
    scheme, _, token = header.partition(" ")
    if scheme.lower() == "basic":
        token = _token_of_basic(token)
    elif scheme.lower() != "bearer" or not token:
        raise Unauthenticated("Sign in first: the request has no bearer token (see noriba env).")
    return await principal_of_token(call, token.strip())


async def principal_of_token(call: Call, token: str) -> Principal:
    """The principal of an access token. A job's token is good only while the job is not over."""
    services = call.services
    claims = services.tokens.verify(token, now=services.clock())
    principal = await services.principals.by_id(claims["sub"])
    job = claims.get("noriba_job")
    if not job:
        return principal
    workspace_id, _, name = str(job).partition("/")
    if not await services.control.is_job_active(workspace_id, name):
        raise Unauthenticated("The job that this token was given to is over.", code="JobTokenExpired")
    return Principal(
        id=principal.id,
        kind=principal.kind,
        name=principal.name,
        tenant_id=principal.tenant_id,
        # Whatever its user may do elsewhere, a job's token reaches its own workspace only.
        roles={
            workspace_id: principal.roles.get(workspace_id) or principal.roles.get("*") or "",
        },
        job=(workspace_id, name),
    )


def _token_of_basic(encoded: str) -> str:
    """Plain MLflow can send a token as the password of basic authentication."""
    import base64
    import binascii

    try:
        return base64.b64decode(encoded, validate=True).decode().partition(":")[2]
    except (binascii.Error, UnicodeDecodeError) as error:
        raise Unauthenticated("The Authorization header is not valid.") from error
