"""Large blobs stream through the server: its memory does not grow with them, and a kill in the middle leaves nothing."""

from __future__ import annotations

import base64
import hashlib
import ssl
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from noriba.storage.sas import container_sas
from tests.rest.blob_fixtures import Account, Container, account, container, find_account
from tests.server import ServerProcess

__all__ = ["account", "container"]

MIB = 1024 * 1024
LIMIT_BYTES = 64 * MIB


class Memory:
    """The most memory that a process has had since it was last asked to forget."""

    def __init__(self, server: ServerProcess) -> None:
        assert server.process is not None
        self._folder = Path(f"/proc/{server.process.pid}")
        self.start = 0

    def begin(self) -> None:
        (self._folder / "clear_refs").write_text("5")
        self.start = self._field("VmRSS")

    @property
    def growth(self) -> int:
        """Bytes by which the peak exceeds what there was at the beginning."""
        return self._field("VmHWM") - self.start

    def _field(self, name: str) -> int:
        for line in (self._folder / "status").read_text().splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) * 1024
        raise AssertionError(name)


def pattern(size: int) -> Iterator[bytes]:
    """``size`` bytes that do not repeat within a piece, MiB by MiB."""
    block = hashlib.shake_128(b"noriba").digest(MIB)
    for number in range(size // MIB):
        part = number.to_bytes(8, "little") + block[8:]
        yield part


def digest(chunks: Iterator[bytes]) -> str:
    hasher = hashlib.sha256()
    for chunk in chunks:
        hasher.update(chunk)
    return hasher.hexdigest()


@pytest.mark.parametrize("size_mib", [512, pytest.param(5000, marks=pytest.mark.slow)])
@pytest.mark.timeout(900)
def test_one_large_blob_costs_little_memory(container: Container, account: Account, size_mib: int) -> None:
    size = size_mib * MIB
    memory = Memory(account.server)
    # Warm up: what the server keeps for good is not the large blob's.
    container.put("small", b"x" * 10 * MIB)
    container.request("GET", "small")
    memory.begin()
    url = f"{container.url}/big?{container.token}"
    answer = container.http.put(
        url,
        content=pattern(size),
        headers={"x-ms-blob-type": "BlockBlob", "Content-Length": str(size)},
        timeout=600,
    )
    assert answer.status_code == 201, answer.text
    assert memory.growth < LIMIT_BYTES, f"{memory.growth / MIB:.0f} MiB for an upload"
    memory.begin()
    with container.http.stream("GET", url, timeout=600) as got:
        assert int(got.headers["content-length"]) == size
        assert digest(got.iter_bytes()) == digest(pattern(size))
    assert memory.growth < LIMIT_BYTES, f"{memory.growth / MIB:.0f} MiB for a download"


def test_many_large_blocks_at_once_cost_little_memory(container: Container, account: Account) -> None:
    memory = Memory(account.server)
    container.put("small", b"x" * 10 * MIB)
    memory.begin()
    ids = [base64.b64encode(b"%03d" % number).decode() for number in range(12)]

    def put(block_id: str) -> int:
        return container.http.put(
            f"{container.url}/blocks?comp=block&blockid={block_id}&{container.token}",
            content=pattern(32 * MIB),
            headers={"Content-Length": str(32 * MIB)},
        ).status_code

    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(put, ids)) == [201] * 12
    body = "<BlockList>" + "".join(f"<Latest>{block_id}</Latest>" for block_id in ids) + "</BlockList>"
    assert container.request("PUT", "blocks", "comp=blocklist", content=body.encode()).status_code == 201
    assert memory.growth < LIMIT_BYTES, f"{memory.growth / MIB:.0f} MiB"
    head = container.request("HEAD", "blocks")
    assert int(head.headers["content-length"]) == 12 * 32 * MIB


def test_a_slow_reader_does_not_fill_the_memory(container: Container, account: Account) -> None:
    container.put("big", b"x" * 200 * MIB)
    memory = Memory(account.server)
    memory.begin()
    with container.http.stream("GET", f"{container.url}/big?{container.token}") as got:
        chunks = got.iter_raw()
        next(chunks)
        # The server has every chance to read on while it serves other requests.
        for _ in range(50):
            assert container.request("HEAD", "big").status_code == 200
        assert memory.growth < 16 * MIB
    assert container.request("HEAD", "big").status_code == 200


def test_a_kill_in_the_middle_of_uploads_leaves_nothing(new_server: ServerProcess) -> None:
    new_server.start()
    account = find_account(new_server)
    with new_server.client() as client:
        client.put(f"{account.url}/con-1?restype=container").raise_for_status()
    token = container_sas(account.key, account.name, "con-1", "racwdl", time.time() + 600)
    done = httpx.put(
        f"{account.url}/con-1/done?{token}",
        content=b"1" * 10 * MIB,
        headers={"x-ms-blob-type": "BlockBlob"},
        verify=_trust(new_server),
    )
    assert done.status_code == 201
    half = threading.Event()

    def slow() -> Iterator[bytes]:
        for number, part in enumerate(pattern(64 * MIB)):
            if number == 32:
                half.set()
                stopped.wait(30)
            yield part

    stopped = threading.Event()

    def upload(name: str) -> str:
        try:
            httpx.put(
                f"{account.url}/con-1/{name}?{token}",
                content=slow(),
                headers={"x-ms-blob-type": "BlockBlob", "Content-Length": str(64 * MIB)},
                verify=_trust(new_server),
            )
        except httpx.TransportError:
            return "cut off"
        return "answered"

    with ThreadPoolExecutor(2) as pool:
        results = [pool.submit(upload, name) for name in ("new", "done")]
        assert half.wait(30)
        new_server.kill()
        stopped.set()
        assert [result.result() for result in results] == ["cut off", "cut off"]
    new_server.start()
    with httpx.Client(verify=_trust(new_server), base_url=account.url) as client:
        assert client.head(f"/con-1/new?{token}").status_code == 404
        assert client.get(f"/con-1/done?{token}").content == b"1" * 10 * MIB
        listed = client.get(f"/con-1?restype=container&comp=list&{token}").text
        assert listed.count("<Name>") == 1


def _trust(server: ServerProcess) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=server.home.ca_file)
