"""The blob plane over plain HTTP: the status codes, headers and bodies that clients rely on (wire.md 2.3-2.6)."""

from __future__ import annotations

import base64
import hashlib
import time
from urllib.parse import quote
from xml.etree import ElementTree

import anycrc
import httpx
import pytest

from tests.rest.blob_fixtures import Account, Container, account, container

__all__ = ["account", "container"]


def code(answer: httpx.Response) -> tuple[int, str]:
    """The status and the error code, which is the same in the header and in the body."""
    error = answer.headers["x-ms-error-code"]
    if answer.content:
        assert answer.headers["content-type"].startswith("application/xml")
        assert ElementTree.fromstring(answer.content).findtext("Code") == error
    return answer.status_code, error


def test_put_and_get(container: Container) -> None:
    metadata = {"x-ms-meta-upload_status": "completed"}
    put = container.put("a/b.txt", b"hello", content_type="text/plain", **metadata)
    assert put.headers["etag"].startswith('"0x')
    assert base64.b64decode(put.headers["x-ms-content-crc64"]) == anycrc.Model("CRC64-NVME").calc(
        b"hello"
    ).to_bytes(8, "little")
    got = container.request("GET", "a/b.txt", x_ms_client_request_id="mine", x_ms_version="2020-10-02")
    assert got.content == b"hello"
    expected = {
        "content-type": "text/plain",
        "content-length": "5",
        "etag": put.headers["etag"],
        "last-modified": put.headers["last-modified"],
        "accept-ranges": "bytes",
        "x-ms-blob-type": "BlockBlob",
        "x-ms-meta-upload_status": "completed",
        "content-md5": base64.b64encode(hashlib.md5(b"hello").digest()).decode(),
        "x-ms-client-request-id": "mine",
        "x-ms-version": "2020-10-02",
    }
    assert expected.items() <= dict(got.headers).items()
    assert got.headers["x-ms-request-id"] != "mine"
    assert got.headers["date"]
    head = container.request("HEAD", "a/b.txt")
    assert (head.status_code, head.headers["content-length"], head.content) == (200, "5", b"")
    assert head.headers["etag"] == put.headers["etag"]


def test_what_is_missing(container: Container, account: Account) -> None:
    assert code(container.request("GET", "nope")) == (404, "BlobNotFound")
    assert code(container.request("HEAD", "nope")) == (404, "BlobNotFound")
    assert code(container.request("HEAD", "folder/")) == (404, "BlobNotFound")
    assert code(container.request("DELETE", "nope")) == (404, "BlobNotFound")
    assert code(container.request("PUT", "nope", "comp=metadata")) == (404, "BlobNotFound")
    gone = Container(account, "never-made")
    assert code(gone.request("GET", "x")) == (404, "ContainerNotFound")
    assert code(gone.request("GET", "", "restype=container&comp=list")) == (404, "ContainerNotFound")
    assert code(gone.request("PUT", "x", x_ms_blob_type="BlockBlob")) == (404, "ContainerNotFound")
    gone.http.close()


@pytest.mark.parametrize("header", ["range", "x-ms-range"])
def test_ranges(container: Container, header: str) -> None:
    data = bytes(range(256)) * 200
    container.put("x", data)

    def get(value: str) -> httpx.Response:
        return container.request("GET", "x", **{header: value})

    part = get("bytes=10-19")
    assert (part.status_code, part.content) == (206, data[10:20])
    assert part.headers["content-range"] == f"bytes 10-19/{len(data)}"
    assert "content-md5" not in part.headers
    assert part.headers["x-ms-blob-content-md5"] == base64.b64encode(hashlib.md5(data).digest()).decode()
    assert get("bytes=51190-").content == data[51190:]
    assert get("bytes=51190-99999999").headers["content-range"] == f"bytes 51190-51199/{len(data)}"
    assert get("bytes=-5").content == data[-5:]
    assert get("bytes=0-33554431").status_code == 206
    beyond = get(f"bytes={len(data)}-")
    assert code(beyond) == (416, "InvalidRange")
    assert beyond.headers["content-range"] == f"bytes */{len(data)}"
    for nonsense in ("bytes=5-2", "bytes=x", "lines=1-2", "bytes=-"):
        assert get(nonsense).status_code == 200
    hashed = container.request("GET", "x", x_ms_range="bytes=0-9", x_ms_range_get_content_md5="true")
    assert base64.b64decode(hashed.headers["content-md5"]) == hashlib.md5(data[:10]).digest()


