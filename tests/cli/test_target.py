"""Which server, user and workspace a command is for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from noriba.client.errors import NotFoundHere
from noriba.client.target import Place, find_target
from noriba.home import Credentials, Home, ServerInfo

URL = "https://127.0.0.1:8443"


@pytest.fixture
def made_home(tmp_path: Path) -> Path:
    """A home in which a server ran."""
    path = tmp_path / "home"
    home = Home(path)
    home.prepare()
    home.ca_file.write_text("ca")
    home.write_credentials(Credentials(user="u", secret="home-secret"))
    home.write_server(
        ServerInfo(
            pid=0,
            started_at=0,
            base_url=URL,
            version="1",
            engine="local",
            sizing="emulate",
            isolation="process",
            database="d",
            storage="s",
            subscription_id="home-sub",
            resource_group="home-group",
            workspace="home-ws",
        )
    )
    return path


def _environment(url: str = "https://other:1", **more: str) -> dict[str, str]:
    return {
        "ARM_CLOUD_METADATA_URL": f"{url}/metadata/endpoints?api-version=1",
        "MSI_ENDPOINT": f"{url}/msi/token",
        "MSI_SECRET": "environment-secret",
        **more,
    }


def test_the_home(made_home: Path, tmp_path: Path) -> None:
    target = find_target(environ={"NORIBA_HOME": str(made_home)}, folder=tmp_path)
    assert (target.base_url, target.secret) == (URL, "home-secret")
    assert target.ca_files == [made_home / "tls" / "ca.pem"]
    assert target.workspace_path == (
        "/subscriptions/home-sub/resourceGroups/home-group"
        "/providers/Microsoft.MachineLearningServices/workspaces/home-ws"
    )
    assert target.home_flag == ""


def test_the_environment_over_the_default_home(made_home: Path, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle.pem"
    bundle.write_text("x")
    environ = _environment(NORIBA_HOME=str(made_home), REQUESTS_CA_BUNDLE=str(bundle), SSL_CERT_FILE="/none")
    target = find_target(environ=environ, folder=tmp_path)
    assert (target.base_url, target.secret) == ("https://other:1", "environment-secret")
    assert target.ca_files == [bundle]
    assert target.home is None


def test_the_flag_over_the_environment(made_home: Path, tmp_path: Path) -> None:
    target = find_target(home=made_home, environ=_environment(HOME=str(tmp_path)), folder=tmp_path)
    assert (target.base_url, target.secret) == (URL, "home-secret")
    assert target.home_flag == f" --home {made_home}"


def test_names_of_another_server_s_shell_do_not_count(made_home: Path, tmp_path: Path) -> None:
    other = _environment(HOME=str(tmp_path), AZUREML_WORKSPACE_NAME="other", AZURE_SUBSCRIPTION_ID="other")
    target = find_target(home=made_home, environ=other, folder=tmp_path)
    assert (target.workspace, target.subscription_id) == ("home-ws", "home-sub")
    same = _environment(URL, HOME=str(tmp_path), AZUREML_WORKSPACE_NAME="second")
    assert find_target(home=made_home, environ=same, folder=tmp_path).workspace == "second"


def test_the_environment_of_the_home_s_server(made_home: Path, tmp_path: Path) -> None:
    target = find_target(environ=_environment(URL, NORIBA_HOME=str(made_home)), folder=tmp_path)
    assert target.home == made_home
    assert target.workspace == "home-ws"
    assert target.ca_files == [made_home / "tls" / "ca.pem"], "one certificate, not the whole bundle"


def test_the_secret_goes_nowhere_else(made_home: Path, tmp_path: Path) -> None:
    """A secret is not sent to whatever address another variable names."""
    environ = _environment(NORIBA_HOME=str(made_home), MSI_ENDPOINT="https://elsewhere/msi/token")
    assert find_target(environ=environ, folder=tmp_path).secret == "home-secret"


def test_workspace_by_flag_environment_file_home(made_home: Path, tmp_path: Path) -> None:
    deep = tmp_path / "project" / "src"
    deep.mkdir(parents=True)
    config = tmp_path / "project" / ".azureml" / "config.json"
    config.parent.mkdir()
    config.write_text(
        json.dumps(
            {"subscription_id": "file-sub", "resource_group": "file-group", "workspace_name": "file-ws"}
        )
    )
    environ = {"NORIBA_HOME": str(made_home)}
    from_file = find_target(environ=environ, folder=deep)
    assert (from_file.subscription_id, from_file.workspace) == ("file-sub", "file-ws")
    assert from_file.workspace_source == str(config)

    named = {
        **environ,
        "AZUREML_WORKSPACE_NAME": "env-ws",
        "AZURE_SUBSCRIPTION_ID": "env-sub",
        "AZURE_RESOURCE_GROUP": "env-group",
    }
    from_environment = find_target(environ=named, folder=deep)
    assert (from_environment.subscription_id, from_environment.resource_group) == ("env-sub", "env-group")
    assert from_environment.workspace == "env-ws"

    flagged = find_target(environ=named, folder=deep, named=Place(workspace="flag-ws"))
    assert (flagged.workspace, flagged.resource_group) == ("flag-ws", "env-group")

    # A subscription alone is often set for other tools: it does not choose a workspace.
    alone = find_target(environ={**environ, "AZURE_SUBSCRIPTION_ID": "azure"}, folder=tmp_path)
    assert (alone.subscription_id, alone.workspace) == ("home-sub", "home-ws")


def test_a_broken_config_file(made_home: Path, tmp_path: Path) -> None:
    config = tmp_path / ".azureml" / "config.json"
    config.parent.mkdir()
    config.write_text("{")
    with pytest.raises(NotFoundHere, match=r"config\.json can not be read"):
        find_target(environ={"NORIBA_HOME": str(made_home)}, folder=tmp_path)


def test_nothing(tmp_path: Path) -> None:
    with pytest.raises(
        NotFoundHere, match=f"No server runs in {tmp_path}/.noriba. Start one with: noriba up"
    ):
        find_target(environ={"HOME": str(tmp_path)}, folder=tmp_path)
