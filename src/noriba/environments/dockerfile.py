"""Dockerfiles, read for what they say about Python. Pure, except that files of the context are read.

Without a container runtime a Dockerfile cannot be run. Most of those that training jobs bring do little more than
``FROM``, ``COPY requirements.txt``, ``RUN pip install``: these are understood. The rest is named, never ignored
in silence.
"""

from __future__ import annotations

import posixpath
import re
import shlex
from typing import Protocol

import msgspec

from noriba.environments.conda import CondaDependency, CondaFile, parse_match_spec, read_conda_file
from noriba.environments.dockerfile_syntax import Instruction, parse_dockerfile, split_commands, split_words
from noriba.environments.requirements import Requirements, is_local_path, read_arguments


class DockerfilePlan(msgspec.Struct, frozen=True, kw_only=True):
    """What a Dockerfile says, as far as it concerns Python.

    Local requirements (folders, wheels) are paths relative to the context, starting with a dot.
    """

    image: str
    requirements: Requirements = Requirements()
    conda: CondaFile = CondaFile()
    env: dict[str, str] = {}
    system_packages: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()


class Context(Protocol):
    """A build context's files, by paths relative to its root (``.`` is the root)."""

    def text(self, path: str) -> str | None:
        """The file's text; None where it is missing, a folder, or no text."""

    def exists(self, path: str) -> bool:
        """True for a file or folder of the context."""

    def is_folder(self, path: str) -> bool:
        """True for a folder of the context."""


_QUIET_COMMANDS = {
    "rm", "mkdir", "cd", "echo", "true", "set", "ls", "export", "ldconfig", "which", "cat", "pwd", "source", ".", ":", "find",
    "chmod", "chown", "touch", "test", "[", "exit", "update-ca-certificates", "locale-gen", "clear", "sync", "du", "df", "env",
}  # fmt: skip
_IGNORED_INSTRUCTIONS = {
    "LABEL", "MAINTAINER", "EXPOSE", "VOLUME", "STOPSIGNAL", "HEALTHCHECK", "ONBUILD", "SHELL", "USER", "CMD", "ENTRYPOINT",
}  # fmt: skip
# Variables that place things inside the image; here they would point nowhere.
_IMAGE_ONLY_VARIABLES = {
    "PATH", "PYTHONPATH", "LD_LIBRARY_PATH", "CONDA_PREFIX", "CONDA_DEFAULT_ENV", "VIRTUAL_ENV", "PYTHONHOME", "HOME",
    "AZUREML_CONDA_ENVIRONMENT_PATH", "CUDA_HOME", "MINICONDA_VERSION",
}  # fmt: skip


def read_dockerfile(text: str, context: Context) -> DockerfilePlan:
    """Understand a Dockerfile: its base image and what its final stage asks of pip and conda."""
    return _Reader(text, context).read()


class _Stage:
    """What is known of one build stage while it is read; a stage built on another starts as its copy."""

    def __init__(self, base: str, parent: _Stage | None) -> None:
        self.image: str = parent.image if parent else base
        self.workdir: str = parent.workdir if parent else "/"
        self.env: dict[str, str] = dict(parent.env) if parent else {}
        self.files: dict[str, str] = dict(parent.files) if parent else {}
        self.requirements: Requirements = parent.requirements if parent else Requirements()
        self.channels: list[str] = list(parent.channels) if parent else []
        self.conda: list[CondaDependency] = list(parent.conda) if parent else []
        self.variables: dict[str, str] = dict(parent.variables) if parent else {}
        self.system: list[str] = list(parent.system) if parent else []
        self.warnings: list[str] = list(parent.warnings) if parent else []
        self.errors: list[str] = list(parent.errors) if parent else []


