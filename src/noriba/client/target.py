"""Which server, user and workspace a command is for.

Server and user, first that is there: ``--home``; the environment (as ``noriba env`` sets it); ``NORIBA_HOME`` or the
default home. Workspace: flags; the environment; ``.azureml/config.json`` here or in a folder above; the workspace
that the home started with.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec

from noriba.client.errors import NotFoundHere
from noriba.home import Home
from noriba.settings import default_home


class Target(msgspec.Struct, kw_only=True, frozen=True):
    """Where commands go. ``workspace_source`` says who named the workspace, for messages."""

    base_url: str
    secret: str
    ca_files: list[Path]
    subscription_id: str
    resource_group: str
    workspace: str
    workspace_source: str = ""
    home: Path | None = None
    home_flag: str = ""
    """What to add to a command line so that it means the same home."""

    @property
    def workspace_path(self) -> str:
        """Path of the workspace in the API."""
        return f"{self.group_path}/providers/Microsoft.MachineLearningServices/workspaces/{self.workspace}"

    @property
    def group_path(self) -> str:
        """Path of the resource group in the API."""
        return f"/subscriptions/{self.subscription_id}/resourceGroups/{self.resource_group}"


class Place(msgspec.Struct, frozen=True):
    """A workspace named by ``source``; empty parts are not named."""

    subscription_id: str = ""
    resource_group: str = ""
    workspace: str = ""
    source: str = ""


def find_target(
    *,
    home: Path | None = None,
    named: Place | None = None,
    environ: Mapping[str, str] | None = None,
    folder: Path | None = None,
) -> Target:
    """Decide from flags, environment and files. Raises NotFoundHere when nothing leads to a server."""
    environ = os.environ if environ is None else environ
    named = named or Place()
    set_up = _server_in(environ)
    from_environment = None if home is not None else set_up
    path = (home or default_home(environ)).absolute()
    base = Place()
    home_flag = "" if path == default_home(environ) else f" --home {path}"
    if from_environment is not None:
        base_url, secret = from_environment
        # The home's own CA is one certificate, an environment's bundle hundreds: take it if it is that server's.
        info = Home(path).last_server()
        mine = info is not None and info.base_url == base_url
        ca_files = _ca_files(Home(path)) if mine else _bundles(environ)
        if mine and info is not None:
            base = Place(info.subscription_id, info.resource_group, info.workspace)
        found_home = path if mine else None
    else:
        info = Home(path).last_server()
        credentials = Home(path).credentials()
        if info is None or credentials is None:
            raise NotFoundHere(f"No server runs in {path}. Start one with: noriba up{home_flag}")
        base_url, secret = info.base_url, credentials.secret
        ca_files = _ca_files(Home(path))
        base = Place(info.subscription_id, info.resource_group, info.workspace)
        found_home = path
    if set_up is not None and set_up[0] != base_url:
        # The shell was set up for another server, and so were the names in it.
        environ = {}
    place = choose_place(named, environ, folder or Path.cwd(), base)
    return Target(
        base_url=base_url,
        secret=secret,
        ca_files=ca_files,
        subscription_id=place.subscription_id,
        resource_group=place.resource_group,
        workspace=place.workspace,
        workspace_source=place.source,
        home=found_home,
        home_flag=home_flag,
    )


def choose_place(named: Place, environ: Mapping[str, str], folder: Path, base: Place) -> Place:
    """The workspace to use; what flags leave out comes from the first source that names a workspace."""
    rest = base
    if environ.get("AZUREML_WORKSPACE_NAME"):
        rest = Place(
            environ.get("AZURE_SUBSCRIPTION_ID") or base.subscription_id,
            environ.get("AZURE_RESOURCE_GROUP")
            or environ.get("AZURE_RESOURCEGROUP_NAME")
            or base.resource_group,
            environ["AZUREML_WORKSPACE_NAME"],
            "AZUREML_WORKSPACE_NAME",
        )
    elif (config := _config_file(folder)) is not None:
        rest = config
    return Place(
        named.subscription_id or rest.subscription_id,
        named.resource_group or rest.resource_group,
        named.workspace or rest.workspace,
        "" if named.workspace else rest.source,
    )


def _server_in(environ: Mapping[str, str]) -> tuple[str, str] | None:
    """Base URL and secret as ``noriba env`` set them. The secret is only ever sent where it belongs."""
    metadata, endpoint = environ.get("ARM_CLOUD_METADATA_URL", ""), environ.get("MSI_ENDPOINT", "")
    secret = environ.get("MSI_SECRET", "")
    if not (secret and endpoint) or urlsplit(metadata)[:2] != urlsplit(endpoint)[:2]:
        return None
    parts = urlsplit(endpoint)
    return f"{parts.scheme}://{parts.netloc}", secret


def _ca_files(home: Home) -> list[Path]:
    # With a certificate of the user's own, the local CA says nothing; the bundle knows the public ones.
    files = [home.ca_file] if home.ca_file.exists() else []
    info = home.last_server()
    if info is not None and info.own_certificate:
        files.append(home.bundle_file)
    return files


def _bundles(environ: Mapping[str, str]) -> list[Path]:
    named = (environ.get(name) for name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"))
    return list(dict.fromkeys(Path(name) for name in named if name and Path(name).is_file()))


def _config_file(folder: Path) -> Place | None:
    """The nearest ``config.json`` that names a workspace, looked for as ``MLClient.from_config`` does."""
    for place in (folder.absolute(), *folder.absolute().parents):
        for file in (place / ".azureml" / "config.json", place / "aml_config" / "config.json"):
            if not file.is_file():
                continue
            try:
                found = msgspec.json.decode(file.read_bytes(), type=dict[str, Any])
            except (OSError, msgspec.DecodeError) as error:
                raise NotFoundHere(f"{file} can not be read: {error}") from error
            if found.get("workspace_name"):
                return Place(
                    str(found.get("subscription_id") or ""),
                    str(found.get("resource_group") or ""),
                    str(found["workspace_name"]),
                    str(file),
                )
    return None
