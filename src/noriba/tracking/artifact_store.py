"""Artifacts in the blob store: from a place (artifacts.py) to the blobs that stand there."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import NamedTuple

import msgspec
import sqlalchemy as sa

from noriba import datastores
from noriba.database import Database
from noriba.models.errors import NotFound
from noriba.models.workspace import Workspace
from noriba.storage.blobs import BlobStore
from noriba.storage.model import BlobProperties
from noriba.tracking import logged_models, runs
from noriba.tracking.artifacts import (
    CONTAINER,
    BlobPlace,
    DatastorePlace,
    Folder,
    ModelPlace,
    Place,
    RunPlace,
    model_folder,
    run_folder,
)
from noriba.tracking.errors import invalid, unknown

LOG_FOLDERS = ("user_logs/", "system_logs/", "azureml-logs/")
"""Among a job's artifacts, what the platform writes: clients only read there."""
PAGE = 5000


class Spot(NamedTuple):
    """A blob's full name, or the prefix of a folder's without the last slash."""

    account: str
    container: str
    name: str


class Entry(msgspec.Struct, frozen=True):
    """A file or folder directly below a place; ``path`` is its name there, ``size`` bytes of a file."""

    path: str
    is_dir: bool
    size: int = 0


class ArtifactStore:
    """Artifacts of one workspace."""

    def __init__(self, database: Database, blobs: BlobStore, workspace: Workspace) -> None:
        self._database = database
        self._blobs = blobs
        self._workspace = workspace

    async def locate(self, place: Place, *, writing: bool = False) -> Spot:
        """Where a place is. Raises NotFound for an unknown run, model or datastore, BadRequest where clients may
        not write (``writing``)."""
        workspace_id = self._workspace.id

        def find(connection: sa.Connection) -> tuple[Folder, str]:
            match place:
                case RunPlace(run_id, path):
                    row = runs.row_in(connection, workspace_id, run_id)
                    if writing and row.lifecycle_stage != "active":
                        raise runs.not_active(run_id, row.lifecycle_stage)
                    if writing and row.is_job and f"{path}/".startswith(LOG_FOLDERS):
                        raise invalid(
                            f"'{path}' is where the platform keeps the job's logs. Log the artifact under another path."
                        )
                    return run_folder(run_id), path
                case ModelPlace(model_id, path):
                    model = logged_models.get_in(connection, workspace_id, model_id)
                    return model_folder(model.id, model.source_run_id, model.folder), path
                case DatastorePlace(name, path):
                    datastore = datastores.get(connection, workspace_id, name)
                    if not datastore.is_built_in:
                        raise invalid(
                            f"Datastore '{name}' is not part of this server; read it with its own client."
                        )
                    return Folder(datastore.container, ""), path
                case BlobPlace(origin, container, path):
                    return Folder(CONTAINER, f"{origin}/{container}/"), path

        folder, path = await self._database.read(find)
        return Spot(self._workspace.storage_account, folder.container, folder.blob(path).rstrip("/"))

    async def put(
        self, place: Place, data: bytes | AsyncIterator[bytes], content_type: str | None
    ) -> BlobProperties:
        """Store a file, over the one that was there."""
        if not place.path:
            raise invalid("Invalid path: name the file below the artifacts.")
        spot = await self.locate(place, writing=True)
        await self._blobs.ensure_container(spot.account, spot.container)
        return await self._blobs.put(*spot, data, content_type=content_type)

    async def head(self, place: Place) -> BlobProperties:
        """A file's properties. Raises NotFound."""
        spot = await self.locate(place)
        found = await self._blobs.head(*spot) if place.path else None
        if found is None:
            raise _no_file(place)
        return found

    async def open(
        self, place: Place, start: int = 0, end: int | None = None
    ) -> tuple[BlobProperties, AsyncIterator[bytes]]:
        """A file's properties and its bytes from ``start`` to ``end`` (not included). Raises NotFound."""
        found = await self.head(place)
        return found, self._blobs.read(found, start, end)

    async def entries(self, place: Place) -> list[Entry]:
        """What is directly below a place; nothing for a file or a place that is empty."""
        spot = await self.locate(place)
        prefix = f"{spot.name}/" if spot.name else ""
        entries: dict[str, Entry] = {}
        marker: str | None = None
        while True:
            try:
                page = await self._blobs.list(spot.account, spot.container, prefix, "/", marker, PAGE)
            except NotFound:
                # The container is made with the first artifact.
                return []
            for folder in page.prefixes:
                name = folder.removeprefix(prefix).rstrip("/")
                if name:
                    entries[name] = Entry(name, True)
            for blob in page.blobs:
                name = blob.name.removeprefix(prefix)
                if name and blob.metadata.get("hdi_isfolder") != "true":
                    entries.setdefault(name, Entry(name, False, blob.size))
            marker = page.marker
            if marker is None:
                return [entries[name] for name in sorted(entries)]

    async def walk(
        self, place: Place, marker: str | None = None, limit: int = PAGE
    ) -> tuple[list[tuple[str, BlobProperties]], str | None]:
        """A page of all files below a place with their paths from there, and what starts the next page."""
        spot = await self.locate(place)
        prefix = f"{spot.name}/" if spot.name else ""
        try:
            page = await self._blobs.list(spot.account, spot.container, prefix, None, marker, limit)
        except NotFound:
            return [], None
        return [(blob.name.removeprefix(prefix), blob) for blob in page.blobs], page.marker

    async def delete(self, place: Place) -> None:
        """Delete a file, or a folder with all below it. Raises NotFound when there is neither."""
        spot = await self.locate(place, writing=True)
        if not spot.name or (not place.path and isinstance(place, DatastorePlace)):
            raise invalid("Invalid path: a whole datastore can not be deleted here.")
        found = await self._blobs.head(*spot)
        if found is not None:
            await self._blobs.delete(*spot)
        try:
            count = await self._blobs.delete_prefix(spot.account, spot.container, f"{spot.name}/")
        except NotFound:
            count = 0
        if found is None and not count:
            raise _no_file(place)


def _no_file(place: Place) -> Exception:
    return unknown(f"There is no artifact at '{place.path}'.")
