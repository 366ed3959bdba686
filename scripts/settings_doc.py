"""Write docs/settings.md from the declarations in noriba/settings.py: ``python scripts/settings_doc.py``."""

from __future__ import annotations

import ast
import inspect
import typing
from pathlib import Path
from typing import Any

import msgspec

from noriba import settings

FILE = Path(__file__).parent.parent / "docs" / "settings.md"

HEAD = """\
# Settings

<!-- Made by scripts/settings_doc.py from src/noriba/settings.py. -->

Every setting can be given in three places; the first that has it wins:

1. a flag of `noriba up`: `--port 9000`, or for any setting `--set server.port=9000`
2. the environment: `NORIBA_SERVER_PORT=9000`
3. `noriba.toml` in the home:

   ```toml
   [server]
   port = 9000
   ```

In flags and the environment, lists are written `a,b` and tables `a=1,b=2`. Values are checked when the server starts;
a mistake is one line that names it. The home itself is given with `--home` or `NORIBA_HOME`; by default it is `~/.noriba`.
"""


def render() -> str:
    """The whole page."""
    texts = _documentation()
    parts = [HEAD]
    for section in msgspec.structs.fields(settings.Settings):
        if not (isinstance(section.type, type) and issubclass(section.type, msgspec.Struct)):
            continue
        kind = section.type.__name__
        parts.append(f"## [{section.name}]\n")
        if texts.get((kind, "")):
            parts.append(f"{texts[kind, '']}\n")
        rows = ["| setting | values | default | |", "|---|---|---|---|"]
        for field in msgspec.structs.fields(section.type):
            text = texts.get((kind, field.name), "")
            rows.append(
                f"| `{section.name}.{field.name}` | {_values(field.type)} | {_default(field)} | {text} |"
            )
        parts.append("\n".join(rows) + "\n")
    return "\n".join(parts)


def _documentation() -> dict[tuple[str, str], str]:
    """(class, field) to the text that stands below the field's declaration; (class, "") to the class's own."""
    texts: dict[tuple[str, str], str] = {}
    for node in ast.parse(inspect.getsource(settings)).body:
        if not isinstance(node, ast.ClassDef):
            continue
        texts[node.name, ""] = " ".join((ast.get_docstring(node) or "").split())
        for before, after in zip(node.body, node.body[1:], strict=False):
            if (
                isinstance(before, ast.AnnAssign)
                and isinstance(before.target, ast.Name)
                and isinstance(after, ast.Expr)
                and isinstance(after.value, ast.Constant)
            ):
                text = " ".join(str(after.value.value).split())
                texts[node.name, before.target.id] = text.replace("``", "`").replace("|", "\\|")
    return texts


def _values(kind: Any) -> str:
    if typing.get_origin(kind) is typing.Literal:
        return ", ".join(f"`{value}`" for value in typing.get_args(kind))
    names = {str: "text", int: "whole number", float: "number", bool: "`true`, `false`"}
    if kind in names:
        return names[kind]
    return "table" if typing.get_origin(kind) is dict else "list"


def _default(field: Any) -> str:
    value = field.default_factory() if field.default is msgspec.NODEFAULT else field.default
    if value in ("", [], {}):
        return ""
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


if __name__ == "__main__":
    FILE.write_text(render())
    print(f"Wrote {FILE}")
