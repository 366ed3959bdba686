"""The error tree.

NoribaError            anything the user can act on: a stable code, a sentence, an HTTP status
├── BadRequest 400     what was sent can not be accepted (``ValidationError``, ``UserError`` …)
├── Unauthenticated 401
├── Forbidden 403
├── NotFound 404
├── Conflict 409
├── PreconditionFailed 412
├── TooLarge 413
└── Unavailable 503    try again later
IllegalTransition      a bug of ours: a state machine was asked for a step it does not have
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class NoribaError(Exception):
    """An error to show to the caller.

    ``code`` is stable and for programs, the message says what to change, ``target`` names the field,
    ``details`` are further (code, message) pairs, ``info`` is extra data for tools.
    """

    status = 500
    default_code = "InternalServerError"

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        target: str | None = None,
        details: Sequence[tuple[str, str]] = (),
        info: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or self.default_code
        self.target = target
        self.details = details
        self.info = info


class BadRequest(NoribaError):
    status = 400
    default_code = "UserError"


class Unauthenticated(NoribaError):
    status = 401
    default_code = "AuthenticationFailed"


class Forbidden(NoribaError):
    status = 403
    default_code = "AuthorizationFailed"


class NotFound(NoribaError):
    status = 404
    default_code = "ResourceNotFound"


class MethodNotAllowed(NoribaError):
    status = 405
    default_code = "MethodNotAllowed"


class Conflict(NoribaError):
    status = 409
    default_code = "Conflict"


class PreconditionFailed(NoribaError):
    status = 412
    default_code = "PreconditionFailed"


class TooLarge(NoribaError):
    status = 413
    default_code = "RequestBodyTooLarge"


class Unavailable(NoribaError):
    status = 503
    default_code = "ServiceUnavailable"


class IllegalTransition(Exception):
    """A state machine was asked for a transition that its table does not have."""
