"""Which interpreter an environment gets."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.specifiers import SpecifierSet

from noriba.environments.pythons import Interpreter, by_distance, choose, discover


def interpreter(version: str, missing: tuple[str, ...] = ()) -> Interpreter:
    return Interpreter(
        path=f"/py/{version}{'-' if missing else ''}",
        version=version,
        prefix=f"/py/{version}",
        missing=missing,
    )


NODE = [interpreter(v) for v in ("3.9.18", "3.11.2", "3.11.7", "3.12.1")]


@pytest.mark.parametrize(
    ("wanted", "version", "exact"),
    [
        ("==3.11.*", "3.11.7", True),
        ("==3.9.2", "3.9.18", True),
        ("==3.10.*", "3.11.7", False),
        ("==3.8.*", "3.9.18", False),
        ("==3.13.*", "3.12.1", False),
        (">=3.9,<3.11", "3.9.18", True),
        (">=3.10", "3.11.7", True),
        ("<3.9", "3.9.18", False),
        ("", "3.11.7", True),
    ],
)
def test_nearest_is_same_minor_then_newer_then_older(wanted: str, version: str, exact: bool) -> None:
    choice = choose(wanted, NODE, default="3.11")
    assert choice is not None
    assert (choice.interpreter.version, choice.exact) == (version, exact)


def test_complete_builds_are_preferred_to_newer_ones() -> None:
    crippled = interpreter("3.11.9", ("bz2",))
    choice = choose("==3.11.*", [*NODE, crippled])
    assert choice is not None
    assert choice.interpreter.version == "3.11.7"


def test_no_interpreter_at_all() -> None:
    assert choose("==3.11.*", []) is None


@given(
    st.lists(st.tuples(st.integers(8, 14), st.integers(0, 20)), min_size=1, max_size=6), st.integers(6, 15)
)
def test_an_exact_choice_satisfies_the_wish_and_none_is_missed(
    versions: list[tuple[int, int]], minor: int
) -> None:
    node = [interpreter(f"3.{a}.{b}") for a, b in versions]
    choice = choose(f"==3.{minor}.*", node)
    assert choice is not None
    fits = [i for i in node if SpecifierSet(f"==3.{minor}.*").contains(i.version)]
    assert choice.exact == bool(fits)
    if fits:
        assert choice.interpreter in fits
    assert by_distance(f"==3.{minor}.*", node)[0].minor == choice.interpreter.minor


def test_discovery_finds_this_interpreter_and_remembers(tmp_path: Path) -> None:
    cache = tmp_path / "cache" / "pythons.json"
    found = discover(cache)
    mine = f"{sys.version_info.major}.{sys.version_info.minor}"
    assert any(i.minor == mine and Path(sys.base_prefix) == Path(i.prefix) for i in found)
    assert discover(cache) == found
    cache.write_text("[cut")
    assert discover(cache) == found
    json.loads(cache.read_text())


def test_programs_that_only_look_like_python_are_left_out(tmp_path: Path) -> None:
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, script in (
        ("python3.10", "exit 3"),
        ("python3.9", "echo nonsense"),
        ("python3-config", "echo x"),
    ):
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)
    found = discover(None, env={"PATH": str(folder), "HOME": str(tmp_path)})
    assert not any(str(tmp_path) in i.path for i in found)
