"""MLTable files, as far as ``eval_*`` modes need them: which files the table is made of."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Any

from noriba.agent.transfer.errors import NotFound, Unsupported


def referenced_files(folder: Path) -> list[tuple[Path, PurePosixPath]]:
    """Files that the MLTable in ``folder`` names, with the path each gets in the evaluated folder.

    Raises ``NotFound`` without an MLTable file, ``Unsupported`` for paths that do not lie beside it.
    """
    import yaml  # only jobs with eval modes need it

    definition_file = folder / "MLTable"
    if not definition_file.is_file():
        raise NotFound("there is no file named MLTable in the folder, so it is no mltable")
    try:
        definition: Any = yaml.safe_load(definition_file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise Unsupported(f"its MLTable file is not valid YAML: {error}") from error
    paths = definition.get("paths") if isinstance(definition, dict) else None
    if not isinstance(paths, list) or not paths:
        raise Unsupported("its MLTable file has no 'paths'")
    found: dict[PurePosixPath, Path] = {}
    for entry in paths:
        for kind, value in entry.items() if isinstance(entry, dict) else []:
            for path in _matches(folder, str(kind), str(value)):
                found[PurePosixPath(path.relative_to(folder))] = path
    return [(path, name) for name, path in sorted(found.items())]


def _matches(folder: Path, kind: str, value: str) -> list[Path]:
    if "://" in value or value.startswith("/"):
        raise Unsupported(
            f"its MLTable file names {value!r}; only paths relative to the MLTable file can be evaluated here. "
            "Use mode direct and read it with the mltable library, or put the data beside the MLTable file"
        )
    if ".." in PurePosixPath(value).parts:
        raise Unsupported(f"its MLTable file names {value!r}, which lies outside of its folder")
    if kind == "pattern":
        return sorted(path for path in folder.glob(value.removeprefix("./")) if path.is_file())
    target = folder / value
    if kind == "file":
        if not target.is_file():
            raise NotFound(f"its MLTable file names {value!r}, which does not exist")
        return [target]
    if kind == "folder":
        if not target.is_dir():
            raise NotFound(f"its MLTable file names the folder {value!r}, which does not exist")
        return sorted(path for path in target.rglob("*") if path.is_file() and path.name != "MLTable")
    raise Unsupported(f"its MLTable file holds a path of kind {kind!r}; use file, folder or pattern")
