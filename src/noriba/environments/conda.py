"""Conda environment files: reading them, and saying the same to pip where that is sound. Pure.

Version specs follow conda's MatchSpec: https://docs.conda.io/projects/conda-build/en/stable/resources/package-spec.html
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache
from importlib import resources

import msgspec
import yaml
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version


class CondaDependency(msgspec.Struct, frozen=True, omit_defaults=True):
    """One conda package: ``channel::name version build``, the last three as written."""

    name: str
    version: str = ""
    build: str = ""
    channel: str = ""

    def __str__(self) -> str:
        channel = f"{self.channel}::" if self.channel else ""
        version = f" {self.version}" if self.version else ""
        return f"{channel}{self.name}{version}{' ' + self.build if self.build else ''}"

    def match_spec(self) -> str:
        """The same in MatchSpec's canonical bracket form, free of quirks of position."""
        fields = [f"version='{self.version}'"] if self.version else []
        fields += [f"build='{self.build}'"] if self.build else []
        fields += [f"channel='{self.channel}'"] if self.channel else []
        return f"{self.name}[{','.join(fields)}]" if fields else self.name


class CondaFile(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A conda environment file. ``pip`` holds the raw lines of its ``pip:`` list, None where it has none."""

    name: str = ""
    channels: tuple[str, ...] = ()
    dependencies: tuple[CondaDependency, ...] = ()
    pip: tuple[str, ...] | None = None
    variables: dict[str, str] = {}
    errors: tuple[str, ...] = ()


def read_conda_file(text: str) -> CondaFile:
    """Read the YAML text of a conda environment file. Problems are collected in ``errors``, not raised."""
    try:
        document = yaml.safe_load(text)
    except yaml.YAMLError as error:
        return CondaFile(errors=(f"the conda file is not valid YAML: {' '.join(str(error).split())}",))
    if not isinstance(document, dict):
        return CondaFile(errors=("the conda file must be a mapping with 'dependencies'",))
    dependencies: list[CondaDependency] = []
    pip: list[str] | None = None
    errors: list[str] = []
    entries = document.get("dependencies") or []
    if not isinstance(entries, list):
        return CondaFile(errors=("'dependencies' of the conda file must be a list",))
    for entry in entries:
        if isinstance(entry, str):
            try:
                dependencies.append(parse_match_spec(entry))
            except ValueError as error:
                errors.append(str(error))
        elif isinstance(entry, dict) and set(entry) == {"pip"}:
            lines = entry["pip"] or []
            pip = [*(pip or []), *([lines] if isinstance(lines, str) else [str(line) for line in lines])]
        elif entry is not None:
            errors.append(f"the conda file's dependency {entry!r} is neither a package nor a 'pip:' list")
    channels = document.get("channels") or []
    variables = document.get("variables") or {}
    return CondaFile(
        name=str(document.get("name") or ""),
        channels=tuple(str(channel) for channel in (channels if isinstance(channels, list) else [channels])),
        dependencies=tuple(dependencies),
        pip=None if pip is None else tuple(pip),
        variables={str(k): str(v) for k, v in variables.items()} if isinstance(variables, dict) else {},
        errors=tuple(errors),
    )


_NAME = r"[A-Za-z0-9_][A-Za-z0-9._-]*"


def parse_match_spec(text: str) -> CondaDependency:
    """Read ``channel::name=1.2=build``, ``name 1.2 build``, ``name>=1,<2``, ``name[version='>=1']``.

    Raises ``ValueError`` with a sentence for the user.
    """
    spec = text.split("#")[0].strip()
    channel, brackets = "", {}
    if "[" in spec and spec.endswith("]"):
        spec, _, inside = spec.partition("[")
        pairs = re.findall(r"(\w+)\s*=\s*(\"[^\"]*\"|'[^']*'|[^,\]]+)", inside[:-1])
        brackets = {key: value.strip().strip("'\"") for key, value in pairs}
    if "::" in spec:
        channel, _, spec = spec.rpartition("::")
        channel = channel.rstrip(":")
    match = re.fullmatch(rf"({_NAME})\s*(.*)", spec.strip())
    if match is None:
        raise ValueError(f"the conda file's dependency '{text}' has no package name")
    name, rest = match[1].lower(), match[2].strip()
    version, build = _split_version_build(rest)
    version, build = brackets.get("version", version), brackets.get("build", build)
    return CondaDependency(name, version.replace(" ", ""), build, brackets.get("channel", channel))


def _split_version_build(rest: str) -> tuple[str, str]:
    if not rest:
        return "", ""
    # "=1.2=build", "==1.2=build": a single '=' that follows a version starts the build string.
    match = re.fullmatch(r"(={1,2}[^=\s<>!~|,]+)=([^=]+)", rest)
    if match:
        return match[1], match[2].strip()
    if re.match(r"[\d*]", rest):  # "name 1.2 build": no operator, so the word after the version is the build
        words = rest.split(None, 1)
        if len(words) == 2 and not re.match(r"[<>=!~|,]", words[1]) and not words[0].endswith((",", "|")):
            return words[0], words[1].strip()
    return rest, ""


class Translation(msgspec.Struct, frozen=True):
    """A conda version spec in PEP 440; ``note`` says what got lost ('' where nothing did)."""

    specifier: str
    note: str = ""


def to_pep440(version: str) -> Translation:
    """Translate conda's version spec into a PEP 440 specifier set.

    ``=1.2`` and ``1.2*`` are conda's prefix matches, ``1.2`` and ``==1.2`` its exact ones. Of alternatives (``a|b``),
    which PEP 440 cannot say, the highest is kept: what it admits, the conda spec admits too. Raises ``ValueError``
    where there is no such specifier.
    """
    text = version.replace(" ", "")
    if text in ("", "*", "=*", "==*"):
        return Translation("")
    if "(" in text:
        raise ValueError(f"'{version}' nests alternatives")
    if "|" in text:
        parts = [part for part in text.split("|") if part]
        chosen = max(parts, key=_highest)
        return Translation(to_pep440(chosen).specifier, f"of '{version}' only '{chosen}' is asked")
    clauses = [_clause(part) for part in text.split(",") if part and part != "*"]
    return Translation(",".join(clause for clause in clauses if clause))


def _highest(part: str) -> Version:
    found = [Version(v) for v in re.findall(r"\d+(?:\.\d+)*", part)]
    # An open lower bound reaches above every exact alternative.
    if re.search(r"(^|,)>", part) and "<" not in part:
        return Version("999999")
    return max(found, default=Version("0"))


def _clause(clause: str) -> str:
    match = re.fullmatch(r"(===|==|!=|>=|<=|~=|=|>|<)?(.+)", clause)
    if match is None or match[2].startswith(("^", "=", "<", ">", "!", "~")):
        raise ValueError(f"'{clause}' has no counterpart in pip's version rules")
    operator, literal = match[1] or "==", match[2]
    prefix = operator == "="
    if literal.endswith("*"):
        literal, prefix = literal.rstrip("*").rstrip("."), prefix or operator in ("==", "!=")
        if not literal:
            return ""
    literal = literal.rstrip(".")
    try:
        parsed = Version(literal)
    except InvalidVersion:
        raise ValueError(f"'{clause}': '{literal}' is not a version by pip's rules") from None
    if parsed.local and operator not in ("=", "==", "!="):
        raise ValueError(f"'{clause}': pip cannot compare with the local version '{literal}'")
    if operator == "~=" and len(parsed.release) == 1:
        return f">={literal},=={literal}.*"
    operator = "==" if operator in ("=", "===") else operator
    # Prefix matches make sense on plain releases only: "=1.2rc1" is the release candidate itself.
    plain = not (parsed.is_prerelease or parsed.is_postrelease or parsed.local)
    result = f"{operator}{literal}{'.*' if prefix and plain and operator in ('==', '!=') else ''}"
    try:
        SpecifierSet(result)
    except InvalidSpecifier:
        raise ValueError(f"'{clause}' has no counterpart in pip's version rules") from None
    return result


class Mapping(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a conda package is to pip.

    ``requirement`` where PyPI has it; else ``dropped`` says why nothing is needed, ``program`` which executable of
    the node stands in, ``unprovidable`` why it cannot be had. ``note`` is the line for the build log.
    """

    conda: str
    requirement: str | None = None
    dropped: str | None = None
    program: str | None = None
    unprovidable: str | None = None
    note: str = ""


class _Table(msgspec.Struct, frozen=True):
    renamed: dict[str, str]
    dropped: dict[str, str]
    programs: dict[str, str]
    unprovidable: dict[str, str]
    dropped_patterns: dict[str, str]
    unprovidable_patterns: dict[str, str]


@cache
def _table() -> _Table:
    text = resources.files("noriba.environments").joinpath("data/conda_to_pypi.yaml").read_text("utf-8")
    return msgspec.convert(yaml.safe_load(text), _Table)


def map_dependency(dependency: CondaDependency) -> Mapping:
    """Say what a conda package is to pip, by the table in ``data/conda_to_pypi.yaml``.

    A name that the table does not know is taken to be the same on PyPI, as it is for nearly all Python packages;
    the table lists the names for which that would be wrong.
    """
    table, name, shown = _table(), dependency.name, str(dependency)
    if name == "pip":
        note = f"conda '{shown}' -> pip, its newest version (packages are installed by uv)"
        return Mapping(conda=shown, requirement="pip", note=note if dependency.version else "")
    reason = table.dropped.get(name) or _matching(table.dropped_patterns, name)
    if reason:
        return Mapping(conda=shown, dropped=reason, note=f"conda '{shown}' is left out: {reason}")
    if name in table.programs:
        return Mapping(conda=shown, program=table.programs[name], note="")
    reason = table.unprovidable.get(name) or _matching(table.unprovidable_patterns, name)
    if reason:
        return Mapping(conda=shown, unprovidable=reason)
    pypi = table.renamed.get(name, canonicalize_name(name))
    try:
        translation = to_pep440(dependency.version)
    except ValueError as error:
        return Mapping(conda=shown, unprovidable=str(error))
    requirement = f"{pypi}{translation.specifier}"
    details = [translation.note] if translation.note else []
    details += [f"build '{dependency.build}' is not considered"] if dependency.build else []
    note = f"conda '{shown}' -> PyPI '{requirement}'{' (' + '; '.join(details) + ')' if details else ''}"
    return Mapping(conda=shown, requirement=requirement, note=note)


def _matching(patterns: dict[str, str], name: str) -> str | None:
    return next((reason for pattern, reason in patterns.items() if re.fullmatch(pattern, name)), None)


def python_specifier(dependencies: Iterable[CondaDependency]) -> str:
    """The Python asked for, as a PEP 440 specifier ('' where none is). Raises ``ValueError``."""
    parts = [to_pep440(dep.version).specifier for dep in dependencies if dep.name == "python"]
    return ",".join(part for part in parts if part)


CHANNEL_ALIASES = {
    "defaults": "https://repo.anaconda.com/pkgs/main",
    "anaconda": "https://conda.anaconda.org/anaconda",
}


def channel_url(channel: str) -> str:
    """The address of a channel named in a conda file: a URL or path as it is, else a channel of anaconda.org."""
    if "://" in channel:
        return channel.rstrip("/")
    if channel.startswith("/"):
        return f"file://{channel.rstrip('/')}"
    return CHANNEL_ALIASES.get(channel, f"https://conda.anaconda.org/{channel}")