class _Reader:
    def __init__(self, text: str, context: Context) -> None:
        self.instructions = parse_dockerfile(text)
        self.context = context
        self.arguments: dict[str, str] = {}
        self.stages: dict[str, _Stage] = {}
        self.stage: _Stage | None = None

    def read(self) -> DockerfilePlan:
        for instruction in self.instructions:
            self._apply(instruction)
        stage = self.stage
        if stage is None:
            return DockerfilePlan(image="", errors=("the Dockerfile has no FROM",))
        return DockerfilePlan(
            image=stage.image,
            requirements=stage.requirements,
            conda=CondaFile(
                channels=tuple(dict.fromkeys(stage.channels)),
                dependencies=tuple(dict.fromkeys(stage.conda)),
                variables=stage.variables,
            ),
            env={k: v for k, v in stage.env.items() if k not in _IMAGE_ONLY_VARIABLES},
            system_packages=tuple(dict.fromkeys(stage.system)),
            warnings=tuple(dict.fromkeys(stage.warnings)),
            errors=tuple(dict.fromkeys(stage.errors)),
        )

    def _apply(self, instruction: Instruction) -> None:
        name, value = instruction.name, instruction.value
        if name == "FROM":
            self._from(value)
        elif name == "ARG":
            self._argument(value)
        elif self.stage is None:
            return
        elif name == "ENV":
            self._env(value, self.stage)
        elif name == "WORKDIR":
            self.stage.workdir = posixpath.normpath(posixpath.join(self.stage.workdir, self._expand(value)))
        elif name in ("COPY", "ADD"):
            self._copy(instruction, self.stage)
        elif name == "RUN":
            _Run(self, self.stage, instruction.line).read(self._run_text(value))
        elif name not in _IGNORED_INSTRUCTIONS:
            self.stage.warnings.append(
                f"Dockerfile line {instruction.line}: {name} is not understood and left out"
            )

    def _expand(self, text: str) -> str:
        known = {**self.arguments, **(self.stage.env if self.stage else {})}

        def value(match: re.Match[str]) -> str:
            name, default = match[1] or match[3], match[2]
            found = known.get(name)
            if found is not None and not (default is not None and default.startswith("-") and found == ""):
                return found
            return default[1:] if default is not None and default.startswith("-") else ""

        return re.sub(r"\$\{(\w+)(?::([-+][^}]*))?\}|\$(\w+)", value, text)

    def _from(self, value: str) -> None:
        words = [word for word in self._expand(value).split() if not word.startswith("--")]
        base = words[0] if words else ""
        alias = words[2] if len(words) >= 3 and words[1].lower() == "as" else str(len(self.stages))
        self.stage = _Stage(base, self.stages.get(base.lower()))
        self.stages[alias.lower()] = self.stage

    def _argument(self, value: str) -> None:
        for word in split_words(value):
            name, given, default = word.partition("=")
            if given or name not in self.arguments:
                self.arguments[name] = self._expand(default)

    def _env(self, value: str, stage: _Stage) -> None:
        words = split_words(value)
        if words and "=" not in words[0]:  # the old form: ENV NAME the rest is the value
            name, _, rest = value.partition(" ")
            stage.env[name] = self._expand(rest.strip().strip("\"'"))
            return
        for word in words:
            name, _, given = word.partition("=")
            stage.env[name] = self._expand(given)

    def _copy(self, instruction: Instruction, stage: _Stage) -> None:
        value = instruction.value
        words = (
            split_words(value.strip("[]").replace('",', '" '))
            if value.startswith("[")
            else split_words(value)
        )
        source_stage = next((word.partition("=")[2] for word in words if word.startswith("--from=")), None)
        names = [self._expand(word) for word in words if not word.startswith("--")]
        if len(names) < 2:
            return
        *sources, target = names
        where = f"Dockerfile line {instruction.line}"
        if source_stage is not None:
            other = self.stages.get(source_stage.lower())
            if other is None:
                stage.warnings.append(f"{where}: files of the image '{source_stage}' are not copied")
            else:
                stage.requirements = stage.requirements.then(other.requirements)
                stage.conda.extend(other.conda)
            return
        folder = posixpath.normpath(posixpath.join(stage.workdir, target))
        for source in sources:
            if re.match(r"https?://|git@", source):
                stage.warnings.append(f"{where}: '{source}' is not downloaded")
                continue
            relative = posixpath.normpath(source.lstrip("/")) if source.strip("/") else "."
            into_folder = (
                target.endswith(("/", "/.")) or target in (".", "./") or len(sources) > 1 or relative == "."
            )
            path = folder
            if into_folder and not self.context.is_folder(relative):
                path = posixpath.join(folder, posixpath.basename(relative))
            stage.files[path] = relative

    def in_context(self, path: str, stage: _Stage) -> str | None:
        """The context's path behind a path inside the image, by the COPY instructions so far."""
        full = posixpath.normpath(posixpath.join(stage.workdir, path))
        best: tuple[int, str] | None = None
        for target, source in stage.files.items():
            if full == target:
                candidate = source
            elif full.startswith(target.rstrip("/") + "/"):
                candidate = posixpath.normpath(posixpath.join(source, full[len(target.rstrip("/")) + 1 :]))
            else:
                continue
            if self.context.exists(candidate) and (best is None or len(target) > best[0]):
                best = (len(target), candidate)
        return best[1] if best else None

    @staticmethod
    def _run_text(value: str) -> str:
        value = re.sub(r"^(--(mount|network|security)=\S+\s+)+", "", value)
        if value.startswith("["):  # exec form
            words = re.findall(r'"((?:[^"\\]|\\.)*)"', value)
            return (
                words[2]
                if words[:2] in (["/bin/bash", "-c"], ["bash", "-c"], ["/bin/sh", "-c"], ["sh", "-c"])
                else shlex.join(words)
            )
        return value


