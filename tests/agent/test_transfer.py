"""Transfers in the small: ranges, changes, cache, names."""

from __future__ import annotations

import os
import ssl
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noriba.agent.folder import is_disk_full
from noriba.agent.protocol import Location
from noriba.agent.transfer.blob import BlobClient, ConnectionPool
from noriba.agent.transfer.cache import Cache, copy_file
from noriba.agent.transfer.download import Downloader, run_parallel, safe_relative
from noriba.agent.transfer.errors import (
    Cancelled,
    NotFound,
    TransferError,
    Unavailable,
    Unsupported,
)
from noriba.agent.transfer.upload import FolderUpload, open_inside
from tests.agent.twins import BlobTwin


@pytest.fixture
def client(blobs: BlobTwin) -> BlobClient:
    return client_of(blobs)


def client_of(blobs: BlobTwin, **values: object) -> BlobClient:
    location = Location(kind="blob", url=blobs.url, sas=blobs.sas, uri="test://data")
    return BlobClient(location, ConnectionPool(ssl.create_default_context), **values)  # type: ignore[arg-type]


def downloader(tmp_path: Path, *, share_links: bool = True) -> Downloader:
    return Downloader(Cache(tmp_path / "cache"), share_links=share_links)


def test_a_listing_goes_over_pages_and_odd_names(blobs: BlobTwin, client: BlobClient) -> None:
    names = sorted(f"p/{i:03} ä&<%20>+?#" for i in range(230))
    for name in names:
        blobs.put(name, "x")
    blobs.put("pp", "x")
    assert [blob.name for blob in client.list("p/")] == names


def test_odd_names_come_through(blobs: BlobTwin, client: BlobClient, tmp_path: Path) -> None:
    names = ["a b.txt", "100%.txt", "ü/?#&=+.txt", "%2e%2e/x", "emoji 🙂"]
    for name in names:
        blobs.put(f"in/{name}", name)
    downloader(tmp_path).folder(client, blobs.url, "in", tmp_path / "out", "private")
    for name in names:
        assert (tmp_path / "out" / name).read_text() == name
    upload = FolderUpload(tmp_path / "out", "back", lambda: client, keep_empty_folders=True)
    upload.run(final=True)
    assert blobs.names("back/") == sorted(f"back/{name}" for name in names)


def test_a_blob_that_changes_meanwhile_is_noticed(
    blobs: BlobTwin, client: BlobClient, tmp_path: Path
) -> None:
    blobs.put("f", "one")
    old = client.head("f")
    assert old is not None
    blobs.put("f", "two")
    with (tmp_path / "f").open("wb") as file, pytest.raises(Unavailable, match="changed while it was read"):
        client.read_range(old, 0, 3, file.fileno())


def test_a_server_that_is_gone_is_given_up_in_words(blobs: BlobTwin) -> None:
    client = client_of(blobs)
    blobs.stop()
    with pytest.raises(Unavailable, match="does not answer as it should"):
        client.head("x")


def test_a_transfer_can_be_cancelled(blobs: BlobTwin, tmp_path: Path) -> None:
    stop = threading.Event()
    client = client_of(blobs, cancelled=stop.is_set)
    blobs.put("f", b"x" * 1000)
    blob = client.head("f")
    assert blob is not None
    stop.set()
    with (tmp_path / "f").open("wb") as file, pytest.raises(Cancelled):
        client.read_range(blob, 0, 1000, file.fileno())


def test_a_cached_file_that_was_tampered_with_is_fetched_anew(
    blobs: BlobTwin, client: BlobClient, tmp_path: Path
) -> None:
    blobs.put("d/f", "right")
    loader = downloader(tmp_path)
    loader.folder(client, blobs.url, "d", tmp_path / "one", "shared")
    os.chmod(tmp_path / "one/f", 0o644)
    (tmp_path / "one/f").write_text("wrong")
    got = loader.folder(client, blobs.url, "d", tmp_path / "two", "shared")
    assert (tmp_path / "two/f").read_text() == "right"
    assert got.cached_files == 0
    got = loader.folder(client, blobs.url, "d", tmp_path / "three", "shared")
    assert got.cached_files == 1
    assert os.stat(tmp_path / "two/f").st_ino == os.stat(tmp_path / "three/f").st_ino


def test_without_links_shared_content_is_copied(blobs: BlobTwin, client: BlobClient, tmp_path: Path) -> None:
    blobs.put("d/f", "content")
    loader = downloader(tmp_path, share_links=False)
    loader.folder(client, blobs.url, "d", tmp_path / "one", "shared")
    assert os.stat(tmp_path / "one/f").st_nlink == 1


