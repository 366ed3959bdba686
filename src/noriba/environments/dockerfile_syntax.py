"""The syntax of Dockerfiles and of the shell commands in them. Pure."""

from __future__ import annotations

import re
import shlex

import msgspec


class Instruction(msgspec.Struct, frozen=True):
    """One instruction: upper-case ``name``, its ``value`` with continuations joined, heredoc bodies appended."""

    name: str
    value: str
    line: int


def parse_dockerfile(text: str) -> list[Instruction]:
    """Split into instructions: escape directive, comments, continuations and heredocs as docker reads them."""
    escape = "`" if re.match(r"\s*#\s*escape\s*=\s*`", text) else "\\"
    lines = text.splitlines()
    result: list[Instruction] = []
    parts: list[str]
    index = 0
    while index < len(lines):
        start, parts, open_ended = index, [], True
        while open_ended and index < len(lines):
            line = lines[index].rstrip()
            index += 1
            if re.match(r"\s*(#.*)?$", line):  # comments and blank lines inside a continuation are skipped
                open_ended = bool(parts)
                continue
            open_ended = line.endswith(escape)
            parts.append(line[: -len(escape)] if open_ended else line)
        joined = " ".join(part.strip() for part in parts).strip()
        if not joined:
            continue
        name, _, value = joined.partition(" ")
        name = name.upper()
        if name in ("RUN", "COPY", "ADD"):
            for marker in re.findall(r"<<-?[\"']?(\w+)[\"']?", value):
                body = []
                while index < len(lines) and lines[index].strip() != marker:
                    body.append(lines[index])
                    index += 1
                index += 1
                value = re.sub(rf"<<-?[\"']?{marker}[\"']?", "", value).strip()
                if name == "RUN":
                    value = "\n".join([value, *body]).strip()
        result.append(Instruction(name, value.strip(), start + 1))
    return result


def split_words(text: str) -> list[str]:
    try:
        return shlex.split(text, posix=True)
    except ValueError:
        return text.split()


def split_commands(script: str) -> list[str]:
    """Cut a shell script at ``&&``, ``||``, ``;``, ``|`` and line ends outside quotes."""
    commands, current, quote, index = [], "", "", 0
    while index < len(script):
        char = script[index]
        if quote:
            quote = "" if char == quote else quote
        elif char in "\"'":
            quote = char
        elif char == "\\" and index + 1 < len(script):
            current += "" if script[index + 1] == "\n" else script[index : index + 2]
            index += 2
            continue
        elif char in ";|&\n":
            commands.append(current)
            current = ""
            index += 2 if script[index : index + 2] in ("&&", "||") else 1
            continue
        current += char
        index += 1
    return [command.strip() for command in [*commands, current] if command.strip()]