def test_an_empty_blob(container: Container) -> None:
    container.put("empty")
    whole = container.request("GET", "empty")
    assert (whole.status_code, whole.content, whole.headers["content-length"]) == (200, b"", "0")
    assert code(container.request("GET", "empty", x_ms_range="bytes=0-33554431")) == (416, "InvalidRange")


def test_conditions(container: Container) -> None:
    etag = container.put("x", b"1").headers["etag"]
    modified = container.request("HEAD", "x").headers["last-modified"]
    assert code(container.request("GET", "x", if_match='"other"')) == (412, "ConditionNotMet")
    assert container.request("GET", "x", if_match=etag).status_code == 200
    assert container.request("GET", "x", if_match=f'"a", {etag}').status_code == 200
    for method in ("GET", "HEAD"):
        same = container.request(method, "x", if_none_match=etag)
        assert (same.status_code, same.content) == (304, b"")
    assert container.request("GET", "x", if_modified_since=modified).status_code == 304
    early = "Mon, 01 Jan 2001 00:00:00 GMT"
    assert code(container.request("GET", "x", if_unmodified_since=early)) == (412, "ConditionNotMet")

    def put(**headers: str) -> httpx.Response:
        return container.request("PUT", "x", content=b"2", x_ms_blob_type="BlockBlob", **headers)

    assert code(put(if_none_match="*")) == (409, "BlobAlreadyExists")
    assert code(put(if_match='"other"')) == (412, "ConditionNotMet")
    assert code(put(if_modified_since="yesterday")) == (400, "InvalidHeaderValue")
    assert code(container.request("DELETE", "x", if_match='"other"')) == (412, "ConditionNotMet")
    metadata = container.request("PUT", "x", "comp=metadata", if_match='"other"')
    assert code(metadata) == (412, "ConditionNotMet")
    assert put(if_match=etag).status_code == 201


def test_metadata_properties_tags(container: Container) -> None:
    container.put("x", b"1", x_ms_blob_content_encoding="gzip", x_ms_tags="a=1&b=x%20y")
    answer = container.request("PUT", "x", "comp=metadata", x_ms_meta_name="n", x_ms_meta_version="7")
    assert answer.status_code == 200
    got = container.request("GET", "x", "comp=metadata")
    assert {n: v for n, v in got.headers.items() if n.startswith("x-ms-meta-")} == {
        "x-ms-meta-name": "n",
        "x-ms-meta-version": "7",
    }
    assert got.headers["etag"] == answer.headers["etag"]
    assert "<Key>b</Key><Value>x y</Value>" in container.request("GET", "x", "comp=tags").text
    changed = container.request("PUT", "x", "comp=properties", x_ms_blob_content_type="text/csv")
    assert changed.status_code == 200
    head = container.request("HEAD", "x").headers
    assert (head["content-type"], "content-encoding" in head, head["x-ms-tag-count"]) == (
        "text/csv",
        False,
        "2",
    )
    tags = b"<Tags><TagSet><Tag><Key>k</Key><Value>&lt;v&gt;</Value></Tag></TagSet></Tags>"
    assert container.request("PUT", "x", "comp=tags", content=tags).status_code == 204
    assert "<Key>k</Key><Value>&lt;v&gt;</Value>" in container.request("GET", "x", "comp=tags").text
    assert code(container.request("PUT", "x", "comp=metadata", **{"x-ms-meta-1a": "x"})) == (
        400,
        "InvalidMetadata",
    )
    large = container.request("PUT", "x", "comp=metadata", **{"x-ms-meta-a": "x" * 8200})
    assert code(large) == (400, "MetadataTooLarge")
    assert code(container.request("PUT", "x", "comp=tags", content=b"<Tags>")) == (400, "InvalidXmlDocument")


