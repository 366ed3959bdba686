"""pip's requirement lines and configuration, read without pip."""

from __future__ import annotations

import configparser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noriba.environments.pipconfig import read_pip_config, uv_arguments, uv_environment
from noriba.environments.requirements import (
    is_local_path,
    logical_lines,
    name_of,
    read_arguments,
    read_requirements,
)
from noriba.environments.spec import PipOptions


def reader(files: dict[str, str]):  # type: ignore[no-untyped-def]
    def read(name: str) -> str:
        if name not in files:
            raise FileNotFoundError(name)
        return files[name]

    return read


def test_a_requirements_file_with_everything() -> None:
    found = read_requirements(
        """
# comment
-i https://index.example/simple
--extra-index-url=https://extra.example/simple
-f ./wheels
-r more/other.txt
-c limits.txt
numpy==1.26 --hash=sha256:abc \\
    --hash=sha256:def
torch>=2 ; python_version >= "3.9"  # trailing
-e ./package
git+https://example.org/x.git@main#egg=thing
--pre
""",
        reader(
            {
                "more/other.txt": "six\n-r deeper.txt\n",
                "more/deeper.txt": "attrs\n",
                "limits.txt": "numpy<2\n",
            }
        ),
    )
    assert found.errors == ()
    assert found.lines == (
        "six",
        "attrs",
        "numpy==1.26",
        'torch>=2 ; python_version >= "3.9"',
        "./package",
        "git+https://example.org/x.git@main#egg=thing",
    )
    assert found.options == PipOptions(
        index_url="https://index.example/simple",
        extra_index_urls=("https://extra.example/simple",),
        find_links=("./wheels",),
        constraints=("numpy<2",),
        pre=True,
    )
    assert any("editable" in warning for warning in found.warnings)


@pytest.mark.parametrize(
    ("line", "part"),
    [
        ("-r missing.txt", "'missing.txt' named by -r is not there"),
        ("numpy=>1", "is not a requirement"),
        ("--target /somewhere", "--target /somewhere is not supported"),
        ("--frobnicate", "unknown pip option"),
        ("-r requirements.txt", "includes itself"),
    ],
)
def test_lines_that_are_wrong(line: str, part: str) -> None:
    found = read_requirements(line, reader({"requirements.txt": line}))
    assert part in " ".join(found.errors)


def test_condas_habits_in_pip_lists_are_read_with_a_note() -> None:
    found = read_requirements("numpy=1.26", reader({}))
    assert found.lines == ("numpy==1.26",)
    assert "is read as" in found.warnings[0]


def test_arguments_of_pip_install() -> None:
    found = read_arguments(
        ["--no-cache-dir", "-U", "pip", "torch", "--index-url", "https://x/whl", "-rlist.txt"],
        reader({"list.txt": "six"}),
        "RUN",
    )
    assert found.lines == ("pip", "torch", "six")
    assert found.options.index_url == "https://x/whl"


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("Scikit_Learn[extra]>=1", "scikit-learn"),
        ("git+https://h/x.git#egg=My.Pkg", "my-pkg"),
        ("https://h/dir/my_pkg-1.0-py3-none-any.whl", "my-pkg"),
        ("name @ https://h/x.zip", "name"),
        ("./folder", None),
    ],
)
def test_names(line: str, name: str | None) -> None:
    assert name_of(line) == name


@pytest.mark.parametrize(
    "line", [".", "./x", "../x", "/abs/x.whl", "dist/x-1.0-py3-none-any.whl", ".[extra]"]
)
def test_local_paths(line: str) -> None:
    assert is_local_path(line)


@pytest.mark.parametrize("line", ["numpy", "a @ file:///x.whl", "https://h/x.whl", "git+ssh://h/x.git"])
def test_what_is_no_local_path(line: str) -> None:
    assert not is_local_path(line)


