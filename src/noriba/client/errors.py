"""What can go wrong between the command line and a server.

ClientError        one sentence for the user, and what to do
├── NoServer       nothing answers at the address
├── Untrusted      TLS: the certificate is not one we trust
├── NotFoundHere   the home, file or name needed on this side is missing
└── ApiError       the server answered with an error: its status, code, message and details
"""

from __future__ import annotations

from typing import Any


class ClientError(Exception):
    """An error to show to the user as it is."""


class NoServer(ClientError):
    """Nothing answers."""


class Untrusted(ClientError):
    """The server's certificate can not be verified."""


class NotFoundHere(ClientError):
    """Something is missing on this machine."""


class ApiError(ClientError):
    """The server's error envelope (wire.md 9)."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        target: str = "",
        details: list[tuple[str, str]] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.target = target
        self.details = details or []

    def __str__(self) -> str:
        return self.message

    @classmethod
    def from_answer(cls, status: int, document: Any, fallback: str) -> ApiError:
        """The error in an answer; ``document`` is its decoded JSON or None when it has none."""
        error = document.get("error") if isinstance(document, dict) else None
        if isinstance(error, str):
            # Token endpoints speak OAuth.
            return cls(status, error, str(document.get("error_description") or error))
        if not isinstance(error, dict):
            return cls(status, f"Http{status}", fallback)
        details = [
            (str(detail.get("code") or ""), str(detail.get("message") or ""))
            for detail in error.get("details") or []
            if isinstance(detail, dict)
        ]
        return cls(
            status,
            str(error.get("code") or f"Http{status}"),
            str(error.get("message") or fallback),
            str(error.get("target") or ""),
            details,
        )
