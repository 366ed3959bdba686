"""Who may do what on the blob plane: signatures, shared keys, bearer tokens, over the wire."""

from __future__ import annotations

import time

import httpx
import pytest

from noriba.storage.sas import blob_sas, container_sas, directory_sas
from tests.rest.blob_fixtures import Account, Container, account, container
from tests.rest.test_blob_protocol import code

__all__ = ["account", "container"]


def put(container: Container, blob: str, token: str, **headers: str) -> httpx.Response:
    return container.request(
        "PUT", blob, token=token, content=b"2", **{"x_ms_blob_type": "BlockBlob", **headers}
    )


def test_nothing_is_public(container: Container) -> None:
    container.put("x", b"1")
    for method, blob, query in [
        ("GET", "x", ""),
        ("HEAD", "x", ""),
        ("PUT", "x", ""),
        ("DELETE", "x", ""),
        ("GET", "", "restype=container&comp=list"),
        ("DELETE", "", "restype=container"),
    ]:
        answer = container.request(method, blob, query, token="")
        assert code(answer) == (401, "NoAuthenticationInformation")
        assert "resource_id=https://storage.azure.com" in answer.headers["www-authenticate"]
    assert container.request("GET", "x").content == b"1"


@pytest.mark.parametrize("permission", list("racwdl"))
def test_each_permission_allows_its_own(container: Container, account: Account, permission: str) -> None:
    container.put("x", b"1")
    container.request("PUT", "log", x_ms_blob_type="AppendBlob")
    token = account.sas(container.name, permission)
    outcomes = {
        "read": container.request("GET", "x", token=token),
        "head": container.request("HEAD", "x", token=token),
        "list": container.request("GET", "", "restype=container&comp=list", token=token),
        "overwrite": put(container, "x", token),
        "create": put(container, "new", token),
        "block": container.request("PUT", "x", "comp=block&blockid=AAAA", token=token, content=b"1"),
        "append": container.request("PUT", "log", "comp=appendblock", token=token, content=b"1"),
        "metadata": container.request("PUT", "x", "comp=metadata", token=token),
        "copy": container.request(
            "PUT", "c", token=token, x_ms_copy_source=f"{container.url}/x?{container.token}"
        ),
        "delete": container.request("DELETE", "x", token=token),
    }
    allowed = {
        "r": {"read", "head"},
        "l": {"list"},
        "a": {"append"},
        "c": {"create", "block", "copy"},
        "w": {"overwrite", "create", "block", "append", "metadata", "copy"},
        "d": {"delete"},
    }[permission]
    assert {name for name, answer in outcomes.items() if answer.is_success} == allowed
    for name in outcomes.keys() - allowed:
        expected = "AuthorizationPermissionMismatch"
        if (permission, name) == ("c", "overwrite"):
            expected = "UnauthorizedBlobOverwrite"
        assert code(outcomes[name]) == (403, expected), name


def test_signatures_keep_to_their_scope(container: Container, account: Account) -> None:
    for name in ("d/x", "d/y", "dd/x"):
        container.put(name, b"1")
    soon = time.time() + 60
    directory = directory_sas(account.key, account.name, container.name, "d", "rlw", soon)
    assert container.request("GET", "d/x", token=directory).status_code == 200
    assert container.request("GET", "", "restype=container&comp=list&prefix=d/", token=directory).is_success
    for blob, query in [
        ("dd/x", ""),
        ("", "restype=container&comp=list&prefix=d"),
        ("", "restype=container&comp=list"),
    ]:
        answer = container.request("GET", blob, query, token=directory)
        assert code(answer) == (403, "AuthenticationFailed")
    blob = blob_sas(account.key, account.name, container.name, "d/x", "r", soon)
    assert container.request("GET", "d/x", token=blob).status_code == 200
    assert code(container.request("GET", "d/y", token=blob)) == (403, "AuthenticationFailed")


def test_bad_signatures(container: Container, account: Account) -> None:
    container.put("x", b"1")
    token = account.sas(container.name, "r")
    expired = container_sas(account.key, account.name, container.name, "r", time.time() - 1)
    future = container_sas(
        account.key, account.name, container.name, "r", time.time() + 60, starts_at=time.time() + 30
    )
    foreign = container_sas(b"x" * 64, account.name, container.name, "r", time.time() + 60)
    for bad in (
        expired,
        future,
        foreign,
        token.replace("sp=r", "sp=rw"),
        token[:-10] + "AAAAAAAA%3D%3D",
        token.replace("sig=", "sig=x"),
        "sig=",
        "sv=2022-11-02&sig=AAAA",
        "sr=c&sig=%FF",
    ):
        answer = container.request("GET", "x", token=bad)
        assert code(answer) == (403, "AuthenticationFailed"), bad
        assert "AuthenticationErrorDetail" in answer.text


