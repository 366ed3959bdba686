"""What a container image is, told by its name, for nodes that run no containers. Pure; the table is data."""

from __future__ import annotations

import re
from functools import cache
from importlib import resources

import msgspec
import yaml


class ImageReference(msgspec.Struct, frozen=True):
    """``registry/repository:tag@digest`` taken apart. ``repository`` keeps the registry unless it is docker.io."""

    repository: str
    tag: str = ""
    digest: str = ""


class ImageBase(msgspec.Struct, frozen=True, kw_only=True):
    """What stands in for an image: a curated environment, or a Python with packages.

    ``python`` is soft (''/``3.10``): the image's users seldom chose it. ``azureml`` images come with the clients
    that Azure ML's jobs rely on.
    """

    python: str = ""
    curated: str | None = None
    requirements: tuple[str, ...] = ()
    warning: str = ""
    azureml: bool = False


class _Rule(msgspec.Struct, frozen=True, kw_only=True):
    repository: str
    tag: str = ".*"
    python: str = ""
    curated: str | None = None
    requirements: tuple[str, ...] = ()
    warning: str = ""
    azureml: bool = False


def parse_image(image: str) -> ImageReference:
    """Take an image's name apart as docker does. ``docker.io/library/python:3.11`` is ``python`` with tag ``3.11``."""
    name, _, digest = image.strip().removeprefix("docker://").partition("@")
    head, colon, tag = name.rpartition(":")
    if not colon or "/" in tag:
        head, tag = name, ""
    head = re.sub(r"^(docker\.io|index\.docker\.io|registry-1\.docker\.io)/", "", head)
    return ImageReference(head.removeprefix("library/"), tag, digest)


@cache
def _rules() -> list[_Rule]:
    text = resources.files("noriba.environments").joinpath("data/images.yaml").read_text("utf-8")
    return msgspec.convert(yaml.safe_load(text), list[_Rule])


def recognise_image(image: str) -> ImageBase | None:
    """What stands in for ``image``, by the table in ``data/images.yaml``; None where it is unknown."""
    reference = parse_image(image)
    for rule in _rules():
        repository = re.fullmatch(rule.repository, reference.repository)
        tag = re.fullmatch(rule.tag, reference.tag)
        if repository is None or tag is None:
            continue
        groups = {**repository.groupdict(), **tag.groupdict()}

        def fill(template: str, groups: dict[str, str | None] = groups) -> str:
            return re.sub(r"\\g<(\w+)>", lambda match: groups.get(match[1]) or "", template)

        python = fill(rule.python)
        if re.fullmatch(r"3\d+", python):
            python = f"3.{python[1:]}"
        return ImageBase(
            python=python,
            curated=fill(rule.curated) if rule.curated else None,
            requirements=tuple(fill(line) for line in rule.requirements),
            warning=rule.warning,
            azureml=rule.azureml,
        )
    return None