class _Run:
    """The shell commands of one RUN."""

    def __init__(self, reader: _Reader, stage: _Stage, line: int) -> None:
        self.reader, self.stage, self.where = reader, stage, f"Dockerfile line {line}"
        self.folder = stage.workdir

    def read(self, script: str) -> None:
        script = re.sub(r"\d?>&\d|&>\s*\S+|\d?>\s*/dev/\w+", " ", script)
        for command in split_commands(script):
            self._command(command)

    def _command(self, command: str) -> None:
        try:
            words = shlex.split(self.reader._expand(command), comments=True)
        except ValueError:
            self._unknown(command)
            return
        while words and (
            words[0] in ("sudo", "-E", "exec", "time", "then", "do", "else") or re.match(r"\w+=", words[0])
        ):
            words.pop(0)
        if not words:
            return
        if (
            words[0] in ("bash", "sh", "/bin/bash", "/bin/sh")
            and len(words) >= 3
            and words[1] in ("-c", "-lc", "-ec")
        ):
            self.read(words[2])
            return
        if (
            posixpath.basename(words[0]) in ("conda", "mamba", "micromamba")
            and len(words) > 1
            and words[1] == "run"
        ):
            words = _after_conda_run(words)
            if not words:
                return
        program = posixpath.basename(words[0])
        if re.fullmatch(r"python(3(\.\d+)?)?", program) and words[1:3] in (["-m", "pip"], ["-mpip"]):
            words, program = ["pip", *words[3:]], "pip"
        if program == "uv" and len(words) > 1 and words[1] == "pip":
            words, program = words[1:], "pip"
        if re.fullmatch(r"pip(3(\.\d+)?)?", program):
            self._pip(words[1:], command)
        elif program in ("conda", "mamba", "micromamba"):
            self._conda(words[1:], command)
        elif program in ("apt-get", "apt", "apk", "yum", "dnf", "microdnf", "tdnf", "zypper"):
            self._system(words[1:])
        elif program == "cd" and len(words) > 1:
            self.folder = posixpath.normpath(posixpath.join(self.folder, words[1]))
        elif program not in _QUIET_COMMANDS:
            self._unknown(command)

    def _unknown(self, command: str) -> None:
        shown = " ".join(command.split())
        self.stage.warnings.append(
            f"{self.where}: '{shown[:100]}{'…' if len(shown) > 100 else ''}' is not run"
        )

    def _text(self, path: str) -> str:
        found = self.reader.in_context(posixpath.join(self.folder, path), self.stage)
        text = self.reader.context.text(found) if found is not None else None
        if text is None:
            raise FileNotFoundError(path)
        return text

    def _pip(self, words: list[str], command: str) -> None:
        verb = next((word for word in words if not word.startswith("-")), "")
        if verb in ("cache", "config", "list", "freeze", "check", "show", "--version"):
            return
        if verb != "install":
            self._unknown(command)
            return
        arguments = words[words.index("install") + 1 :]
        found = read_arguments(arguments, self._text, self.where)
        lines, errors = [], list(found.errors)
        for line in found.lines:
            if is_local_path(line):
                inside, extras = re.match(r"([^\[;]*)(.*)", line).groups()  # type: ignore[union-attr]
                local = self.reader.in_context(posixpath.join(self.folder, inside.strip()), self.stage)
                if local is None:
                    errors.append(f"{self.where}: '{line}' is not a file of the build context")
                    continue
                line = f"./{local}{extras}" if local != "." else f".{extras}"
            lines.append(line)
        found = msgspec.structs.replace(found, lines=tuple(lines), errors=tuple(errors))
        self.stage.requirements = self.stage.requirements.then(found)

    def _conda(self, words: list[str], command: str) -> None:
        verb = [word for word in words if not word.startswith("-")][:2]
        if (
            verb[:1] in (["clean"], ["config"], ["init"], ["info"], ["list"], ["activate"], ["update"])
            and "-f" not in words
        ):
            if verb[:1] == ["update"]:
                self._unknown(command)
            return
        if verb[:1] == ["env"]:
            file = _option(words, "-f", "--file") or "environment.yml"
            try:
                conda = read_conda_file(self._text(file))
            except FileNotFoundError:
                self.stage.errors.append(f"{self.where}: '{file}' is not a file of the build context")
                return
            self._add_conda_file(conda)
        elif verb[:1] in (["install"], ["create"]):
            self._conda_packages(words[words.index(verb[0]) + 1 :])
        else:
            self._unknown(command)

    def _add_conda_file(self, conda: CondaFile) -> None:
        self.stage.channels.extend(conda.channels)
        self.stage.conda.extend(conda.dependencies)
        self.stage.variables.update(conda.variables)
        self.stage.errors.extend(conda.errors)
        if conda.pip:
            read = Requirements()
            for line in conda.pip:
                read = read.then(read_arguments(_requirement_words(line), self._text, self.where))
            self.stage.requirements = self.stage.requirements.then(read)

    def _conda_packages(self, words: list[str]) -> None:
        queue = list(words)
        while queue:
            word = queue.pop(0)
            flag, has_value, value = word.partition("=") if word.startswith("--") else (word, "", "")
            if flag in ("-c", "--channel"):
                self.stage.channels.append(value if has_value else queue.pop(0) if queue else "")
            elif flag in ("-n", "--name", "-p", "--prefix", "--solver"):
                if not has_value and queue:
                    queue.pop(0)
            elif flag == "--file":
                name = value if has_value else queue.pop(0) if queue else ""
                try:
                    queue = self._text(name).split("\n") + queue
                except FileNotFoundError:
                    self.stage.errors.append(f"{self.where}: '{name}' is not a file of the build context")
            elif not word.startswith("-") and word.strip() and not word.startswith("#"):
                try:
                    self.stage.conda.append(parse_match_spec(word))
                except ValueError as error:
                    self.stage.errors.append(f"{self.where}: {error}")

    def _system(self, words: list[str]) -> None:
        names = [word for word in words if not word.startswith("-") and "=" not in word]
        if names[:1] in (["install"], ["add"]):
            self.stage.system.extend(names[1:])


def _requirement_words(line: str) -> list[str]:
    return shlex.split(line) if line.startswith("-") else [line]


def _option(words: list[str], *flags: str) -> str | None:
    for index, word in enumerate(words):
        for flag in flags:
            if word == flag and index + 1 < len(words):
                return words[index + 1]
            if word.startswith(f"{flag}="):
                return word.partition("=")[2]
    return None


def _after_conda_run(words: list[str]) -> list[str]:
    rest = words[2:]
    while rest and rest[0].startswith("-"):
        flag = rest.pop(0)
        if flag in ("-n", "--name", "-p", "--prefix", "--cwd") and rest:
            rest.pop(0)
    return rest