def test_the_response_headers_of_a_signature(container: Container, account: Account) -> None:
    from azure.storage.blob import generate_blob_sas

    container.put("x", b"1", content_type="text/plain")
    token = generate_blob_sas(
        account.name,
        container.name,
        "x",
        account_key=account.encoded_key,
        permission="r",
        expiry="2099-01-01",
        content_disposition="attachment; filename=x.bin",
        content_type="application/x-thing",
    )
    headers = container.request("GET", "x", token=token).headers
    assert headers["content-type"] == "application/x-thing"
    assert headers["content-disposition"] == "attachment; filename=x.bin"


def test_bearer_tokens(container: Container, account: Account) -> None:
    container.put("x", b"1")
    for audience in ("https://storage.azure.com", account.server.url):
        with account.server.client(audience=audience) as client:
            assert client.get(f"{container.url}/x").content == b"1"
            answer = client.put(f"{container.url}/y", content=b"2", headers={"x-ms-blob-type": "BlockBlob"})
            assert answer.status_code == 201
            listed = client.get(f"{account.url}/?comp=list&prefix={container.name}")
            assert f"<Name>{container.name}</Name>" in listed.text
            other = client.get(f"{account.server.url}/blob/nobodys/{container.name}/x")
            assert code(other) == (404, "AccountNotFound")
    forged = container.http.get(f"{container.url}/x", headers={"Authorization": "Bearer nonsense"})
    assert code(forged)[0] == 401


def test_shared_keys(container: Container, account: Account) -> None:
    from azure.core.exceptions import HttpResponseError
    from azure.storage.blob import BlobServiceClient

    bundle = str(account.server.home.bundle_file)
    container.put("x y", b"1")
    good = BlobServiceClient(account.url, credential=account.credential, connection_verify=bundle)
    assert good.get_blob_client(container.name, "x y").download_blob().readall() == b"1"
    for bad in ({**account.credential, "account_key": "AAAA"}, {**account.credential, "account_name": "x"}):
        client = BlobServiceClient(account.url, credential=bad, connection_verify=bundle)
        if bad["account_name"] == "x":
            # The name is what the client calls the account; the key is what counts.
            assert client.get_blob_client(container.name, "x y").exists()
            continue
        with pytest.raises(HttpResponseError) as refused:
            client.get_blob_client(container.name, "x y").download_blob()
        assert refused.value.error_code == "AuthenticationFailed"


def test_a_signed_request_can_not_be_replayed_later(container: Container, account: Account) -> None:
    from noriba.storage.sas import shared_key_texts, sign

    container.put("x", b"1")
    url = httpx.URL(f"{container.url}/x")

    def get(date: str) -> httpx.Response:
        headers = {"x-ms-date": date, "x-ms-version": "2021-08-06"}
        text = shared_key_texts("GET", url.path, [], headers, account.name)[0]
        headers["Authorization"] = f"SharedKey {account.name}:{sign(account.key, text)}"
        return container.http.get(url, headers=headers)

    from email.utils import formatdate

    assert get(formatdate(usegmt=True)).content == b"1"
    assert code(get(formatdate(time.time() - 3600, usegmt=True))) == (403, "AuthenticationFailed")
    assert code(get("")) == (403, "AuthenticationFailed")


def test_registry_containers_have_addresses_of_one_segment(account: Account) -> None:
    from noriba.identity.keys import Keys
    from noriba.rest.blob_request import REGISTRY_ACCOUNT

    key = Keys.load(account.server.home.keys).account_key(REGISTRY_ACCOUNT)
    base, name = account.server.url, f"reg-{time.time_ns()}"
    with account.server.client() as client:
        client.put(f"{base}/{name}?restype=container").raise_for_status()
        token = container_sas(key, REGISTRY_ACCOUNT, name, "rwl", time.time() + 60)
        client.headers.pop("Authorization")
        url = f"{base}/{name}/m/model.pkl?{token}"
        assert client.put(url, content=b"1", headers={"x-ms-blob-type": "BlockBlob"}).status_code == 201
        assert client.get(url).content == b"1"
        assert "m/model.pkl" in client.get(f"{base}/{name}?restype=container&comp=list&{token}").text
        assert client.get(f"{base}/{name}/m/model.pkl").status_code == 401
        # Other unknown paths stay what they are.
        assert client.get(f"{base}/nothing/here").json()["error"]["code"] == "InvalidResourceType"


def test_what_browsers_show_can_not_act_for_its_reader(container: Container, account: Account) -> None:
    container.put("page.html", b"<script>fetch('/')</script>", content_type="text/html")
    headers = container.request("GET", "page.html").headers
    assert headers["content-security-policy"] == "sandbox"
    assert headers["x-content-type-options"] == "nosniff"


def test_headers_can_not_be_injected(container: Container, account: Account) -> None:
    from azure.storage.blob import generate_blob_sas

    container.put("x", b"1")
    token = generate_blob_sas(
        account.name,
        container.name,
        "x",
        account_key=account.encoded_key,
        permission="r",
        expiry="2099-01-01",
        content_type="text/plain\r\nset-cookie: a=b",
    )
    answer = container.request("GET", "x", token=token)
    assert answer.headers["content-type"] == "text/plain??set-cookie: a=b"
    assert "set-cookie" not in answer.headers
