"""What official clients need in their environment to talk to a server (wire.md 1; documented in docs/cli.md)."""

from __future__ import annotations

import hashlib
import json
import re
import shlex
import ssl
from collections.abc import Iterable, Mapping
from pathlib import Path

import certifi

from noriba.client.target import Target
from noriba.files import write_private

UNSET = (
    "REGISTRY_DISCOVERY_ENDPOINT_URL",
    "REGISTRY_DISCOVERY_ENDPOINT_REGION",
    "AZUREML_DEV_URL_MFE",
    # Each of these makes DefaultAzureCredential sign in somewhere else first.
    "AZURE_TOKEN_CREDENTIALS",
    "AZURE_CLIENT_SECRET",
    "AZURE_CLIENT_CERTIFICATE_PATH",
    "AZURE_USERNAME",
    "AZURE_PASSWORD",
    "AZURE_FEDERATED_TOKEN_FILE",
    "IDENTITY_ENDPOINT",
    "IDENTITY_HEADER",
    "IDENTITY_SERVER_THUMBPRINT",
    "IMDS_ENDPOINT",
    # MLflow prefers these to a token.
    "MLFLOW_TRACKING_USERNAME",
    "MLFLOW_TRACKING_PASSWORD",
    "MLFLOW_TRACKING_INSECURE_TLS",
)
"""Variables that would lead clients elsewhere."""

PROXIES = ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")

_PEM = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)


def client_environment(
    target: Target, bundle: Path, environ: Mapping[str, str], *, token: str = ""
) -> dict[str, str]:
    """The variables to set. ``bundle`` is a file of certificates to trust, ``token`` one for MLflow."""
    variables = {
        "ARM_CLOUD_METADATA_URL": f"{target.base_url}/metadata/endpoints?api-version=2019-05-01",
        # The cloud's name in our metadata. A cloud chosen before would win over the metadata URL, and azureml-mlflow
        # takes the public one when none is named.
        "AZUREML_CURRENT_CLOUD": target.base_url.partition("://")[2] + "/ty/",
        "MSI_ENDPOINT": f"{target.base_url}/msi/token",
        "MSI_SECRET": target.secret,
        "REQUESTS_CA_BUNDLE": str(bundle),
        "SSL_CERT_FILE": str(bundle),
        "CURL_CA_BUNDLE": str(bundle),
        "AZURE_SUBSCRIPTION_ID": target.subscription_id,
        "AZURE_RESOURCE_GROUP": target.resource_group,
        "AZURE_RESOURCEGROUP_NAME": target.resource_group,
        "AZUREML_WORKSPACE_NAME": target.workspace,
        "MLFLOW_TRACKING_URI": target.base_url,
        "MLFLOW_TRACKING_SERVER_CERT_PATH": str(bundle),
    }
    if target.home is not None:
        variables["NORIBA_HOME"] = str(target.home)
    if token:
        variables["MLFLOW_TRACKING_TOKEN"] = token
    if any(environ.get(name) for name in PROXIES):
        for name in ("NO_PROXY", "no_proxy"):
            variables[name] = _with_host(environ.get(name, ""), target.base_url)
    return variables


def to_unset(environ: Mapping[str, str]) -> list[str]:
    """Which variables to clear."""
    return [name for name in UNSET if name in environ]


def _with_host(no_proxy: str, base_url: str) -> str:
    host = base_url.partition("://")[2].rsplit(":", 1)[0].strip("[]")
    listed = [part.strip() for part in no_proxy.split(",") if part.strip()]
    return ",".join(listed if host in listed else [*listed, host])


def certificate_bundle(folder: Path, ca_file: Path, environ: Mapping[str, str]) -> Path:
    """A file under ``folder`` with the CA and everything that was trusted before, so that nothing stops working.

    That is certifi's certificates, the system's, and those of the bundles that the environment names. Files with
    different content have different names: a shell that was set up earlier keeps its own.
    """
    known = dict.fromkeys(_blocks(_trusted_before(environ)))
    known.update(dict.fromkeys(_blocks([ca_file])))
    content = b"\n".join(known) + b"\n"
    file = folder / f"bundle-{hashlib.sha256(content).hexdigest()[:12]}.pem"
    if not file.exists():
        write_private(file, content)
    return file


def _trusted_before(environ: Mapping[str, str]) -> list[Path]:
    named = [environ.get(name) for name in ("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE", "CURL_CA_BUNDLE")]
    paths = [certifi.where(), ssl.get_default_verify_paths().openssl_cafile, *named]
    return list(dict.fromkeys(Path(path) for path in paths if path))


def _blocks(files: Iterable[Path]) -> list[bytes]:
    blocks: list[bytes] = []
    for file in files:
        if file.is_file():
            blocks += _PEM.findall(file.read_bytes())
    return blocks


def as_shell(variables: Mapping[str, str], unset: Iterable[str]) -> str:
    """Lines for ``eval`` in any POSIX shell."""
    lines = [f"export {name}={shlex.quote(value)}" for name, value in variables.items()]
    return "\n".join([*(f"unset {name}" for name in unset), *lines]) + "\n"


def as_dotenv(variables: Mapping[str, str]) -> str:
    """Lines for a ``.env`` file."""
    return "".join(f"{name}={_dotenv_value(value)}\n" for name, value in variables.items())


def _dotenv_value(value: str) -> str:
    if re.fullmatch(r"[A-Za-z0-9_./:@%+,=?&-]*", value):
        return value
    return json.dumps(value, ensure_ascii=False)


def workspace_config(target: Target) -> bytes:
    """``config.json`` as ``MLClient.from_config`` reads it."""
    document = {
        "subscription_id": target.subscription_id,
        "resource_group": target.resource_group,
        "workspace_name": target.workspace,
    }
    return json.dumps(document, indent=4).encode() + b"\n"
