"""The SDK's complaints about a YAML file, told in lines that say which field is wrong and why. Pure functions.

The SDK nests JSON in the messages of JSON, and for a field that may be several things it lists what is wrong with
each; the first of those is the one that fits what was written.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator
from typing import Any

ESCAPES = re.compile(r"\x1b\[[0-9;]*m")
_ADVICE = re.compile(
    r"(?ims)^\s*(visit this link|the easiest way to author|if you are trying to configure|additional resources:"
    r"|if using the cli|for more details, see|resolutions:).*"
)
_DETAIL = re.compile(r"(?m)^\s*\(x\)\s*(.+)$")
MISSING = "Missing data for required field."
UNKNOWN = "Unknown field."


def tell(message: str) -> str:
    """What is wrong, without colours, JSON and the advice to read documentation elsewhere."""
    text = ESCAPES.sub("", message).strip()
    found = list(dict.fromkeys(_complaints(text)))
    if not found:
        details = [match.strip() for match in _DETAIL.findall(text)]
        if details:
            return "\n".join(details)
        lines = (line.strip() for line in _ADVICE.sub("", text).splitlines())
        return "\n".join(line for line in lines if line)
    missing = [field for field, what in found if what == MISSING]
    told: list[str] = []
    for field, what in found:
        near = difflib.get_close_matches(field, missing, n=1) if what == UNKNOWN else []
        hint = f" Did you mean {near[0]!r}?" if near else ""
        told.append(f"{field}: {what}{hint}" if field else f"{what}{hint}")
    if len(told) == 1:
        return told[0]
    return "\n".join(["The following is not right:", *(f"  - {line}" for line in told)])


def _complaints(text: str) -> Iterator[tuple[str, str]]:
    """(field, what is wrong with it) for everything in a message that has JSON in it."""
    document = _first_object(text)
    if document is None:
        return
    errors = document.get("errors")
    if not isinstance(errors, list):
        yield from _of_fields("", document)
        return
    for error in errors:
        if not isinstance(error, dict):
            continue
        inner = str(error.get("message") or "")
        path = str(error.get("path") or "").strip("*").strip(".")
        nested = list(_complaints(inner))
        yield from nested or [(path, " ".join(_ADVICE.sub("", inner).split()))]


def _of_fields(path: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for key, item in value.items():
            inner = path if key in ("_schema", "value") else f"{path}.{key}" if path else str(key)
            yield from _of_fields(inner, item)
    elif isinstance(value, list):
        if value and all(isinstance(item, dict) for item in value):
            fitting = [item for item in value if "cannot be a string" not in str(item)]
            yield from _of_fields(path, (fitting or value)[0])
        else:
            for item in value:
                yield from _of_fields(path, item)
    else:
        yield path, " ".join(str(value).split())


def _first_object(text: str) -> dict[str, Any] | None:
    decoder = json.JSONDecoder()
    for match in re.finditer(r"\{", text):
        try:
            found, _ = decoder.raw_decode(text, match.start())
        except json.JSONDecodeError:
            continue
        if isinstance(found, dict) and found:
            return found
    return None
