"""``noriba env`` and ``noriba run``: the official clients find the server."""

from __future__ import annotations

import json
import shutil
import ssl
import subprocess
import sys
import time
from pathlib import Path

import jwt
import pytest

from noriba.client.environment import (
    as_dotenv,
    as_shell,
    certificate_bundle,
    client_environment,
    to_unset,
)
from noriba.client.target import Target
from tests.cli.conftest import Noriba, clean_environment, result, run_noriba
from tests.conftest import RESOURCE_GROUP, SUBSCRIPTION, WORKSPACE
from tests.server import ServerProcess

TARGET = Target(
    base_url="https://127.0.0.1:1",
    secret="s",
    ca_files=[],
    subscription_id="sub",
    resource_group="group",
    workspace="it's $(mine)",
)

USE_SDK = """
import os
from azure.ai.ml import MLClient
from azure.identity import DefaultAzureCredential

client = MLClient(
    DefaultAzureCredential(),
    os.environ["AZURE_SUBSCRIPTION_ID"],
    os.environ["AZURE_RESOURCE_GROUP"],
    os.environ["AZUREML_WORKSPACE_NAME"],
)
print("workspace:", client.workspaces.get(client.workspace_name).name)
print("configured:", MLClient.from_config(DefaultAzureCredential()).workspace_name)
"""


@pytest.mark.sdk
def test_eval_in_a_shell_then_the_sdk(server: ServerProcess, tmp_path: Path) -> None:
    """What the README says: ``eval "$(noriba env)"``, then a bare DefaultAzureCredential works."""
    (tmp_path / "use.py").write_text(USE_SDK)
    # Another identity and another cloud are set up in the user's shell; they must not get in the way.
    environ = clean_environment(
        AZURE_CLIENT_ID="x",
        AZURE_TENANT_ID="y",
        AZURE_CLIENT_SECRET="z",
        IDENTITY_ENDPOINT="http://127.0.0.1:9/",
        IDENTITY_HEADER="h",
        AZUREML_CURRENT_CLOUD="AzureChinaCloud",
        NORIBA_HOME=str(server.home.path),
        PYTHON=sys.executable,
    )
    script = 'set -eu; eval "$("$PYTHON" -m noriba.cli.main env --write-config)"; "$PYTHON" use.py'
    done = subprocess.run(
        ["sh", "-c", script],
        env=environ,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert f"workspace: {WORKSPACE}" in done.stdout
    assert f"configured: {WORKSPACE}" in done.stdout
    config = json.loads((tmp_path / ".azureml" / "config.json").read_text())
    assert config == {
        "subscription_id": SUBSCRIPTION,
        "resource_group": RESOURCE_GROUP,
        "workspace_name": WORKSPACE,
    }


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")
def test_curl_trusts_the_server(server: ServerProcess, noriba: Noriba) -> None:
    done = noriba("run", "--", "sh", "-c", 'curl -sS "$MLFLOW_TRACKING_URI/readyz"')
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"status": "ready"}


def test_json(server: ServerProcess, noriba: Noriba) -> None:
    variables = result(noriba("env", "--format", "json"))
    assert variables["ARM_CLOUD_METADATA_URL"].startswith(f"{server.url}/metadata/endpoints")
    assert variables["MSI_ENDPOINT"] == f"{server.url}/msi/token"
    assert variables["MLFLOW_TRACKING_URI"] == server.url
    assert variables["AZURE_SUBSCRIPTION_ID"] == SUBSCRIPTION
    assert variables["AZURE_RESOURCE_GROUP"] == variables["AZURE_RESOURCEGROUP_NAME"] == RESOURCE_GROUP
    assert variables["AZUREML_WORKSPACE_NAME"] == WORKSPACE
    bundle = variables["REQUESTS_CA_BUNDLE"]
    for name in ("SSL_CERT_FILE", "CURL_CA_BUNDLE", "MLFLOW_TRACKING_SERVER_CERT_PATH"):
        assert variables[name] == bundle
    claims = jwt.decode(variables["MLFLOW_TRACKING_TOKEN"], options={"verify_signature": False})
    assert claims["aud"] == server.url
    assert claims["exp"] - time.time() > 8 * 3600, "MLflow can not renew it: it must last a working day"


