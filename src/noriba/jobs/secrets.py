"""Secrets given to jobs and nodes. They are signatures over names, so nothing secret is stored for them."""

from __future__ import annotations

import base64
import binascii
import hmac

from noriba.identity.keys import Keys

MANAGED = "msi"
"""Opens the managed-identity endpoint as the job's identity."""
ON_BEHALF_OF = "obo"
"""Opens the on-behalf-of endpoint as the job's user."""
_NODE = "node"


def job_secret(keys: Keys, purpose: str, workspace_id: str, job: str) -> str:
    """The secret of a job for ``purpose`` (MANAGED or ON_BEHALF_OF)."""
    return _make(keys, purpose, f"{workspace_id}/{job}")


def job_of_secret(keys: Keys, purpose: str, secret: str) -> tuple[str, str] | None:
    """(workspace id, job name) that a secret was made for; None if it is not ours."""
    name = _check(keys, purpose, secret)
    if name is None:
        return None
    workspace_id, _, job = name.partition("/")
    return workspace_id, job


def node_token(keys: Keys, node_id: str) -> str:
    """The bearer token with which a node's agent calls home."""
    return _make(keys, _NODE, node_id)


def node_of_token(keys: Keys, token: str) -> str | None:
    """The node that a token was made for; None if it is not ours."""
    return _check(keys, _NODE, token)


def _make(keys: Keys, purpose: str, name: str) -> str:
    encoded = base64.urlsafe_b64encode(name.encode()).decode().rstrip("=")
    return f"{encoded}.{keys.sign(purpose, name)}"


def _check(keys: Keys, purpose: str, secret: str) -> str | None:
    encoded, _, signature = secret.partition(".")
    try:
        name = base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)).decode()
    except (binascii.Error, ValueError):
        return None
    return name if hmac.compare_digest(signature.encode(), keys.sign(purpose, name).encode()) else None
