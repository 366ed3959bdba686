"""What the commands share: options, errors, output."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noriba.cli.framework import _spread
from noriba.cli.job import changes_of, view_of
from noriba.cli.main import COMMANDS, main
from noriba.cli.output import _plain_table, as_tsv, as_yaml
from tests.cli.conftest import Noriba, clean_environment, run_noriba


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (["--set", "a=1", "b=2"], ["--set", "a=1", "--set", "b=2"]),
        (["--set", "a=1", "b=2", "-n", "x"], ["--set", "a=1", "--set", "b=2", "-n", "x"]),
        (["--set", "a=1", "--set", "b=2"], ["--set", "a=1", "--set", "b=2"]),
        (["-n", "x", "y"], ["-n", "x", "y"]),
        (["--set=a=1", "b=2"], ["--set=a=1", "b=2"]),
        (["--set", "a=1", "--", "b=2"], ["--set", "a=1", "--", "b=2"]),
    ],
)
def test_repeatable_options_take_several_values(args: list[str], expected: list[str]) -> None:
    assert _spread(args, {"--set"}) == expected


@given(st.lists(st.text(max_size=5)))
def test_other_options_are_left_alone(args: list[str]) -> None:
    assert _spread(args, {"--no-such-option-is-generated"}) == args


def test_every_command_has_help() -> None:
    from click.testing import CliRunner

    runner = CliRunner()
    top = runner.invoke(main, ["--help"])
    assert top.exit_code == 0
    for name, (_, text) in COMMANDS.items():
        assert name in top.output
        assert text.split(".")[0].split(":")[0][:40] in top.output
        command = main.get_command(None, name)  # type: ignore[arg-type]
        assert command is not None
        for verb in getattr(command, "commands", {}):
            shown = runner.invoke(main, [name, verb, "--help"])
            assert shown.exit_code == 0, (name, verb, shown.output)
            described = shown.output.split("Options:")[0].splitlines()[2:]
            assert any(line.strip() for line in described), f"noriba {name} {verb} does not say what it does"


def test_usage_errors() -> None:
    for arguments, says in (
        (["jbo"], "No such command 'jbo'. Did you mean 'job'?"),
        (["job", "shwo"], "Did you mean 'show'?"),
        (["job", "show"], "Missing option '--name'"),
        (["job", "list", "--no-such"], "No such option"),
        (["job", "list", "-o", "xml"], "Invalid value for '--output'"),
    ):
        done = run_noriba(*arguments)
        assert done.returncode == 2, arguments
        assert says in done.stderr


def test_errors_of_the_server(noriba: Noriba) -> None:
    done = noriba("job", "show", "-n", "no-such-job")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "noriba: There is no job 'no-such-job' in this workspace. See the existing ones with: noriba job list\n"
        "  code: ResourceNotFound, target: job\n"
    )
    debugged = noriba("job", "show", "-n", "no-such-job", "--debug")
    assert debugged.returncode == 1
    assert "Traceback" in debugged.stderr


def test_a_workspace_that_is_not_there(noriba: Noriba) -> None:
    done = noriba("job", "list", AZUREML_WORKSPACE_NAME="elsewhere")
    assert done.returncode == 1
    assert "There is no workspace 'elsewhere'" in done.stderr
    assert "(The workspace was named by AZUREML_WORKSPACE_NAME.)" in done.stderr


def test_no_server(tmp_path_factory: pytest.TempPathFactory) -> None:
    home = tmp_path_factory.mktemp("none")
    done = run_noriba("job", "list", home=home)
    assert (done.returncode, done.stderr) == (
        1,
        f"noriba: No server runs in {home}. Start one with: noriba up\n",
    )
    closed = "https://127.0.0.1:1"
    done = run_noriba(
        *("job", "list"),
        home=home,
        ARM_CLOUD_METADATA_URL=f"{closed}/metadata/endpoints",
        MSI_ENDPOINT=f"{closed}/msi/token",
        MSI_SECRET="s",
    )
    assert done.returncode == 1
    assert (
        done.stderr
        == f"noriba: No server answers at {closed}: Connection refused. Start one with: noriba up\n"
    )


def test_query(noriba: Noriba) -> None:
    assert noriba("job", "list", "--query", "length(@)").returncode == 0
    bad = noriba("job", "list", "--query", "[")
    assert bad.returncode == 2
    assert "--query is not valid JMESPath" in bad.stderr


def test_completion_scripts() -> None:
    for shell in ("bash", "zsh", "fish"):
        done = run_noriba("completion", shell)
        assert done.returncode == 0
        assert "_NORIBA_COMPLETE" in done.stdout
    completed = subprocess.run(
        [sys.executable, "-c", "from noriba.cli.main import main; main(prog_name='noriba')"],
        env=clean_environment(_NORIBA_COMPLETE="bash_complete", COMP_WORDS="noriba job s", COMP_CWORD="2"),
        capture_output=True,
        text=True,
        check=False,
    )
    words = completed.stdout
    assert "plain,show" in words.splitlines()


def test_tsv() -> None:
    data = [{"a": 1, "b": None, "c": {"x": 1}, "d": [1, 2], "e": True, "f": "x\ty\nz"}, ["p", "q"], "r"]
    assert as_tsv(data) == "1\t\t\t2\ttrue\tx y z\np\tq\nr\n"


def test_yaml_keeps_order_and_letters() -> None:
    assert as_yaml({"b": "é", "a": [1]}) == "b: é\na:\n- 1\n"


def test_plain_table() -> None:
    assert _plain_table(["A", "Bb"], [["long", ""], ["", "x"]]) == "A     Bb\n----  --\nlong\n      x\n"
    assert _plain_table(["A"], []) == "A\n-\n"


def test_what_update_can_change() -> None:
    changes = changes_of(("display_name=a=b", "tags.x=1", "tags.y.z=2", "properties.p="))
    assert changes == {"displayName": "a=b", "tags": {"x": "1", "y.z": "2"}, "properties": {"p": ""}}


def test_views() -> None:
    assert [view_of(False, False), view_of(True, False), view_of(False, True), view_of(True, True)] == [
        "ActiveOnly",
        "ArchivedOnly",
        "All",
        "ArchivedOnly",
    ]
