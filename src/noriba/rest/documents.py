"""Parts that documents and lists on the wire have in common (wire.md 3.1)."""

from __future__ import annotations

import datetime as dt
from typing import Any
from urllib.parse import urlencode

from noriba.models.errors import BadRequest
from noriba.rest.call import Call

PROVIDER = "Microsoft.MachineLearningServices"
PAGE_SIZE = 100
LARGEST_PAGE = 1000


def iso(at: float) -> str:
    """A time as clients want it: ``2026-11-23T00:00:00.000000Z``."""
    text = dt.datetime.fromtimestamp(at, dt.UTC).isoformat(timespec="microseconds")
    return text.replace("+00:00", "Z")


def system_data(created_at: float, created_by: str, modified_at: float | None = None) -> dict[str, Any]:
    """Who made a resource, and when it was made and changed."""
    return {
        "createdAt": iso(created_at),
        "createdBy": created_by,
        "createdByType": "User",
        "lastModifiedAt": iso(created_at if modified_at is None else modified_at),
        "lastModifiedBy": created_by,
        "lastModifiedByType": "User",
    }


def number_in_query(call: Call, name: str, default: int, *, largest: int = 2**31) -> int:
    """A positive number of the query, cut to ``largest``. Raises BadRequest when it is none."""
    text = call.query.get(name.lower())
    if not text:
        return default
    if not text.isdecimal() or not text.isascii() or int(text[:18]) < 1:
        raise BadRequest(f"'{name}' must be a positive number, not '{text[:50]}'.", target=name)
    return min(int(text[:18]), largest)


def flag_in_query(call: Call, name: str) -> bool | None:
    """A yes or no of the query; None when it is not there. Raises BadRequest for anything else."""
    text = call.query.get(name.lower())
    if text is None or text == "":
        return None
    if text.lower() not in ("true", "false"):
        raise BadRequest(f"'{name}' must be true or false, not '{text[:50]}'.", target=name)
    return text.lower() == "true"


def page_answer(call: Call, items: list[Any], skip: str | None, **changed: Any) -> dict[str, Any]:
    """A page of a list. ``skip`` is where the next one starts (None: this is the last), ``changed`` further query
    parameters that the next page's address gets."""
    answer: dict[str, Any] = {"value": items}
    if skip is not None:
        replaced = {"$skip", "$skiptoken", *(name.lower() for name in changed)}
        query = [
            (name, value)
            for name, value in call.request.query_params.multi_items()
            if name.lower() not in replaced
        ]
        query += [(name, str(value)) for name, value in changed.items()] + [("$skip", skip)]
        answer["nextLink"] = f"{call.services.base_url}{call.request.url.path}?{urlencode(query)}"
    return answer


def skip_of(call: Call) -> str | None:
    """Where the page starts that a nextLink asks for."""
    return call.query.get("$skip") or call.query.get("$skiptoken")


def bad_skip() -> BadRequest:
    """The error for a ``$skip`` that is not from a nextLink."""
    return BadRequest(
        "'$skip' must be taken from a nextLink.", code="InvalidContinuationToken", target="$skip"
    )
