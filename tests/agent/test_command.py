"""Placeholders in commands."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noriba.agent.command import CommandError, expand

NAMES = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,8}", fullmatch=True)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("python a.py --x ${{inputs.x}} ${{ outputs.o }}", "python a.py --x 1 /out"),
        ("${{inputs.x}}${{inputs.x}}", "11"),
        ("${{inputs.folder.path}}", "/data"),
        ("${{inputs.group.lr}}", "0.1"),
        ("a $[[--opt ${{inputs.opt}}]] b", "a  b"),
        ("a $[[--opt ${{inputs.never}}]] b", "a  b"),
        ("a $[[--x ${{inputs.x}}]] b", "a --x 1 b"),
        ("$[[--x ${{inputs.x}} --opt ${{inputs.opt}}]]", ""),
        ("$[[plain]]", "plain"),
        ("$[[a\n${{inputs.x}}\n]]", "a\n1\n"),
        ("echo $HOME ${VAR} $((1+1)) $[1+1] {{x}}", "echo $HOME ${VAR} $((1+1)) $[1+1] {{x}}"),
        ("${{inputs.tricky}}", "${{inputs.x}} $[[y]]"),
        ("${{inputs.empty}}|", "|"),
    ],
)
def test_expansion(text: str, expected: str) -> None:
    inputs = {
        "x": "1", "folder": "/data", "group.lr": "0.1", "opt": None, "tricky": "${{inputs.x}} $[[y]]", "empty": "",
    }  # fmt: skip
    assert expand(text, inputs, {"o": "/out"}) == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("${{inputs.y}}", "no input 'y' was given (given: x)"),
        ("${{outputs.y}}", "no output 'y' was given (given: none)"),
        ("$[[${{outputs.y}}]]", "no output 'y'"),
        ("${{inputs.opt}}", "no input 'opt' was given"),
        ("${{search_space.lr}}", "${{search_space.lr}}, which means nothing here"),
        ("${{}}", "which means nothing here"),
    ],
)
def test_what_is_not_there_is_named(text: str, words: str) -> None:
    inputs = {"x": "1"} if "opt" not in text else {"x": "1", "opt": None}
    with pytest.raises(CommandError, match=re.escape(words)):
        expand(text, inputs, {})


@given(st.text())
def test_text_without_placeholders_is_left_alone(text: str) -> None:
    if "${{" not in text and "$[[" not in text:
        assert expand(text, {}, {}) == text


@given(
    st.lists(st.tuples(st.text(alphabet="ab $]{'\"", max_size=5), NAMES)), st.dictionaries(NAMES, st.text())
)
def test_values_are_taken_as_they_are(parts: list[tuple[str, str]], values: dict[str, str]) -> None:
    inputs = {name: values.get(name, name) for _, name in parts}
    parts = [(before.replace("$", ""), name) for before, name in parts]
    text = "".join(before + "${{inputs." + name + "}}" for before, name in parts)
    assert expand(text, inputs, {}) == "".join(before + inputs[name] for before, name in parts)


@given(st.dictionaries(NAMES, st.text(), min_size=1), NAMES)
def test_a_fragment_is_kept_just_when_all_its_inputs_are_given(
    given_inputs: dict[str, str], other: str
) -> None:
    name = next(iter(given_inputs))
    text = "a$[[ ${{inputs." + name + "}} ${{inputs." + other + "}} ]]z"
    expected = f"a {given_inputs[name]} {given_inputs[other]} z" if other in given_inputs else "az"
    assert expand(text, given_inputs, {}) == expected