def test_checksums(container: Container) -> None:
    good = base64.b64encode(hashlib.md5(b"data").digest()).decode()
    bad = base64.b64encode(hashlib.md5(b"other").digest()).decode()

    def put(name: str, query: str = "", **headers: str) -> httpx.Response:
        return container.request("PUT", name, query, content=b"data", x_ms_blob_type="BlockBlob", **headers)

    assert put("a", content_md5=good).headers["content-md5"] == good
    assert code(put("b", content_md5=bad)) == (400, "Md5Mismatch")
    assert code(put("b", content_md5="???")) == (400, "InvalidMd5")
    assert code(put("b", x_ms_content_crc64=base64.b64encode(b"12345678").decode())) == (400, "Crc64Mismatch")
    assert code(put("b", "comp=block&blockid=AAAA", content_md5=bad)) == (400, "Md5Mismatch")
    crc = anycrc.Model("CRC64-NVME").calc(b"data").to_bytes(8, "little")
    assert put("c", x_ms_content_crc64=base64.b64encode(crc).decode()).status_code == 201
    assert container.request("HEAD", "b").status_code == 404, "what was damaged on the way was not kept"
    kept = put("d", x_ms_blob_content_md5=bad)
    assert container.request("HEAD", "d").headers["content-md5"] == bad, (kept, "the client's word is kept")


def test_blocks(container: Container) -> None:
    ids = [base64.b64encode(b"%05d" % n).decode() for n in range(3)]
    for n in (2, 0, 1):
        answer = container.request(
            "PUT", "x", f"comp=block&blockid={quote(ids[n])}", content=bytes([n]) * 20_000
        )
        assert answer.status_code == 201
    # Unencoded Base64 in the query is common.
    container.request("PUT", "x", "comp=block&blockid=+/+/AAA=", content=b"x")
    listed = container.request("GET", "x", "comp=blocklist&blocklisttype=all").text
    assert "<CommittedBlocks></CommittedBlocks>" in listed
    assert "<Name>+/+/AAA=</Name><Size>1</Size>" in listed
    body = "<?xml version='1.0'?><BlockList>" + "".join(f"<Latest>{i}</Latest>" for i in ids) + "</BlockList>"
    done = container.request(
        "PUT", "x", "comp=blocklist", content=body.encode(), x_ms_blob_content_type="a/b", x_ms_meta_k="v"
    )
    assert done.status_code == 201
    got = container.request("GET", "x")
    assert got.content == b"".join(bytes([n]) * 20_000 for n in range(3))
    assert (got.headers["content-type"], got.headers["x-ms-meta-k"]) == ("a/b", "v")
    committed = ElementTree.fromstring(container.request("GET", "x", "comp=blocklist").content)
    assert [name.text for name in committed.iter("Name")] == ids
    wrong = b"<BlockList><Latest>AAAA</Latest></BlockList>"
    assert code(container.request("PUT", "x", "comp=blocklist", content=wrong)) == (400, "InvalidBlockList")
    assert code(container.request("PUT", "x", "comp=blocklist", content=b"<")) == (400, "InvalidXmlDocument")
    assert code(container.request("PUT", "x", "comp=block", content=b"1")) == (
        400,
        "MissingRequiredQueryParameter",
    )


def test_appends(container: Container) -> None:
    made = container.request("PUT", "log", x_ms_blob_type="AppendBlob")
    assert made.status_code == 201

    def append(content: bytes, **headers: str) -> httpx.Response:
        return container.request("PUT", "log", "comp=appendblock", content=content, **headers)

    assert append(b"abc").headers["x-ms-blob-append-offset"] == "0"
    second = append(b"def", x_ms_blob_condition_appendpos="3")
    assert second.headers["x-ms-blob-append-offset"] == "3"
    assert second.headers["x-ms-blob-committed-block-count"] == "2"
    assert code(append(b"x", x_ms_blob_condition_appendpos="3")) == (412, "AppendPositionConditionNotMet")
    assert code(append(b"x", x_ms_blob_condition_maxsize="6")) == (412, "MaxBlobSizeConditionNotMet")
    got = container.request("GET", "log")
    assert (got.content, got.headers["x-ms-blob-type"]) == (b"abcdef", "AppendBlob")
    assert container.request("GET", "log", range="bytes=4-").content == b"ef"
    container.put("block", b"1")
    assert code(container.request("PUT", "block", "comp=appendblock", content=b"1")) == (
        409,
        "InvalidBlobType",
    )


