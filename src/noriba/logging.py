"""Structured logs: one JSON object a line, or text for reading. Secrets never get here (see ``redact``)."""

from __future__ import annotations

import logging
import sys
from collections.abc import MutableMapping
from typing import Any

import structlog

from noriba.settings import LogSettings

SECRET_NAMES = ("secret", "token", "password", "authorization", "sas", "sig", "key")


def redact(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Blank the values of fields that are named like secrets, in case one is ever passed."""
    for name in event:
        if name.lower() in SECRET_NAMES or name.lower().endswith(("_secret", "_token", "_password", "_sas")):
            event[name] = "***"
    return event


def configure_logging(settings: LogSettings) -> None:
    """Log to standard error as the settings say."""
    level = getattr(logging, settings.level.upper())
    renderer: Any = (
        structlog.processors.JSONRenderer()
        if settings.format == "json"
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            redact,
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(level=max(level, logging.WARNING), stream=sys.stderr, force=True)
