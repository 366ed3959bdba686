"""What names and values MLflow's server accepts. All functions raise BadRequest (INVALID_PARAMETER_VALUE)."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import NoReturn

from noriba.tracking.errors import invalid, invalid_value, missing

MAX_KEY = 250
MAX_PARAM_VALUE = 6000
MAX_TAG_VALUE = 8000
MAX_EXPERIMENT_NAME = 500
MAX_EXPERIMENT_TAG_VALUE = 20_000
MAX_REGISTRY_TAG_VALUE = 100_000
MAX_ALIAS = 255
MAX_METRICS = 1000
MAX_PARAMS = 100
MAX_TAGS = 100
MAX_ENTITIES = 1000
MAX_DATASETS = 1000
MAX_DATASET_NAME = 500
MAX_DATASET_DIGEST = 36
MAX_DATASET_SOURCE = 65_535
MAX_DATASET_SCHEMA = 1_048_575
MAX_DATASET_PROFILE = 16_777_215
MAX_INT64 = 2**63 - 1

_NAME = re.compile(r"[/\w.\- :]*")
_RUN_ID = re.compile(r"[a-zA-Z0-9][\w\-]{0,255}")
_EXPERIMENT_ID = re.compile(r"[a-zA-Z0-9][\w\-]{0,63}")
_ALIAS = re.compile(r"[\w\-]*")
_VERSION_ALIAS = re.compile(r"[vV]\d+")
_BAD_CHARACTERS = (
    "Names may only contain alphanumerics, underscores (_), dashes (-), periods (.), spaces ( ), colon(:) and "
    "slashes (/)."
)


def check_name(name: str | None, path: str = "key") -> str:
    """The name of a metric, param or tag."""
    if not name:
        raise missing(path)
    if not _is_name(name):
        _refuse_name(name, path)
    return name


@lru_cache(maxsize=16_384)
def _is_name(name: str) -> bool:
    # Metrics have few names and many points.
    return (
        len(name) <= MAX_KEY
        and _NAME.fullmatch(name) is not None
        and posixpath.normpath(name) == name
        and not name.startswith(("..", "/"))
        and name != "."
    )


def _refuse_name(name: str, path: str) -> NoReturn:
    if _NAME.fullmatch(name) is None:
        raise invalid_value(path, name, _BAD_CHARACTERS)
    resolved = posixpath.normpath(name)
    if resolved != name or name.startswith(("..", "/")) or name == ".":
        raise invalid_value(
            path,
            name,
            "Names may be treated as files in certain cases, and must not resolve to other names when treated as "
            f"such. This name would resolve to '{resolved}'",
        )
    raise too_long(path, MAX_KEY)


def too_long(what: str, limit: int) -> Exception:
    """The error for a value of too many characters."""
    return invalid(f"'{what}' exceeds the maximum length of {limit} characters")


def check_length(what: str, value: str, limit: int) -> str:
    """Refuse values of more than ``limit`` characters."""
    if len(value) > limit:
        raise too_long(what, limit)
    return value


def check_param(key: str | None, value: str | None, path: str = "") -> tuple[str, str]:
    """A param's name and value; a value that is too long is cut, as MLflow does."""
    return check_name(key, f"{path}key"), (value or "")[:MAX_PARAM_VALUE]


def check_tag(key: str | None, value: str | None, path: str = "") -> tuple[str, str]:
    """A run tag's name and value; a value that is too long is cut, as MLflow does."""
    return check_name(key, f"{path}key"), (value or "")[:MAX_TAG_VALUE]


def check_timestamp(value: int | None, path: str = "timestamp") -> int:
    """Milliseconds since the epoch, not negative."""
    if value is None:
        raise missing(path)
    if not 0 <= value <= MAX_INT64:
        raise invalid_value(path, value, "Timestamp must be a nonnegative long (64-bit integer).")
    return value


def check_step(value: int, path: str = "step") -> int:
    """A step is any 64-bit integer."""
    if not -MAX_INT64 - 1 <= value <= MAX_INT64:
        raise invalid_value(path, value, "Step must be a valid long (64-bit integer).")
    return value


def check_run_id(run_id: str | None, path: str = "run_id") -> str:
    """The form of a run's id."""
    if not run_id:
        raise missing(path)
    if _RUN_ID.fullmatch(run_id) is None:
        raise invalid_value(path, run_id)
    return run_id


