"""Fixtures for tests of the blob plane: an account, its key, and a container of the test's own."""

from __future__ import annotations

import base64
import ssl
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass

import httpx
import pytest

from noriba.identity.keys import Keys
from noriba.storage.sas import container_sas
from tests.conftest import WORKSPACE_PATH
from tests.server import ServerProcess

ALL = "racwdlt"


@dataclass
class Account:
    """The storage account of the test server's workspace."""

    server: ServerProcess
    name: str
    key: bytes

    @property
    def url(self) -> str:
        """As datastores publish it."""
        return f"{self.server.url}/blob/{self.name}.blob.local"

    @property
    def encoded_key(self) -> str:
        return base64.b64encode(self.key).decode()

    @property
    def credential(self) -> dict[str, str]:
        """For the Azure SDK."""
        return {"account_name": self.name, "account_key": self.encoded_key}

    def sas(self, container: str, permissions: str = ALL) -> str:
        """A signature good for ten minutes."""
        return container_sas(self.key, self.name, container, permissions, time.time() + 600)


class Container:
    """A container over plain HTTP, with a signature that allows everything."""

    def __init__(self, account: Account, name: str) -> None:
        self.account = account
        self.name = name
        self.url = f"{account.url}/{name}"
        self.http = httpx.Client(
            verify=ssl.create_default_context(cafile=account.server.home.ca_file), timeout=60
        )
        self.token = account.sas(name)

    def request(
        self,
        method: str,
        blob: str = "",
        query: str = "",
        *,
        token: str | None = None,
        content: bytes | None = None,
        **headers: str,
    ) -> httpx.Response:
        """``x_ms_meta_a="1"`` sends the header ``x-ms-meta-a``; ``token=""`` sends no signature."""
        token = self.token if token is None else token
        # Names that have a hyphen already are sent as they are.
        sent = {name if "-" in name else name.replace("_", "-"): value for name, value in headers.items()}
        parts = "&".join(part for part in (query, token) if part)
        return self.http.request(
            method, f"{self.url}{blob and '/' + blob}?{parts}", headers=sent, content=content
        )

    def put(self, blob: str, content: bytes = b"", **headers: str) -> httpx.Response:
        answer = self.request("PUT", blob, content=content, **{"x_ms_blob_type": "BlockBlob", **headers})
        assert answer.status_code == 201, answer.text
        return answer


def find_account(server: ServerProcess) -> Account:
    """The account of the workspace that a server starts with."""
    with server.client() as client:
        found = client.get(
            f"{WORKSPACE_PATH}/datastores/workspaceblobstore", params={"api-version": "2024-10-01-preview"}
        ).raise_for_status()
    name = found.json()["properties"]["accountName"].rsplit("/", 1)[1]
    return Account(server, name, Keys.load(server.home.keys).account_key(name))


@pytest.fixture(scope="session")
def account(server: ServerProcess) -> Account:
    """The account of the shared server."""
    return find_account(server)


@pytest.fixture
def container(account: Account) -> Iterator[Container]:
    """A container that only this test uses."""
    made = Container(account, f"test-{uuid.uuid4().hex}")
    with account.server.client(audience="https://storage.azure.com") as client:
        client.put(f"{made.url}?restype=container").raise_for_status()
    yield made
    made.http.close()
