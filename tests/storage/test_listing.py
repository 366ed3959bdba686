"""Listings: in order of UTF-8 bytes, whole over all pages, folded at delimiters."""

from __future__ import annotations

import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st

from noriba.database.types import metadata
from noriba.storage import index
from noriba.storage.blobs import BlobStore
from noriba.storage.listing import after_prefix, list_blobs
from noriba.storage.model import BlobHeaders, BlobPage, Conditions
from tests.storage.conftest import ACCOUNT, CONTAINER

characters = st.characters(codec="utf-8", exclude_characters="\0") | st.sampled_from("/ab")
names = st.text(characters, min_size=1, max_size=8)


async def all_pages(
    store: BlobStore, prefix: str = "", delimiter: str | None = None, limit: int = 2
) -> tuple[list[str], list[str]]:
    blobs: list[str] = []
    prefixes: list[str] = []
    marker = None
    while True:
        page = await store.list(ACCOUNT, CONTAINER, prefix, delimiter, marker, limit)
        assert len(page.blobs) + len(page.prefixes) <= limit
        blobs += [blob.name for blob in page.blobs]
        prefixes += page.prefixes
        marker = page.marker
        if marker is None:
            return blobs, prefixes


async def test_pages_and_folders(store: BlobStore) -> None:
    names = ["Z", "a", "a/b/c", "a/b/d", "a/e", "a-", "a0", "ä", "日", "🙂", "\uffee", "~"]
    for name in names:
        await store.put(ACCOUNT, CONTAINER, name, b"")
    in_order = sorted(names, key=lambda name: name.encode())
    assert (await all_pages(store)) == (in_order, [])
    assert (await all_pages(store, "a/")) == (["a/b/c", "a/b/d", "a/e"], [])
    assert (await all_pages(store, "", "/", 1)) == ([name for name in in_order if "/" not in name], ["a/"])
    assert (await all_pages(store, "a/", "/", 1)) == (["a/e"], ["a/b/"])
    assert (await all_pages(store, "a/b", "/")) == ([], ["a/b/"])
    assert (await all_pages(store, "none")) == ([], [])


async def test_deep_folders_are_jumped_over(store: BlobStore) -> None:
    for folder in range(3):
        for number in range(300):
            await store.put(ACCOUNT, CONTAINER, f"d{folder}/{number:04}", b"")
    assert (await all_pages(store, "", "/", 100)) == ([], ["d0/", "d1/", "d2/"])


@given(
    st.sets(names, max_size=25), names | st.just(""), st.sampled_from([None, "/", "ab"]), st.integers(1, 5)
)
@settings(max_examples=150, deadline=None)
def test_a_listing_agrees_with_its_definition(
    stored: set[str], prefix: str, delimiter: str | None, limit: int
) -> None:
    engine = sa.create_engine("sqlite://")
    metadata.create_all(engine)
    with engine.begin() as connection:
        index.insert_container(connection, "a", "con", {}, 0)
        inside = index.container_id(connection, "a", "con")
        for name in stored:
            new = index.Replacement(
                kind="BlockBlob",
                content_id=index.new_content_id(),
                size=0,
                headers=BlobHeaders(),
                metadata={},
                tags={},
            )
            index.replace_blob(connection, "a", "con", name, new, Conditions(), 0)
        pages: list[BlobPage] = []
        marker = None
        while not pages or marker is not None:
            pages.append(list_blobs(connection, inside, prefix, delimiter, marker, limit))
            marker = pages[-1].marker
    blobs, prefixes = [], []
    for name in sorted(stored, key=str.encode):
        if not name.startswith(prefix):
            continue
        at = name.find(delimiter, len(prefix)) if delimiter else -1
        if at < 0:
            blobs.append(name)
        elif name[: at + len(delimiter or "")] not in prefixes:
            prefixes.append(name[: at + len(delimiter or "")])
    assert [blob.name for page in pages for blob in page.blobs] == blobs
    assert [folder for page in pages for folder in page.prefixes] == prefixes
    assert all(len(page.blobs) + len(page.prefixes) <= limit for page in pages)


@given(names, names)
def test_after_prefix_is_the_least_string_beyond(prefix: str, other: str) -> None:
    beyond = after_prefix(prefix)
    assert beyond is None or beyond > prefix + other
    if beyond is not None and not other.startswith(prefix):
        assert (other < prefix) or (other >= beyond)