def test_run_passes_arguments_and_exit_code(noriba: Noriba) -> None:
    done = noriba("run", "sh", "-c", 'echo "$1"; exit 7', "sh", "--home")
    assert (done.returncode, done.stdout) == (7, "--home\n")
    missing = noriba("run", "--", "no-such-program")
    assert missing.returncode == 127
    assert missing.stderr == "noriba: There is no program 'no-such-program'.\n"


def test_without_any_server(tmp_path: Path) -> None:
    done = run_noriba("env", home=tmp_path / "none")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"noriba: No server runs in {tmp_path}/none. Start one with: noriba up\n"


def test_of_a_stopped_server(home: Path) -> None:
    assert run_noriba("up", "-d", "--port", "0", home=home).returncode == 0
    assert run_noriba("down", home=home).returncode == 0
    done = run_noriba("env", home=home)
    assert done.returncode == 0
    assert "MSI_SECRET" in done.stdout
    assert "MLFLOW_TRACKING_TOKEN" not in done.stdout
    assert "Start one with: noriba up" in done.stderr


def test_shell_quotes(tmp_path: Path) -> None:
    variables = client_environment(TARGET, tmp_path / "a b.pem", {})
    script = (
        as_shell(variables, ["AZURE_CLIENT_SECRET"])
        + 'printf "%s\\n" "$AZUREML_WORKSPACE_NAME" "$SSL_CERT_FILE"'
    )
    done = subprocess.run(["sh", "-euc", script], capture_output=True, text=True, check=True)
    assert done.stdout == f"it's $(mine)\n{tmp_path}/a b.pem\n"


def test_dotenv_quotes() -> None:
    assert as_dotenv({"A": "x", "B": 'two "words"'}) == 'A=x\nB="two \\"words\\""\n'


def test_proxies_are_passed_by() -> None:
    without = client_environment(TARGET, Path("b"), {"NO_PROXY": "x"})
    assert "NO_PROXY" not in without
    through = client_environment(TARGET, Path("b"), {"https_proxy": "http://proxy", "NO_PROXY": "x"})
    assert through["NO_PROXY"] == "x,127.0.0.1"
    assert through["no_proxy"] == "127.0.0.1"


def test_only_what_interferes_is_unset() -> None:
    assert to_unset({"PATH": "x", "AZURE_CLIENT_SECRET": "y"}) == ["AZURE_CLIENT_SECRET"]


def test_bundle_keeps_what_was_trusted(server: ServerProcess, tmp_path: Path) -> None:
    company = tmp_path / "company.pem"
    # Any certificate that certifi does not have.
    company.write_bytes(_other_certificate(tmp_path))
    environ = {"REQUESTS_CA_BUNDLE": str(company)}
    bundle = certificate_bundle(tmp_path / "tls", server.home.ca_file, environ)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(bundle)
    trusted = context.get_ca_certs(binary_form=True)
    for file in (company, server.home.ca_file):
        assert ssl.PEM_cert_to_DER_cert(file.read_text()) in trusted
    assert len(trusted) > 100, "certifi's are there too"
    # Run in a shell that was set up before: the same file.
    again = certificate_bundle(tmp_path / "tls", server.home.ca_file, {"REQUESTS_CA_BUNDLE": str(bundle)})
    assert again == bundle
    assert certificate_bundle(tmp_path / "tls", server.home.ca_file, {}) != bundle


def _other_certificate(folder: Path) -> bytes:
    import datetime as dt

    from noriba.identity.tls import Certificates

    other = Certificates(folder / "other")
    other.ensure(["localhost"], dt.datetime.now(dt.UTC))
    return other.ca_file.read_bytes()
