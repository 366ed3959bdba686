"""Commands that read YAML and upload go through Microsoft's SDK, set up for the server of the command."""

from __future__ import annotations

import io
import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, redirect_stderr
from typing import Any, TextIO

import click

from noriba.cli.complaints import ESCAPES, tell
from noriba.cli.env import bundle_for
from noriba.cli.framework import Cli
from noriba.client.environment import client_environment, to_unset
from noriba.client.errors import ApiError, ClientError
from noriba.client.session import Session


class SessionCredential:
    """The command's user as a credential of the Azure SDKs."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def get_token(self, *scopes: str, **_: Any) -> Any:
        """An access token for the resource of the first scope."""
        from azure.core.credentials import AccessToken

        token, expires_on = self._session.token_for(scopes[0].removesuffix("/.default"))
        return AccessToken(token, expires_on)


def client(cli: Cli, *, registry: str | None = None) -> Any:
    """An ``MLClient`` for the command's workspace or a registry. Raises ClientError when the SDK is not installed."""
    # The SDK reads its surroundings when it is imported.
    os.environ.update(client_environment(cli.target, bundle_for(cli.target), os.environ))
    for name in to_unset(os.environ):
        os.environ.pop(name, None)
    warnings.simplefilter("ignore")
    try:
        with _quiet_import():
            from azure.ai.ml import MLClient
    except ImportError as error:
        raise ClientError(
            "This command needs Azure ML's SDK to read YAML and upload files. "
            f"Install it with: pip install 'noriba[sdk]' ({error})"
        ) from error
    if not cli.debug:
        # Its warnings are for the user, its chatter and its notices about experimental classes are not.
        logging.getLogger("azure.ai.ml").setLevel(logging.WARNING)
        logging.getLogger("azure.ai.ml._utils._experimental").setLevel(logging.ERROR)
    target = cli.target
    place = {
        "subscription_id": target.subscription_id,
        "resource_group_name": target.resource_group,
        **({"registry_name": registry} if registry else {"workspace_name": target.workspace}),
    }
    with readable_errors():
        return MLClient(
            SessionCredential(cli.session), **place, show_progress=sys.stderr.isatty(), enable_telemetry=False
        )


@contextmanager
def _quiet_import() -> Iterator[None]:
    previous = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(previous)


def load(loader: str, file: str, overrides: list[dict[str, Any]]) -> Any:
    """What a YAML file describes, read by the SDK's function of that name. Raises ClientError."""
    import azure.ai.ml

    read: Callable[..., Any] = getattr(azure.ai.ml, loader)
    if not os.path.isfile(file):
        raise ClientError(f"There is no file '{file}'.")
    return _read(f"{file} can not be used", read, file, params_override=overrides)


def describe(loader: str, overrides: list[dict[str, Any]]) -> Any:
    """What flags alone describe. Raises ClientError."""
    import azure.ai.ml

    read: Callable[..., Any] = getattr(azure.ai.ml, loader)
    return _read(
        "What was given can not be used",
        read,
        io.StringIO("{}"),
        params_override=overrides,
        relative_origin=os.getcwd(),
    )


def _read(problem: str, read: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    try:
        with readable_errors():
            return read(*arguments, **options)
    except ClientError as error:
        raise ClientError(f"{problem}: {error}") from error
    except Exception as error:
        # The SDK trips over values of unexpected kinds with whatever Python raises there.
        raise ClientError(f"{problem}: {error} ({type(error).__name__}; --debug shows where)") from error


@contextmanager
def readable_errors() -> Iterator[None]:
    """Turn the SDK's exceptions into ours: the server's words, or what is wrong with the YAML."""
    from azure.ai.ml.exceptions import MlException
    from azure.core.exceptions import HttpResponseError, ServiceRequestError
    from marshmallow.exceptions import ValidationError

    try:
        with nullcontext() if sys.stderr.isatty() else redirect_stderr(_Plain(sys.stderr)):
            yield
    except HttpResponseError as error:
        raise _api_error(error) from error
    except ServiceRequestError as error:
        raise ClientError(f"The server can not be reached: {error.message}") from error
    except (MlException, ValidationError) as error:
        raise ClientError(tell(str(getattr(error, "message", None) or error))) from error


class _Plain(io.TextIOBase):
    """Standard error without the colours and blank lines that the SDK writes there."""

    def __init__(self, out: TextIO) -> None:
        self._out = out

    def write(self, text: str) -> int:
        without = ESCAPES.sub("", text)
        if without.strip():
            self._out.write(without)
        return len(text)


def _api_error(error: Any) -> ApiError:
    inner = getattr(error, "error", None)
    if inner is None or not getattr(inner, "message", None):
        return ApiError(error.status_code or 0, f"Http{error.status_code}", str(error.message).strip())
    details = [(str(detail.code or ""), str(detail.message or "")) for detail in inner.details or []]
    return ApiError(error.status_code or 0, str(inner.code or ""), inner.message, inner.target or "", details)


def overrides_of(assignments: tuple[str, ...], **named: Any) -> list[dict[str, Any]]:
    """``--set a.b=c`` and flags as the SDK's ``params_override``."""
    overrides: list[dict[str, Any]] = []
    for assignment in assignments:
        name, equals, value = assignment.partition("=")
        if not equals or not name.strip():
            raise click.UsageError(f"--set takes field=value, not '{assignment}'.")
        overrides.append({name.strip(): value})
    return overrides + [{name: value} for name, value in named.items() if value is not None]