def check_experiment_id(experiment_id: str | None) -> str:
    """The form of an experiment's id."""
    if not experiment_id:
        raise missing("experiment_id")
    if _EXPERIMENT_ID.fullmatch(experiment_id) is None:
        raise invalid(f"Invalid experiment ID: '{experiment_id}'")
    return experiment_id


def check_experiment_name(name: str | None) -> str:
    """The name of an experiment."""
    if not name:
        raise invalid(f"Invalid experiment name: '{name or ''}'")
    return check_length("name", name, MAX_EXPERIMENT_NAME)


def check_experiment_tag(key: str | None, value: str | None) -> tuple[str, str]:
    """An experiment tag's name and value."""
    return check_name(key), check_length("value", value or "", MAX_EXPERIMENT_TAG_VALUE)


def check_batch(metrics: int, params: Sequence[tuple[str, str]], tags: int) -> None:
    """The limits of one log-batch call; params may name a key once only."""
    for what, limit, count in (
        ("metrics", MAX_METRICS, metrics),
        ("params", MAX_PARAMS, len(params)),
        ("tags", MAX_TAGS, tags),
        ("metrics, params, and tags", MAX_ENTITIES, metrics + len(params) + tags),
    ):
        if count > limit:
            raise invalid(
                f"A batch logging request can contain at most {limit} {what}. Got {count} {what}. "
                f"Please split up {what} across multiple requests and try again."
            )
    twice = duplicates(key for key, _ in params)
    if twice:
        raise invalid(
            f"Duplicate parameter keys have been submitted: {twice}. Please ensure the request contains only one "
            "param value per param key."
        )


def duplicates(names: Iterable[str]) -> list[str]:
    """Names that come more than once, in order."""
    seen: set[str] = set()
    twice: dict[str, None] = {}
    for name in names:
        if name in seen:
            twice[name] = None
        seen.add(name)
    return list(twice)


def check_model_name(name: str | None, path: str = "name") -> str:
    """The name of a registered model."""
    if name is None or not name.strip():
        raise missing(path)
    if "/" in name or ":" in name:
        raise invalid(f"Invalid model name '{name}'. Names cannot contain '/' or ':'.")
    resolved = posixpath.normpath(name)
    if resolved != name or name.startswith("..") or name == ".":
        raise invalid_value(path, name, f"This name would resolve to '{resolved}' when treated as a file.")
    return check_length(path, name, 256)


def check_logged_model_name(name: str) -> str:
    """The name of a logged model."""
    bad = ("/", ":", ".", "%", '"', "'")
    if not name or any(character in name for character in bad):
        raise invalid(
            f"Invalid model name ({name!r}) provided. Model name must be a non-empty string and cannot contain the "
            f"following characters: {bad}"
        )
    return check_length("name", name, MAX_KEY * 2)


def check_version(version: str | int | None) -> int:
    """The number of a model version."""
    if version is None or version == "":
        raise missing("version")
    try:
        number = int(version)
    except ValueError:
        raise invalid(f"Parameter 'version' must be an integer, got '{version}'.") from None
    if not 0 < number < 2**31:
        raise invalid(f"Parameter 'version' must be a positive integer, got '{version}'.")
    return number


def check_alias(alias: str | None, *, new: bool = False) -> str:
    """The name of a model alias; a new one may not be ``latest`` or look like a version (``v1``)."""
    if not alias:
        raise invalid("Registered model alias name cannot be empty.")
    if _ALIAS.fullmatch(alias) is None:
        raise invalid(
            f"Invalid alias name: '{alias}'. Names may only contain alphanumerics, underscores (_), and dashes (-)."
        )
    check_length("Registered model alias name", alias, MAX_ALIAS)
    if new and alias.lower() == "latest":
        raise invalid("'latest' alias name (case insensitive) is reserved.")
    if new and _VERSION_ALIAS.fullmatch(alias):
        raise invalid(f"Version alias name '{alias}' is reserved.")
    return alias


def check_registry_tag(key: str | None, value: str | None) -> tuple[str, str]:
    """A tag of a registered model or model version."""
    return check_name(key), check_length("value", value or "", MAX_REGISTRY_TAG_VALUE)


def check_max_results(value: int | None, *, default: int, limit: int) -> int:
    """How many results a search may give."""
    if value is None:
        return default
    if not 0 < value <= limit:
        raise invalid_value("max_results", value, f"It must be between 1 and {limit}.")
    return value
