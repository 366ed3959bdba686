"""Settings: their documentation, and how text is read."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from noriba.settings import SettingsError, environment_name, fields, load_settings

ROOT = Path(__file__).parent.parent.parent


def test_documentation_is_current() -> None:
    specification = importlib.util.spec_from_file_location(
        "settings_doc", ROOT / "scripts" / "settings_doc.py"
    )
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    assert (ROOT / "docs" / "settings.md").read_text() == module.render(), (
        "run python scripts/settings_doc.py"
    )


def test_every_setting_is_documented() -> None:
    page = (ROOT / "docs" / "settings.md").read_text()
    for name in fields():
        row = next(line for line in page.splitlines() if line.startswith(f"| `{name}` |"))
        assert row.split(" | ")[-1].strip(" |"), f"{name} has no text below its declaration"


def test_order(tmp_path: Path) -> None:
    (tmp_path / "noriba.toml").write_text('[server]\nhost = "file"\nport = 1\nshutdown_grace_s = 1\n')
    environ = {"NORIBA_SERVER_HOST": "environment", "NORIBA_SERVER_PORT": "2"}
    loaded = load_settings(
        home=tmp_path,
        environ=environ,
        flags={"server.host": "flag", "server.port": None},
        defaults={"server.shutdown_grace_s": 9.0, "log.format": "text"},
    )
    assert loaded.server.host == "flag"
    assert loaded.server.port == 2
    assert loaded.server.shutdown_grace_s == 1.0
    assert loaded.log.format == "text"
    assert loaded.log.level == "info"


@pytest.mark.parametrize("source", ["flag", "environment"])
def test_lists_and_tables_as_text(tmp_path: Path, source: str) -> None:
    texts = {"server.names": "a, b,", "storage.options": "aws_region=x,k=a=b", "engine.keep_warm_s": "1.5"}
    if source == "flag":
        loaded = load_settings(home=tmp_path, environ={}, flags=texts)
    else:
        environ = {environment_name(name): text for name, text in texts.items()}
        loaded = load_settings(home=tmp_path, environ=environ)
    assert loaded.server.names == ["a", "b"]
    assert loaded.storage.options == {"aws_region": "x", "k": "a=b"}
    assert loaded.engine.keep_warm_s == 1.5


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (
            {"server.port": "many"},
            "Bad setting in the command line: Expected `int`, got `str` at `server.port`",
        ),
        ({"engine.sizing": "huge"}, "Invalid enum value 'huge' at `engine.sizing`"),
        ({"nothing.here": "x"}, "unknown field `nothing`"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, flags: dict[str, str], says: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings(home=tmp_path, environ={}, flags=flags)
    assert says in str(caught.value)
