"""The user's command line with its placeholders filled in (Azure ML's expression syntax). Pure.

``${{inputs.name}}`` and ``${{outputs.name}}`` stand for a literal's text or a path, ``$[[ … ]]`` for a part that is
left out when an input it mentions was not given. Text that is filled in is not looked at again.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

_EXPRESSION = r"\$\{\{(?P<expression>[^{}]*)\}\}"
_PIECE = re.compile(r"\$\[\[(?P<fragment>.*?)\]\]|" + _EXPRESSION, re.DOTALL)
_REFERENCE = re.compile(r"\s*(?P<kind>inputs|outputs)\.(?P<name>[^\s{}]+)\s*")


class CommandError(Exception):
    """The command names something that the job does not have. The message is for the user."""


class _Absent(Exception):
    """An input that was declared but not given."""


def expand(text: str, inputs: Mapping[str, str | None], outputs: Mapping[str, str]) -> str:
    """Fill in ``text``. An input that is None was not given.

    Raises ``CommandError`` for a name that is unknown, or not given and outside of ``$[[ … ]]``.
    """

    def reference(expression: str) -> str:
        match = _REFERENCE.fullmatch(expression)
        if match is None:
            raise CommandError(
                f"The command holds the expression ${{{{{expression}}}}}, which means nothing here. "
                "Use ${{inputs.NAME}} or ${{outputs.NAME}}."
            )
        kind = match["kind"]
        known: Mapping[str, str | None] = inputs if kind == "inputs" else outputs
        for name in (match["name"], match["name"].removesuffix(".path")):
            if name in known:
                value = known[name]
                if value is None:
                    raise _Absent(name)
                return value
        if kind == "inputs":
            raise _Absent(match["name"])
        raise CommandError(_unknown(kind, match["name"], outputs))

    def piece(match: re.Match[str]) -> str:
        if match["expression"] is not None:
            try:
                return reference(match["expression"])
            except _Absent as absent:
                raise CommandError(_unknown("inputs", str(absent), inputs)) from None
        try:
            return re.sub(_EXPRESSION, lambda inner: reference(inner["expression"]), match["fragment"])
        except _Absent:
            return ""

    return _PIECE.sub(piece, text)


def _unknown(kind: str, name: str, known: Mapping[str, str | None]) -> str:
    word = kind.removesuffix("s")
    have = ", ".join(sorted(known)) or "none"
    advice = f"; or put the part in $[[ … ]] if the {word} is optional" if kind == "inputs" else ""
    return (
        f"The command uses ${{{{{kind}.{name}}}}}, but no {word} '{name}' was given (given: {have}). "
        f"Add it to the job's {kind}, or correct the name{advice}."
    )
