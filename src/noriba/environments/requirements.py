"""pip's requirement lines, read without running pip. Pure; files named by ``-r`` come from a callable."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterable

import msgspec
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from noriba.environments.spec import PipOptions, merge

ReadFile = Callable[[str], str]
"""Text of a file by the name that a requirements file gives it. Raises ``FileNotFoundError``."""


class Requirements(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Requirement lines in order, the pip options found between them, and what was not understood."""

    lines: tuple[str, ...] = ()
    options: PipOptions = PipOptions()
    warnings: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()

    def then(self, other: Requirements) -> Requirements:
        """These, then the others; a repeated line counts once."""
        return Requirements(
            lines=merge(self.lines, other.lines),
            options=other.options.over(self.options),
            warnings=merge(self.warnings, other.warnings),
            errors=merge(self.errors, other.errors),
        )


_SINGLE = {"-i": "index_url", "--index-url": "index_url", "--pypi-url": "index_url"}
_MULTI = {
    "--extra-index-url": "extra_index_urls",
    "-f": "find_links",
    "--find-links": "find_links",
    "--trusted-host": "trusted_hosts",
    "--no-binary": "no_binary",
    "--only-binary": "only_binary",
}
_STRINGS = {"--cert": "cert", "--client-cert": "client_cert", "--proxy": "proxy"}
_FLAGS = {"--no-index": "no_index", "--pre": "pre"}
_IGNORED_FLAGS = {
    "--upgrade", "-U", "--no-cache-dir", "--no-cache", "--quiet", "-q", "-qq", "--verbose", "-v", "--user", "--force-reinstall",
    "--ignore-installed", "-I", "--no-input", "--disable-pip-version-check", "--no-warn-script-location", "--prefer-binary",
    "--break-system-packages", "--system", "--yes", "-y", "--no-build-isolation", "--require-hashes", "--no-deps", "--compile",
    "--no-compile", "--no-warn-conflicts", "--isolated", "--no-color", "--use-pep517",
}  # fmt: skip
_IGNORED_VALUES = {
    "--timeout", "--default-timeout", "--retries", "--progress-bar", "--upgrade-strategy", "--root-user-action", "--src",
    "--cache-dir", "--log", "--use-feature", "--use-deprecated", "--python-version", "--platform", "--hash",
    "--config-settings", "--global-option", "--install-option", "--exists-action",
}  # fmt: skip
_DROPPED_WITH_NOTE = {"--no-deps", "--no-build-isolation", "--require-hashes"}
_UNSUPPORTED_VALUES = {"--target", "-t", "--prefix", "--root", "--python", "-p"}


def read_requirements(text: str, read_file: ReadFile, origin: str = "requirements.txt") -> Requirements:
    """Read the text of a requirements file, following ``-r`` and ``-c``.

    Names in ``-r``/``-c`` are relative to ``origin``'s folder, as pip has it. Problems are collected, not raised.
    """
    return _read(text, read_file, origin, ())


def _read(text: str, read_file: ReadFile, origin: str, parents: tuple[str, ...]) -> Requirements:
    result = Requirements()
    for line in logical_lines(text):
        result = result.then(_read_line(line, read_file, origin, (*parents, origin)))
    return result


def logical_lines(text: str) -> list[str]:
    """Lines with continuations joined, comments and blank lines left out."""
    joined = re.sub(r"\\\r?\n", " ", text)
    lines = (re.sub(r"(^|\s)#.*$", "", line).strip() for line in joined.splitlines())
    return [line for line in lines if line]


def _read_line(line: str, read_file: ReadFile, origin: str, parents: tuple[str, ...]) -> Requirements:
    if not line.startswith("-"):
        requirement = re.split(r"\s+--hash[=\s]", line)[0].strip()
        return _one(requirement, origin)
    try:
        words = shlex.split(line)
    except ValueError as error:
        return Requirements(errors=(f"{origin}: cannot read the line {line!r} ({error})",))
    return read_arguments(words, read_file, origin, parents)


