"""What the blob store does by itself: compacts growing blobs and sweeps what nobody has any more."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import structlog

from noriba.models.errors import NoribaError
from noriba.storage.compaction import compact, compact_idle
from noriba.storage.objects import ObjectMissing
from noriba.storage.sweep import sweep

if TYPE_CHECKING:
    from noriba.storage.blobs import BlobStore

log = structlog.get_logger("noriba.storage")

SWEEP_INTERVAL_S = 60.0


class Upkeep:
    """The background work of a blob store."""

    def __init__(self, store: BlobStore) -> None:
        self._store = store
        self._loop: asyncio.AbstractEventLoop | None = None
        self._due: dict[int, None] = {}
        self._wake = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Start in the running loop."""
        self._loop = asyncio.get_running_loop()
        self._tasks = [
            asyncio.create_task(self._compact_due(), name="blob-compaction"),
            asyncio.create_task(self._sweep_at_intervals(), name="blob-sweep"),
        ]

    async def stop(self) -> None:
        """Stop; what is half done is done again by the next start."""
        self._loop = None
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        self._tasks = []

    def compact_later(self, content_id: int) -> None:
        """Look at an append blob soon. May be called from any thread; without a running upkeep it does nothing."""
        loop = self._loop
        if loop is not None and not loop.is_closed():
            loop.call_soon_threadsafe(self._note, content_id)

    def _note(self, content_id: int) -> None:
        self._due[content_id] = None
        self._wake.set()

    async def _compact_due(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._due:
                content_id = next(iter(self._due))
                del self._due[content_id]
                try:
                    await compact(self._store, content_id)
                except (NoribaError, ObjectMissing) as error:
                    # The blob may be gone; if not, its next append brings it here again.
                    log.warning("blob not compacted", content_id=content_id, reason=str(error))
                except Exception:
                    # A bug in one blob's compaction must not end that of all others.
                    log.exception("blob not compacted", content_id=content_id)

    async def _sweep_at_intervals(self) -> None:
        while True:
            try:
                await self.sweep_all()
            except NoribaError as error:
                log.warning("sweep cut short", reason=error.message)
            except Exception:
                log.exception("sweep failed")
            await asyncio.sleep(SWEEP_INTERVAL_S)

    async def sweep_all(self) -> None:
        """Sweep until nothing is left to do now. Raises Unavailable."""
        now = self._store.clock()
        while swept := await sweep(self._store, now):
            log.info("swept", contents=swept.contents, objects=swept.objects, uploads=swept.uploads)
        await compact_idle(self._store, now)
