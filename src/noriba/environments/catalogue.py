"""The curated environments: names that jobs may use without defining anything. Data in ``data/curated/*.yaml``."""

from __future__ import annotations

import re
from functools import cache
from importlib import resources

import msgspec
import yaml

from noriba.environments.spec import merge


class CuratedVariant(msgspec.Struct, frozen=True, kw_only=True):
    """The package set for one range of Python versions; ``python`` is ``3.10`` or a specifier (``>=3.11``).

    ``moved`` says, for the job's log, what differs from what the name promises and why ('' where nothing does).
    ``overrides`` are requirement lines that replace what packages demand of each other in their metadata.
    """

    python: str
    requirements: tuple[str, ...]
    moved: str = ""
    overrides: tuple[str, ...] = ()


class CuratedEnvironment(msgspec.Struct, frozen=True, kw_only=True):
    """A curated environment. The first variant is what the name promises; later ones stand in for it.

    ``versions`` are those that the listing shows (all mean the same content; the last is the latest).
    """

    name: str
    description: str
    versions: tuple[str, ...]
    image: str
    variants: tuple[CuratedVariant, ...]
    env: dict[str, str] = {}
    tags: dict[str, str] = {}
    aliases: tuple[str, ...] = ()

    @property
    def python(self) -> str:
        """The Python that the name promises, such as ``3.10``."""
        return self.variants[0].python

    @property
    def requirements(self) -> tuple[str, ...]:
        """The packages that the name promises, as pip requirement lines."""
        return self.variants[0].requirements

    @property
    def latest(self) -> str:
        """The latest version."""
        return self.versions[-1]

    @property
    def conda_file(self) -> str:
        """The promise as YAML text of a conda file, for the environment's document on the wire."""
        document = {
            "name": self.name,
            "channels": ["conda-forge"],
            "dependencies": [f"python={self.python}", "pip", {"pip": list(self.requirements)}],
        }
        return yaml.safe_dump(document, sort_keys=False)


class _Variant(msgspec.Struct, frozen=True, kw_only=True):
    python: str | tuple[str, ...]
    packages: tuple[str, ...]
    include: tuple[str, ...] | None = None
    moved: str = ""
    overrides: tuple[str, ...] = ()


class _Entry(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    description: str
    variants: tuple[_Variant, ...]
    latest: int = 1
    include: tuple[str, ...] = ()
    env: dict[str, str] = {}
    tags: dict[str, str] = {}
    aliases: tuple[str, ...] = ()


class _File(msgspec.Struct, frozen=True, kw_only=True):
    environments: tuple[_Entry, ...] = ()
    sets: dict[str, tuple[str, ...]] = {}


@cache
def _load() -> tuple[CuratedEnvironment, ...]:
    folder = resources.files("noriba.environments").joinpath("data/curated")
    files = [
        msgspec.convert(yaml.safe_load(path.read_text("utf-8")), _File)
        for path in sorted(folder.iterdir(), key=lambda path: path.name)
        if path.name.endswith(".yaml")
    ]
    sets = {name: lines for file in files for name, lines in file.sets.items()}
    return tuple(_environment(entry, sets) for file in files for entry in file.environments)


def _environment(entry: _Entry, sets: dict[str, tuple[str, ...]]) -> CuratedEnvironment:
    variants = tuple(
        CuratedVariant(
            python=python,
            requirements=merge(
                variant.packages,
                *(sets[name] for name in (entry.include if variant.include is None else variant.include)),
            ),
            moved=" ".join(variant.moved.split()),
            overrides=variant.overrides,
        )
        for variant in entry.variants
        for python in ([variant.python] if isinstance(variant.python, str) else variant.python)
    )
    return CuratedEnvironment(
        name=entry.name,
        description=" ".join(entry.description.split()),
        versions=tuple(str(number) for number in range(1, entry.latest + 1)),
        image=f"mcr.microsoft.com/azureml/curated/{_bare(entry.name)}:{entry.latest}",
        variants=variants,
        env=entry.env,
        tags=entry.tags,
        aliases=entry.aliases,
    )


def _bare(name: str) -> str:
    return name.lower().removeprefix("azureml-")


@cache
def _index() -> dict[str, CuratedEnvironment]:
    exact: dict[str, CuratedEnvironment] = {}
    for environment in _load():
        for name in (environment.name, *environment.aliases):
            exact.setdefault(name.lower(), environment)
    # "AzureML-sklearn-1.5" and "sklearn-1.5" are one unless both are listed.
    for environment in _load():
        for name in (environment.name, *environment.aliases):
            exact.setdefault(_bare(name), environment)
            exact.setdefault(f"azureml-{_bare(name)}", environment)
    return exact


def curated_environments() -> list[CuratedEnvironment]:
    """All curated environments, in the order of the data files."""
    return list(_load())


def find_curated(name: str, version: str | None = None) -> CuratedEnvironment | None:
    """The curated environment of that name, or None. Case does not matter, nor does the prefix ``AzureML-``.

    Every positive number is a version: jobs pin versions of a catalogue that moved on, and all numbers mean the
    same content here. ``latest`` and None are accepted; any other version gives None.
    """
    if version not in (None, "", "latest") and not re.fullmatch(r"[1-9]\d{0,5}", str(version)):
        return None
    return _index().get(name.lower())
