"""The blob store against a dictionary: any sequence of operations gives what a dictionary would give."""

from __future__ import annotations

import asyncio
import base64
import shutil
import tempfile
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from noriba.database import Database
from noriba.database.migrate import upgrade
from noriba.models.errors import Conflict, NotFound, PreconditionFailed
from noriba.storage import editing
from noriba.storage.blobs import BlobStore
from noriba.storage.blocks import put_block, put_block_list
from noriba.storage.compaction import compact
from noriba.storage.model import Conditions
from noriba.storage.objects import open_objects
from tests.storage.conftest import ACCOUNT, CONTAINER, Clock

names = st.sampled_from(["a", "a/b", "../x", "日本"])
sizes = st.sampled_from([0, 1, 100, 16_384, 16_385, 70_000, 300_000])
numbers = st.integers(0, 3)


class BlobMachine(RuleBasedStateMachine):
    """``blobs`` is what must be readable, ``blocks`` what was put and not committed."""

    url: Callable[[], str | None] = staticmethod(lambda: None)
    objects = "folder"

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.mkdtemp()
        self.runner = asyncio.Runner()
        self.clock = Clock()
        self.database = Database(type(self).url() or f"sqlite:///{self.folder}/noriba.db")
        upgrade(self.database)
        where = f"{self.folder}/objects" if self.objects == "folder" else "memory:///"
        self.store = BlobStore(self.database, open_objects(where, {}), clock=self.clock)
        self.run(self.store.ensure_container(ACCOUNT, CONTAINER))
        self.blobs: dict[str, bytes] = {}
        self.appendable: set[str] = set()
        self.blocks: dict[str, dict[int, bytes]] = {}
        self.committed: dict[str, dict[int, bytes]] = {}
        self.counter = 0

    def run(self, awaitable: Awaitable[Any]) -> Any:
        async def wait() -> Any:
            return await awaitable

        return self.runner.run(wait())

    def data(self, size: int) -> bytes:
        self.counter += 1
        return (b"%07d," % self.counter * (size // 8 + 1))[:size]

    def replace(self, name: str, data: bytes) -> None:
        self.blobs[name] = data
        self.appendable.discard(name)
        self.blocks.pop(name, None)
        self.committed.pop(name, None)

    @rule(name=names, size=sizes)
    def put(self, name: str, size: int) -> None:
        data = self.data(size)
        self.run(self.store.put(ACCOUNT, CONTAINER, name, data))
        self.replace(name, data)

    @rule(name=names)
    def create(self, name: str) -> None:
        data = self.data(10)
        once = Conditions(if_none_match=("*",))
        if name in self.blobs:
            with pytest.raises(Conflict):
                self.run(self.store.put(ACCOUNT, CONTAINER, name, data, conditions=once))
        else:
            self.run(self.store.put(ACCOUNT, CONTAINER, name, data, conditions=once))
            self.replace(name, data)

    @rule(name=names, size=sizes)
    def failing_put(self, name: str, size: int) -> None:
        async def cut_off() -> Any:
            yield self.data(size)
            raise ConnectionError

        with pytest.raises(ConnectionError):
            self.run(self.store.put(ACCOUNT, CONTAINER, name, cut_off()))

    @rule(name=names)
    def delete(self, name: str) -> None:
        if name in self.blobs:
            self.run(self.store.delete(ACCOUNT, CONTAINER, name))
            del self.blobs[name]
            self.appendable.discard(name)
            self.blocks.pop(name, None)
            self.committed.pop(name, None)
        else:
            with pytest.raises(NotFound):
                self.run(self.store.delete(ACCOUNT, CONTAINER, name))

    @rule(name=names, size=sizes, behind=st.integers(0, 20))
    def append(self, name: str, size: int, behind: int) -> None:
        held = self.blobs.get(name, b"")
        offset = max(0, len(held) - behind)
        data = held[offset:] + self.data(size)
        size_after = self.run(
            self.database.write(
                lambda c: self.store.append_in(c, ACCOUNT, CONTAINER, name, offset, data, self.clock())
            )
        )
        if name not in self.blobs:
            self.replace(name, b"")
            self.appendable.add(name)
        if data[len(held) - offset :]:
            self.blobs[name] = held[:offset] + data
            self.appendable.add(name)
        assert size_after == len(self.blobs.get(name, b""))

    @rule(name=names)
    def compact(self, name: str) -> None:
        if name in self.appendable:
            blob = self.run(self.store.get(ACCOUNT, CONTAINER, name))
            self.run(compact(self.store, blob.content_id, idle=True))

    @rule(source=names, to=names)
    def copy(self, source: str, to: str) -> None:
        if source not in self.blobs:
            return
        self.run(editing.copy(self.store, (ACCOUNT, CONTAINER, source), (ACCOUNT, CONTAINER, to)))
        appendable, committed = source in self.appendable, dict(self.committed.get(source, {}))
        self.replace(to, self.blobs[source])
        if appendable:
            self.appendable.add(to)
        if committed:
            self.committed[to] = committed

    @rule(name=names, number=numbers, size=sizes)
    def put_block(self, name: str, number: int, size: int) -> None:
        data = self.data(max(1, size))
        put = put_block(self.store, ACCOUNT, CONTAINER, name, _id(number), data)
        if name in self.appendable:
            with pytest.raises(Conflict):
                self.run(put)
        else:
            self.run(put)
            self.blocks.setdefault(name, {})[number] = data

    @rule(name=names, chosen=st.lists(numbers, min_size=1, max_size=6))
    def put_block_list(self, name: str, chosen: list[int]) -> None:
        if name in self.appendable:
            return
        known = {**self.committed.get(name, {}), **self.blocks.get(name, {})}
        chosen = [number for number in chosen if number in known]
        if not chosen:
            return
        self.run(
            put_block_list(
                self.store, ACCOUNT, CONTAINER, name, [("Latest", _id(number)) for number in chosen]
            )
        )
        self.replace(name, b"".join(known[number] for number in chosen))
        self.committed[name] = {number: known[number] for number in chosen}

    @rule(name=names)
    def stale_condition(self, name: str) -> None:
        with pytest.raises(PreconditionFailed):
            self.run(
                self.store.put(ACCOUNT, CONTAINER, name, b"never", conditions=Conditions(if_match=("stale",)))
            )

    @rule(ahead_s=st.sampled_from([0.0, 1_000.0, 90_000.0]))
    def sweep(self, ahead_s: float) -> None:
        self.clock.now += ahead_s
        self.run(self.store.upkeep.sweep_all())

    @rule(name=names, start=st.integers(0, 80_000), length=st.integers(1, 80_000))
    def read_range(self, name: str, start: int, length: int) -> None:
        data = self.blobs.get(name, b"")
        if start >= len(data):
            return

        async def read() -> bytes:
            _, chunks = await self.store.open(ACCOUNT, CONTAINER, name, start, start + length)
            return b"".join([chunk async for chunk in chunks])

        assert self.run(read()) == data[start : start + length]

    @invariant()
    def holds_what_it_should(self) -> None:
        page = self.run(self.store.list(ACCOUNT, CONTAINER))
        assert {blob.name: blob.size for blob in page.blobs} == {n: len(d) for n, d in self.blobs.items()}
        for name, data in self.blobs.items():
            assert self.run(self.store.read_all(ACCOUNT, CONTAINER, name)) == data

    def teardown(self) -> None:
        self.run(self.store.stop())
        self.runner.close()
        self.database.close()
        shutil.rmtree(self.folder)


def _id(number: int) -> str:
    return base64.b64encode(b"%d" % number).decode()


@pytest.mark.parametrize(("objects", "examples"), [("folder", 25), ("memory", 20)])
def test_on_sqlite(objects: str, examples: int) -> None:
    machine = type("Machine", (BlobMachine,), {"objects": objects})
    run_state_machine_as_test(machine, settings=_settings(examples))


def test_on_postgresql(postgresql: Callable[[], str]) -> None:
    machine = type("Machine", (BlobMachine,), {"url": staticmethod(postgresql)})
    run_state_machine_as_test(machine, settings=_settings(10))


def _settings(examples: int) -> settings:
    return settings(
        max_examples=examples,
        stateful_step_count=25,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
