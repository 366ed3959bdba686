"""Downloading what jobs and models leave: the folders behind ``azureml://datastores/…`` addresses (wire.md 2.4)."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote, urlsplit

import msgspec

from noriba.client.connection import Connection
from noriba.client.errors import ApiError, ClientError
from noriba.client.session import Session

WORKERS = 4
ADDRESS = re.compile(
    r"azureml://(?:subscriptions/[^/]+/resource[gG]roups/[^/]+/(?:providers/[^/]+/)?workspaces/[^/]+/)?"
    r"datastores/(?P<datastore>[^/]+)/paths/(?P<path>.*)"
)


class Blob(msgspec.Struct, frozen=True):
    """A blob below a prefix; ``relative`` is its name without the prefix."""

    name: str
    relative: str
    size: int


class Container(msgspec.Struct, frozen=True):
    """A blob container: its URL and the SAS that opens it."""

    url: str
    sas: str

    def blob_url(self, name: str) -> str:
        return f"{self.url}/{quote(name)}?{self.sas}"


def parse_address(address: str) -> tuple[str, str]:
    """Datastore and path of ``azureml://datastores/x/paths/y`` (short or long). Raises ClientError."""
    match = ADDRESS.fullmatch(address)
    if match is None:
        raise ClientError(f"'{address}' can not be downloaded: it is no address in a datastore.")
    return match["datastore"], match["path"]


def open_container(session: Session, datastore: str) -> Container:
    """The container of a datastore. Raises ApiError, or ClientError when it is of another kind."""
    path = f"{session.workspace}/datastores/{datastore}"
    properties = session.get(path)["properties"]
    name = properties.get("containerName") or properties.get("filesystem")
    if not name:
        raise ClientError(
            f"The datastore '{datastore}' is no blob container, so nothing can be downloaded from it."
        )
    secrets = session.call("POST", f"{path}/listSecrets", json={"expirableSecret": True}).json()
    if secrets.get("secretsType") != "Sas":
        raise ClientError(f"The datastore '{datastore}' gives no SAS; download from it with its own tools.")
    host = f"{properties['accountName']}.blob.{str(properties.get('endpoint') or 'core.windows.net').rstrip('/')}"
    return Container(f"{properties.get('protocol') or 'https'}://{host}/{name}", str(secrets["sasToken"]))


class Downloader:
    """Copies blobs to a folder. ``progress`` is told (bytes more, bytes known) as they come."""

    def __init__(
        self, session: Session, progress: Callable[[int, int], None] = lambda more, known: None
    ) -> None:
        self._session = session
        self._progress = progress
        self._local = threading.local()
        self._lock = threading.Lock()

    def fetch(self, address: str, folder: Path) -> int:
        """Copy a file or folder to ``folder``; how many files that were. Raises ClientError."""
        return self._fetch(address, folder, "")

    def fetch_as(self, address: str, target: Path) -> int:
        """Like ``fetch``, but a single file becomes ``target`` itself instead of a file in it."""
        return self._fetch(address, target, target.name)

    def _fetch(self, address: str, folder: Path, file_name: str) -> int:
        datastore, path = parse_address(address)
        container = open_container(self._session, datastore)
        prefix = path.rstrip("/") + "/" if path else ""
        blobs = list(self._list(container, prefix))
        if not blobs and path and not path.endswith("/"):
            whole = [blob for blob in self._list(container, path) if blob.name == path]
            blobs = [Blob(blob.name, file_name or PurePosixPath(path).name, blob.size) for blob in whole]
            folder = folder.parent if file_name else folder
        # Empty "directory" markers are no files.
        blobs = [blob for blob in blobs if blob.relative and not blob.relative.endswith("/")]
        with self._lock:
            self._progress(0, sum(blob.size for blob in blobs))
        with ThreadPoolExecutor(WORKERS) as pool:
            for _ in pool.map(lambda blob: self._copy(container, blob, folder), blobs):
                pass
        return len(blobs)

    def _list(self, container: Container, prefix: str) -> Iterator[Blob]:
        from xml.etree import ElementTree

        marker = ""
        while True:
            url = (
                f"{container.url}?restype=container&comp=list&prefix={quote(prefix, safe='')}&{container.sas}"
            )
            if marker:
                url += f"&marker={quote(marker, safe='')}"
            answer = self._connection(url).request("GET", url)
            if answer.status != 200:
                raise ApiError.from_answer(
                    answer.status, answer.json(), f"Listing {container.url} gave HTTP {answer.status}"
                )
            root = ElementTree.fromstring(answer.body)
            for blob in root.iter("Blob"):
                name = blob.findtext("Name") or ""
                yield Blob(name, name[len(prefix) :], int(blob.findtext("Properties/Content-Length") or 0))
            marker = root.findtext("NextMarker") or ""
            if not marker:
                return

    def _copy(self, container: Container, blob: Blob, folder: Path) -> None:
        target = local_path(folder, blob.relative)
        url = container.blob_url(blob.name)
        part = target.with_name(f".{target.name}.part")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with part.open("wb") as file:
                for chunk in self._connection(url).stream(url):
                    file.write(chunk)
                    with self._lock:
                        self._progress(len(chunk), 0)
            part.replace(target)
        except OSError as error:
            raise ClientError(f"{target} can not be written: {error.strerror}.") from error
        finally:
            part.unlink(missing_ok=True)

    def _connection(self, url: str) -> Connection:
        """This thread's connection to the server of a URL."""
        parts = urlsplit(url)
        origin = f"{parts.scheme}://{parts.netloc}"
        connections: dict[str, Connection] | None = getattr(self._local, "connections", None)
        if connections is None:
            connections = self._local.connections = {}
        if origin not in connections:
            ours = origin == self._session.connection.base_url
            connections[origin] = Connection(origin, self._session.target.ca_files if ours else None)
        return connections[origin]


def local_path(folder: Path, relative: str) -> Path:
    """Where a blob goes under ``folder``. Raises ClientError for names that would lead out of it."""
    parts = relative.split("/")
    if any(part in ("", ".", "..") or "\0" in part for part in parts):
        raise ClientError(f"The file name '{relative}' is not possible on this machine.")
    return folder.joinpath(*parts)


def output_addresses(job: dict[str, Any]) -> dict[str, str]:
    """Addresses of a job's named outputs, from its document."""
    outputs = (job.get("properties") or {}).get("outputs") or {}
    return {name: output["uri"] for name, output in outputs.items() if output and output.get("uri")}
