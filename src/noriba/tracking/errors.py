"""Errors with MLflow's codes (they travel in its own envelope, see rest/mlflow.py)."""

from __future__ import annotations

import json

from noriba.models.errors import BadRequest, NoribaError, NotFound

INVALID_PARAMETER_VALUE = "INVALID_PARAMETER_VALUE"
RESOURCE_DOES_NOT_EXIST = "RESOURCE_DOES_NOT_EXIST"
RESOURCE_ALREADY_EXISTS = "RESOURCE_ALREADY_EXISTS"
INVALID_STATE = "INVALID_STATE"


class InvalidState(NoribaError):
    """Something is not in the state that the call needs. MLflow gives it status 500; 400 is no less told."""

    status = 400
    default_code = INVALID_STATE


def invalid(message: str) -> BadRequest:
    """INVALID_PARAMETER_VALUE with that sentence."""
    return BadRequest(message, code=INVALID_PARAMETER_VALUE)


def invalid_value(path: str, value: object, why: str = "") -> BadRequest:
    """INVALID_PARAMETER_VALUE in MLflow's words: which parameter, which value, why."""
    shown = json.dumps(value, default=str)[:200]
    return invalid(f"Invalid value {shown} for parameter '{path}' supplied{': ' + why if why else '.'}")


def missing(path: str) -> BadRequest:
    """A required parameter was not sent."""
    return invalid(f"Missing value for required parameter '{path}'.")


def unknown(message: str) -> NotFound:
    """RESOURCE_DOES_NOT_EXIST with that sentence."""
    return NotFound(message, code=RESOURCE_DOES_NOT_EXIST)


def exists(message: str) -> BadRequest:
    """RESOURCE_ALREADY_EXISTS (status 400 in MLflow) with that sentence."""
    return BadRequest(message, code=RESOURCE_ALREADY_EXISTS)