NAMES = [
    "..%2F..%2Fetc%2Fpasswd",
    "%2Fabsolute",
    "a//b",
    "sp%20ace%2Bplus%26%3F%23%25",
    quote("ünï/日本語/🙂"),
    quote("quote\"<&>'"),
    "%01control%0D%0A%7F",
    quote("\ufffe"),
    "a" * 1024,
    "trailing/",
    "comp=metadata",
]


@pytest.mark.parametrize("name", NAMES)
def test_names(container: Container, name: str) -> None:
    from urllib.parse import unquote

    container.put(name, b"1")
    assert container.request("GET", name).content == b"1"
    listed = ElementTree.fromstring(container.request("GET", "", "restype=container&comp=list").content)
    [found] = listed.iter("Name")
    text = found.text or ""
    assert (unquote(text) if found.get("Encoded") == "true" else text) == unquote(name)
    assert container.request("DELETE", name).status_code == 202


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("nul%00", (400, "InvalidResourceName")),
        ("%FF%FE", (400, "InvalidUri")),
        ("x" * 1025, (400, "OutOfRangeInput")),
    ],
)
def test_names_that_can_not_be(container: Container, name: str, expected: tuple[int, str]) -> None:
    assert code(container.request("PUT", name, x_ms_blob_type="BlockBlob")) == expected
    assert code(container.request("GET", name)) == expected


def test_listing(container: Container) -> None:
    for name in ("a/1", "a/2", "b", "c/d/e"):
        container.put(name, name.encode(), x_ms_meta_k="<v>")

    def listing(query: str) -> ElementTree.Element:
        answer = container.request("GET", "", f"restype=container&comp=list&{query}")
        assert answer.status_code == 200, answer.text
        return ElementTree.fromstring(answer.content)

    flat = listing("include=metadata")
    assert [blob.findtext("Name") for blob in flat.iter("Blob")] == ["a/1", "a/2", "b", "c/d/e"]
    assert flat.findtext("Blobs/Blob/Metadata/k") == "<v>"
    assert flat.findtext("Blobs/Blob/Properties/Content-Length") == "3"
    assert flat.find("Blobs/Blob/Properties/Etag") is not None
    assert flat.findtext("NextMarker") == ""
    folded = listing("delimiter=%2F")
    assert [p.findtext("Name") for p in folded.iter("BlobPrefix")] == ["a/", "c/"]
    assert [child.tag for child in folded.findall("Blobs/*")] == ["BlobPrefix", "Blob", "BlobPrefix"]
    assert [b.findtext("Name") for b in listing("prefix=a/&delimiter=/").iter("Blob")] == ["a/1", "a/2"]
    names, marker = [], ""
    for _ in range(4):
        page = listing(f"maxresults=1&marker={quote(marker)}")
        names += [blob.findtext("Name") for blob in page.iter("Blob")]
        marker = page.findtext("NextMarker") or ""
    assert (names, marker) == (["a/1", "a/2", "b", "c/d/e"], "")
    for bad in ("maxresults=0", "maxresults=x", "marker=nonsense"):
        assert container.request("GET", "", f"restype=container&comp=list&{bad}").status_code == 400


def test_copies(container: Container, account: Account) -> None:
    container.put("x", b"1" * 20_000, content_type="a/b", x_ms_meta_k="v")
    source = f"{container.url}/x?{container.token}"
    answer = container.request("PUT", "y", x_ms_copy_source=source)
    assert (answer.status_code, answer.headers["x-ms-copy-status"]) == (202, "success")
    got = container.request("GET", "y")
    assert (got.content, got.headers["content-type"], got.headers["x-ms-meta-k"]) == (
        b"1" * 20_000,
        "a/b",
        "v",
    )
    from_url = container.request("PUT", "z", x_ms_copy_source=source, x_ms_blob_type="BlockBlob")
    assert from_url.status_code == 201
    block = container.request(
        "PUT", "b", "comp=block&blockid=AAAA", x_ms_copy_source=source, x_ms_source_range="bytes=0-9"
    )
    assert block.status_code == 201
    container.request("PUT", "b", "comp=blocklist", content=b"<BlockList><Latest>AAAA</Latest></BlockList>")
    assert container.request("GET", "b").content == b"1" * 10

    def refused(source: str) -> tuple[int, str]:
        return code(container.request("PUT", "n", x_ms_copy_source=source))

    # The signature of the request is for its target; the source needs its own.
    assert refused(f"{container.url}/x") == (401, "NoAuthenticationInformation")
    assert refused(f"{container.url}/x?{account.sas(container.name, 'w')}") == (
        403,
        "AuthorizationPermissionMismatch",
    )
    assert refused(f"{container.url}/nothing?{container.token}") == (404, "BlobNotFound")
    assert refused("https://example.com/x") == (400, "CannotVerifyCopySource")
    assert code(container.request("PUT", "y", "comp=copy&copyid=x")) == (409, "NoPendingCopyOperation")


