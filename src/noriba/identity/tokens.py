"""Access tokens: JWTs signed by this server (the embedded identity provider of product.md R14)."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from noriba.models.errors import Unauthenticated
from noriba.models.principal import Principal

LIFETIME_S = 3600.0
MAX_LIFETIME_S = 86_400.0
"""The longest life a client can ask for: MLflow's clients do not renew their token, and work for a day."""
CACHE_SIZE = 4096
ML_AUDIENCE = "https://ml.azure.com"
STORAGE_AUDIENCE = "https://storage.azure.com"
MANAGEMENT_AUDIENCE = "https://management.azure.com"
AUDIENCES = frozenset({ML_AUDIENCE, STORAGE_AUDIENCE, MANAGEMENT_AUDIENCE})
"""Audiences that clients ask for besides the server's own URL (wire.md 1.2)."""


class Tokens:
    """Makes and checks access tokens. ``issuer`` is the server's base URL."""

    def __init__(self, issuer: str, signing_key: ec.EllipticCurvePrivateKey) -> None:
        self.issuer = issuer
        self._key = signing_key
        self._public = signing_key.public_key()
        self._checked: OrderedDict[str, tuple[float, dict[str, Any]]] = OrderedDict()

    def issue(
        self, principal: Principal, audience: str, *, now: float, lifetime_s: float = LIFETIME_S
    ) -> tuple[str, int]:
        """A token for ``audience`` and when it expires (seconds since the epoch)."""
        expires = int(now + lifetime_s)
        claims: dict[str, Any] = {
            "iss": self.issuer,
            "aud": audience,
            "sub": principal.id,
            "oid": principal.id,
            "tid": principal.tenant_id,
            "name": principal.name,
            "unique_name": principal.name,
            "idtyp": "user" if principal.kind == "user" else "app",
            "iat": int(now),
            "nbf": int(now) - 300,
            "exp": expires,
            "ver": "1.0",
        }
        if principal.job:
            claims["noriba_job"] = "/".join(principal.job)
        return jwt.encode(claims, self._key, algorithm="ES256"), expires

    def verify(self, token: str, *, now: float) -> dict[str, Any]:
        """The claims of a token. Raises Unauthenticated when it is not ours, forged, expired or for someone else."""
        cached = self._checked.get(token)
        if cached is not None:
            expires, claims = cached
            if now < expires:
                return claims
            del self._checked[token]
        try:
            claims = jwt.decode(
                token,
                self._public,
                algorithms=["ES256"],
                issuer=self.issuer,
                options={"verify_aud": False, "verify_exp": False, "require": ["exp", "sub", "aud"]},
            )
        except jwt.PyJWTError as error:
            raise Unauthenticated(
                "The access token is not valid here. Sign in again (noriba env).",
                code="InvalidAuthenticationToken",
            ) from error
        audience = str(claims["aud"]).rstrip("/")
        if audience != self.issuer and audience not in AUDIENCES:
            raise Unauthenticated(
                f"The access token is for {audience}, not for this server.",
                code="InvalidAuthenticationTokenAudience",
            )
        if now >= float(claims["exp"]):
            raise Unauthenticated(
                "The access token has expired. Get a new one.", code="ExpiredAuthenticationToken"
            )
        self._checked[token] = (float(claims["exp"]), claims)
        while len(self._checked) > CACHE_SIZE:
            self._checked.popitem(last=False)
        return claims

    def public_key_pem(self) -> str:
        """The key with which others can check our tokens."""
        return self._public.public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        ).decode()