def test_the_cache_is_trimmed_from_the_longest_unused(
    blobs: BlobTwin, client: BlobClient, tmp_path: Path
) -> None:
    for name in ("old", "used", "new"):
        blobs.put(f"{name}/f", os.urandom(100_000))
        downloader(tmp_path, share_links=name == "used").folder(
            client, blobs.url, name, tmp_path / name, "shared"
        )
        time.sleep(0.01)
    disk = os.statvfs(tmp_path)
    free = disk.f_bavail * disk.f_frsize
    # Ask for a little more free space than there is.
    cache = Cache(tmp_path / "cache", keep_free=(free + 50_000) / (disk.f_blocks * disk.f_frsize))
    before = {p for p in (tmp_path / "cache").rglob("*") if p.is_file()}
    cache.trim()
    left = {p for p in (tmp_path / "cache").rglob("*") if p.is_file()}
    assert left < before
    assert any(os.stat(p).st_nlink == 2 for p in left), "what a task uses stays"


def test_a_file_and_a_folder_of_one_name(blobs: BlobTwin, client: BlobClient, tmp_path: Path) -> None:
    blobs.put("d/x", "")
    blobs.put("d/x/y", "inner")
    downloader(tmp_path).folder(client, blobs.url, "d", tmp_path / "out", "private")
    assert (tmp_path / "out/x/y").read_text() == "inner"
    blobs.put("e/x", "content")
    blobs.put("e/x/y", "inner")
    with pytest.raises(Unsupported, match="others lie below it"):
        downloader(tmp_path).folder(client, blobs.url, "e", tmp_path / "out2", "private")


def test_an_upload_sends_only_what_changed(blobs: BlobTwin, client: BlobClient, tmp_path: Path) -> None:
    root = tmp_path / "r"
    (root / "sub").mkdir(parents=True)
    (root / "a").write_text("a")
    (root / "sub/b").write_text("b")
    upload = FolderUpload(root, "p", lambda: client, keep_empty_folders=True)
    assert upload.run(final=True).sent_files == 2
    assert not upload.is_dirty()
    assert upload.run(final=True).sent_files == 0
    (root / "a").write_text("longer")
    (root / "sub/b").unlink()
    assert upload.is_dirty()
    result = upload.run(final=True)
    assert (result.sent_files, result.files, result.size_bytes) == (1, 1, 6)
    assert blobs.names("p") == ["p/a", "p/sub"]
    (root / "sub/c").write_text("c")
    upload.run(final=True)
    assert blobs.names("p") == ["p/a", "p/sub/c"], (
        "the mark of the empty folder goes when it is no longer empty"
    )


def test_files_being_written_wait_for_their_turn(blobs: BlobTwin, client: BlobClient, tmp_path: Path) -> None:
    (tmp_path / "r").mkdir()
    (tmp_path / "r/f").write_text("x")
    upload = FolderUpload(tmp_path / "r", "p", lambda: client, keep_empty_folders=True)
    assert upload.run(final=False).sent_files == 0
    assert upload.run(final=True).sent_files == 1


def test_a_link_that_leads_outside_is_not_opened(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "secret").write_text("s")
    (tmp_path / "in/link").symlink_to("../secret")
    (tmp_path / "in/real").write_text("r")
    (tmp_path / "in/good").symlink_to("real")
    os.mkfifo(tmp_path / "in/pipe")
    assert open_inside(tmp_path / "in/link", tmp_path / "in") is None
    assert open_inside(tmp_path / "in/pipe", tmp_path / "in") is None
    descriptor = open_inside(tmp_path / "in/good", tmp_path / "in")
    assert descriptor is not None
    os.close(descriptor)


def test_a_copy_is_independent(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(os.urandom(3_000_000))
    copy_file(tmp_path / "a", tmp_path / "b", 0o644)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    (tmp_path / "b").write_text("changed")
    assert (tmp_path / "a").stat().st_size == 3_000_000


@given(st.text(min_size=1))
def test_relative_names_stay_inside(name: str) -> None:
    try:
        path = safe_relative(name)
    except Unsupported:
        return
    assert not path.is_absolute()
    assert ".." not in path.parts
    assert path.parts


def test_the_first_error_is_raised_and_the_rest_is_dropped() -> None:
    done: list[int] = []

    def work(i: int) -> None:
        if i == 0:
            raise NotFound("gone")
        done.append(i)

    with pytest.raises(TransferError, match="gone"):
        run_parallel([lambda i=i: work(i) for i in range(100)], 2)  # type: ignore[misc]


def test_a_full_disk_is_known_by_its_cause() -> None:
    error = TransferError("x")
    error.__cause__ = OSError(28, "No space left on device")
    assert is_disk_full(error)
    assert not is_disk_full(ValueError())