def test_url_shapes(container: Container, account: Account) -> None:
    container.put("a/b", b"1")
    base = account.server.url
    for prefix in (
        f"/blob/{account.name}.blob.local/{container.name}/a/b",
        f"/blob/{account.name}.blob.local//{container.name}/a/b",
        f"/blob/{account.name}.blob.core.windows.net/{container.name}/a/b",
        f"/blob/{account.name}/{container.name}/a/b",
        f"/BLOB/{account.name.upper()}/{container.name}/a/b",
    ):
        assert container.http.get(f"{base}{prefix}?{container.token}").content == b"1", prefix


def test_what_is_not_there_says_so(container: Container) -> None:
    assert code(container.request("PUT", "x", "comp=lease")) == (501, "NotImplemented")
    assert code(container.request("GET", "x", "snapshot=2020-01-01T00:00:00Z")) == (501, "NotImplemented")
    assert code(container.request("PUT", "x", "resource=file")) == (501, "NotImplemented")
    assert code(container.request("PUT", "x", x_ms_blob_type="PageBlob")) == (400, "InvalidHeaderValue")
    assert code(container.request("PUT", "x")) == (400, "MissingRequiredHeader")
    assert code(container.request("PATCH", "x")) == (405, "UnsupportedHttpVerb")
    assert code(container.request("GET", "x", "comp=nonsense")) == (400, "InvalidQueryParameterValue")


def test_an_upload_cut_off_is_never_seen(container: Container) -> None:
    import socket
    import ssl

    context = ssl.create_default_context(cafile=str(container.account.server.home.ca_file))
    port = container.account.server.port
    with (
        socket.create_connection(("127.0.0.1", port)) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1") as connection,
    ):
        path = f"/blob/{container.account.name}/{container.name}/cut?{container.token}"
        connection.sendall(
            f"PUT {path} HTTP/1.1\r\nHost: x\r\nx-ms-blob-type: BlockBlob\r\nContent-Length: 30000000\r\n\r\n".encode()
        )
        connection.sendall(b"x" * 20_000_000)
    assert container.request("HEAD", "cut").status_code == 404
    assert container.request("GET", "", "restype=container&comp=list").text.count("<Blob>") == 0


def test_continue(container: Container) -> None:
    import socket
    import ssl

    context = ssl.create_default_context(cafile=str(container.account.server.home.ca_file))
    port = container.account.server.port

    def first_answer(token: str) -> bytes:
        with (
            socket.create_connection(("127.0.0.1", port)) as plain,
            context.wrap_socket(plain, server_hostname="127.0.0.1") as connection,
        ):
            connection.settimeout(20)
            path = f"/blob/{container.account.name}/{container.name}/c?{token}"
            connection.sendall(
                f"PUT {path} HTTP/1.1\r\nHost: x\r\nx-ms-blob-type: BlockBlob\r\nExpect: 100-continue\r\n"
                "Content-Length: 5\r\n\r\n".encode()
            )
            answer = connection.recv(4096)
            if b" 100 " in answer:
                connection.sendall(b"hello")
                answer += connection.recv(4096)
            return answer

    accepted = first_answer(container.token)
    assert accepted.startswith(b"HTTP/1.1 100")
    assert b"HTTP/1.1 201" in accepted
    # Who may not write is told before sending anything.
    assert first_answer(container.account.sas(container.name, "r")).startswith(b"HTTP/1.1 403")


def test_times_are_the_servers(container: Container) -> None:
    from email.utils import parsedate_to_datetime

    put = container.put("x", b"1")
    assert abs(parsedate_to_datetime(put.headers["last-modified"]).timestamp() - time.time()) < 30
