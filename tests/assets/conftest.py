"""Services behind no server: assets below the REST API."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from noriba.database import Database
from noriba.database.migrate import upgrade
from noriba.home import Home
from noriba.identity.keys import Keys
from noriba.identity.principals import Principals
from noriba.identity.tokens import Tokens
from noriba.models.principal import Principal
from noriba.models.workspace import Workspace
from noriba.services import Services
from noriba.settings import Settings
from noriba.storage.blobs import BlobStore
from noriba.storage.objects import open_objects
from noriba.workspaces import Workspaces, insert_workspace
from tests.databases import NewDatabase

NOW = 1_800_000_000.0
BASE = "https://127.0.0.1:8443"


@pytest.fixture
def services(tmp_path: Path, new_database: NewDatabase) -> Iterator[Services]:
    home = Home(tmp_path / "home")
    home.prepare()
    database = Database(new_database() or f"sqlite:///{home.database_file}")
    upgrade(database)
    keys = Keys.load(home.keys)
    yield Services(
        settings=Settings(home=str(home.path)),
        base_url=BASE,
        database=database,
        keys=keys,
        tokens=Tokens(BASE, keys.signing_key),
        principals=Principals(database),
        workspaces=Workspaces(database),
        blobs=BlobStore(database, open_objects(str(home.blobs), {})),
        clock=lambda: NOW,
    )
    database.close()


@pytest.fixture
def make_workspace(services: Services) -> Callable[[str], Workspace]:
    """Makes a workspace with its datastores."""

    def make(name: str) -> Workspace:
        return services.database.write_now(
            lambda connection: insert_workspace(
                connection,
                subscription_id="sub",
                resource_group="group",
                name=name,
                location="local",
                document={},
                created_by="me",
                now=NOW,
            )
        )

    return make


@pytest.fixture
def workspace(make_workspace: Callable[[str], Workspace]) -> Workspace:
    return make_workspace("first")


@pytest.fixture
def other(make_workspace: Callable[[str], Workspace]) -> Workspace:
    return make_workspace("second")


@pytest.fixture
def reader_of_both(workspace: Workspace, other: Workspace) -> Principal:
    return Principal(
        id="reader",
        kind="user",
        name="reader",
        tenant_id="t",
        roles={workspace.id: "Reader", other.id: "Reader"},
    )