def read_arguments(
    words: Iterable[str], read_file: ReadFile, origin: str, parents: tuple[str, ...] = ()
) -> Requirements:
    """Read pip's arguments: a line of options of a requirements file, or what follows ``pip install``."""
    result = Requirements()
    queue = list(words)
    while queue:
        word = queue.pop(0)
        flag, has_value, value = word.partition("=") if word.startswith("--") else (word, "", "")
        if not word.startswith("--") and re.match(r"-[irfcetp].", word):  # -rfile, -fURL
            flag, has_value, value = word[:2], "=", word[2:]

        def take(flag: str = flag, has_value: str = has_value, value: str = value) -> str:
            return value if has_value else (queue.pop(0) if queue else "")

        if not word.startswith("-"):
            result = result.then(_one(word, origin))
        elif flag in ("-r", "--requirement", "-c", "--constraint"):
            result = result.then(_nested(flag, take(), read_file, origin, parents))
        elif flag in ("-e", "--editable"):
            path = take()
            note = f"{origin}: '{path}' is installed as a copy, not as an editable link"
            result = result.then(_one(path, origin)).then(Requirements(warnings=(note,)))
        elif flag in _MULTI:
            values = tuple(v for v in re.split(r"[\s,]+" if "binary" in flag else r"\s+", take()) if v)
            result = result.then(
                Requirements(options=msgspec.structs.replace(PipOptions(), **{_MULTI[flag]: values}))
            )
        elif flag in _SINGLE or flag in _STRINGS:
            field = _SINGLE.get(flag) or _STRINGS[flag]
            result = result.then(
                Requirements(options=msgspec.structs.replace(PipOptions(), **{field: take()}))
            )
        elif flag in _FLAGS:
            result = result.then(
                Requirements(options=msgspec.structs.replace(PipOptions(), **{_FLAGS[flag]: True}))
            )
        elif flag in _IGNORED_FLAGS:
            if flag in _DROPPED_WITH_NOTE:
                result = result.then(
                    Requirements(warnings=(f"{origin}: pip's option {flag} has no effect here",))
                )
        elif flag in _IGNORED_VALUES:
            take()
        elif flag in _UNSUPPORTED_VALUES:
            result = result.then(
                Requirements(errors=(f"{origin}: pip's option {flag} {take()} is not supported",))
            )
        else:
            result = result.then(Requirements(errors=(f"{origin}: unknown pip option {word}",)))
    return result


def _nested(flag: str, name: str, read_file: ReadFile, origin: str, parents: tuple[str, ...]) -> Requirements:
    path = name
    if not re.match(r"[a-z]+://|/", name) and "/" in origin:
        path = f"{origin.rsplit('/', 1)[0]}/{name}"
    if path in parents:
        return Requirements(errors=(f"{origin}: {flag} {name} includes itself",))
    try:
        text = read_file(path)
    except FileNotFoundError:
        return Requirements(errors=(f"{origin}: the file '{name}' named by {flag} is not there",))
    except UnicodeDecodeError:
        return Requirements(errors=(f"{origin}: the file '{name}' named by {flag} is not text",))
    inner = _read(text, read_file, path, (*parents, origin))
    if flag in ("-c", "--constraint"):
        options = msgspec.structs.replace(
            inner.options, constraints=merge(inner.options.constraints, inner.lines)
        )
        return Requirements(options=options, warnings=inner.warnings, errors=inner.errors)
    return inner


_URL = re.compile(r"(git|hg|svn|bzr)\+|[a-z][a-z0-9+.-]*://|file:")


def is_local_path(requirement: str) -> bool:
    """True for a requirement that is a folder or a file of this machine: ``.``, ``./pkg[extra]``, ``dist/x.whl``."""
    text = requirement.split(";")[0].strip()
    if _URL.match(text) or "@" in text:
        return False
    return text.startswith((".", "/", "~")) or "/" in text or bool(re.search(r"\.(whl|tar\.gz|zip)$", text))


def is_url(requirement: str) -> bool:
    """True for a bare URL or a version-control address."""
    return bool(_URL.match(requirement.strip()))


def _one(requirement: str, origin: str) -> Requirements:
    if is_url(requirement) or is_local_path(requirement):
        return Requirements(lines=(requirement,))
    try:
        Requirement(requirement)
    except InvalidRequirement:
        loosened = _repair(requirement)
        if loosened is not None:
            note = f"{origin}: '{requirement}' is read as '{loosened}'"
            return Requirements(lines=(loosened,), warnings=(note,))
        return Requirements(errors=(f"{origin}: '{requirement}' is not a requirement that pip understands",))
    return Requirements(lines=(requirement,))


def _repair(requirement: str) -> str | None:
    """Conda habits in pip lists: ``numpy=1.26`` (older pips took it), ``scipy==1.10.*.*`` and spaces."""
    match = re.fullmatch(r"([A-Za-z0-9._-]+(?:\[[^\]]*\])?)\s*=\s*([0-9][A-Za-z0-9.+!]*)(\.\*)?", requirement)
    if match is None:
        return None
    candidate = f"{match[1]}=={match[2]}{match[3] or ''}"
    try:
        Requirement(candidate)
    except InvalidRequirement:
        return None
    return candidate


def parse(requirement: str) -> Requirement | None:
    """The requirement as an object; None for paths, URLs and version-control addresses."""
    try:
        return Requirement(requirement)
    except InvalidRequirement:
        return None


def name_of(requirement: str) -> str | None:
    """The normalised package name (``scikit-learn``) of a requirement line, or None where the line has none."""
    parsed = parse(requirement)
    if parsed is not None:
        return canonicalize_name(parsed.name)
    match = re.search(r"[#&]egg=([A-Za-z0-9._-]+)", requirement)
    if match:
        return canonicalize_name(match[1])
    match = re.search(r"([A-Za-z0-9_.]+?)-[0-9][^/]*\.whl$", requirement)
    return canonicalize_name(match[1]) if match else None