@given(st.text(max_size=200))
def test_any_text_is_read_without_raising(text: str) -> None:
    found = read_requirements(text, reader({}))
    assert all("\n" not in line for line in found.lines)
    assert len(logical_lines(text)) >= 0


def test_pip_configuration_files_and_variables(tmp_path: Path) -> None:
    home = tmp_path / "home"
    (home / ".config" / "pip").mkdir(parents=True)
    (home / ".pip").mkdir()
    (home / ".pip" / "pip.conf").write_text("[global]\nindex-url = https://old/simple\ntimeout = 7\n")
    limits = tmp_path / "limits.txt"
    limits.write_text("numpy<2  # why\n\n")
    (home / ".config" / "pip" / "pip.conf").write_text(
        f"[global]\nindex-url = https://new/simple\nextra-index-url = https://a/simple\n  https://b/simple\n"
        f"[install]\nfind-links = /wheels\nconstraint = {limits}\ntrusted-host = a b\nno-index = false\n"
    )
    named = tmp_path / "named.conf"
    named.write_text("[global]\ncert = /ca.pem\n")
    env = {
        "XDG_CONFIG_DIRS": str(tmp_path / "none"),
        "PIP_CONFIG_FILE": str(named),
        "PIP_FIND_LINKS": "/other /third",
        "PIP_PRE": "yes",
    }
    # /etc/pip.conf of the machine may add to it: only what is set here is looked at.
    found = read_pip_config(env, home)
    assert found.index_url == "https://new/simple"
    assert found.extra_index_urls == ("https://a/simple", "https://b/simple")
    assert found.find_links == ("/other", "/third")
    assert found.constraints == ("numpy<2",)
    assert found.trusted_hosts == ("a", "b")
    assert found.cert == "/ca.pem"
    assert found.timeout_s == 7.0
    assert found.pre
    assert not found.no_index


def test_pip_configuration_can_be_switched_off(tmp_path: Path) -> None:
    (tmp_path / ".pip").mkdir()
    (tmp_path / ".pip" / "pip.conf").write_text("[global]\nindex-url = https://x\n")
    assert read_pip_config({"PIP_CONFIG_FILE": "/dev/null"}, tmp_path) == PipOptions()


def test_broken_pip_configuration_is_named(tmp_path: Path) -> None:
    named = tmp_path / "pip.conf"
    named.write_text("index-url = x\n")
    with pytest.raises(ValueError, match="malformed") as caught:
        read_pip_config({"PIP_CONFIG_FILE": str(named)}, tmp_path)
    assert not isinstance(caught.value, configparser.Error)
    with pytest.raises(ValueError, match="constraint file"):
        read_pip_config(
            {"PIP_CONFIG_FILE": "/dev/null", "PIP_CONSTRAINT": str(tmp_path / "none.txt")}, tmp_path
        )


def test_what_uv_is_told() -> None:
    options = PipOptions(
        index_url="https://i",
        extra_index_urls=("https://e",),
        find_links=("/w",),
        trusted_hosts=("h",),
        cert="/c",
        timeout_s=9.6,
    )
    arguments = " ".join(uv_arguments(options))
    assert arguments == (
        "--index-strategy unsafe-best-match --default-index https://i --index https://e --find-links /w --allow-insecure-host h"
    )
    assert uv_environment(options) == {"SSL_CERT_FILE": "/c", "UV_HTTP_TIMEOUT": "10"}
    assert "--no-index" in uv_arguments(PipOptions(no_index=True, extra_index_urls=("https://e",)))
    assert "https://e" not in uv_arguments(PipOptions(no_index=True, extra_index_urls=("https://e",)))


def test_options_of_a_file_go_over_those_of_the_node() -> None:
    node = PipOptions(index_url="https://node", find_links=("/node",), timeout_s=5)
    file = PipOptions(index_url="https://file", find_links=("/file",))
    assert file.over(node) == PipOptions(index_url="https://file", find_links=("/file", "/node"), timeout_s=5)
