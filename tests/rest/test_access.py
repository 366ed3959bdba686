"""Every route refuses callers without a valid token, but for those in this list."""

from __future__ import annotations

import re

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from noriba.rest.router import PUBLIC, SELF, Route
from noriba.rest.routes import all_routes
from tests.conftest import WORKSPACE_PATH
from tests.server import ServerProcess

OPEN = {
    "/healthz",
    "/readyz",
    "/metrics",
    "/metadata/endpoints",
    "/discovery",
    "/",
    "/studio/{page:path}",
}
"""What anybody may ask: nothing in it is about users, jobs or data."""

VALUES = {
    "sub": WORKSPACE_PATH.split("/")[2],
    "group": WORKSPACE_PATH.split("/")[4],
    "workspace": WORKSPACE_PATH.split("/")[8],
}
ROUTES = sorted(all_routes(), key=lambda route: (route.path, route.method))


def address(route: Route) -> str:
    """A path that the route matches."""
    return re.sub(r"\{(\w+)(:path)?\}", lambda match: VALUES.get(match[1], "x"), route.path)


def test_public_routes_are_the_listed_ones() -> None:
    # Registry discovery is asked without a token too (wire.md 7.1).
    public = {route.path for route in ROUTES if route.access == PUBLIC}
    assert {path for path in public if "discovery" not in path} == OPEN - {"/discovery"}


def forged() -> str:
    key = ec.generate_private_key(ec.SECP256R1())
    return jwt.encode({"sub": "x", "aud": "x", "exp": 2**33, "iss": "x"}, key, algorithm="ES256")


@pytest.mark.parametrize("token", [None, "nonsense", forged()], ids=["none", "nonsense", "forged"])
def test_no_route_answers_without_a_valid_token(server: ServerProcess, token: str | None) -> None:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    with httpx.Client(base_url=server.url, verify=server.tls(), headers=headers) as client:
        for route in ROUTES:
            if route.access == PUBLIC:
                continue
            answer = client.request(route.method, address(route))
            allowed = {400, 401, 403, 404} if route.access == SELF else {401}
            assert answer.status_code in allowed, (route.method, route.path, answer.status_code, answer.text)
