"""Shared access signatures: Microsoft's own verify here, ours hold exactly as far as they say."""

from __future__ import annotations

import base64
import datetime as dt
from typing import Any
from urllib.parse import parse_qsl

import pytest
from azure.storage.blob import (
    AccountSasPermissions,
    BlobSasPermissions,
    ContainerSasPermissions,
    ResourceTypes,
    generate_account_sas,
    generate_blob_sas,
    generate_container_sas,
)
from azure.storage.filedatalake import generate_directory_sas

from noriba.models.errors import Forbidden
from noriba.storage.sas import Caller, Wanted, blob_sas, check_sas, container_sas, directory_sas

KEY = b"k" * 64
ENCODED = base64.b64encode(KEY).decode()
NOW = 1_800_000_000.0
LATER = dt.datetime.fromtimestamp(NOW + 3600, dt.UTC)
HERE = Caller("127.0.0.1", is_https=True)


def check(token: str, wanted: Wanted, *, key: bytes = KEY, now: float = NOW, caller: Caller = HERE) -> str:
    fields = dict(parse_qsl(token, keep_blank_values=True))
    return check_sas(fields, key, ["acct"], wanted, caller, now)


def refusal(token: str, wanted: Wanted, **options: Any) -> str:
    with pytest.raises(Forbidden) as refused:
        check(token, wanted, **options)
    return refused.value.code


def read(name: str, container: str = "con") -> Wanted:
    return Wanted("r", "o", container, name)


OURS = {
    "container": container_sas(KEY, "acct", "con", "rl", NOW + 3600),
    "directory": directory_sas(KEY, "acct", "con", "a/b", "rl", NOW + 3600),
    "blob": blob_sas(KEY, "acct", "con", "a/b/c", "r", NOW + 3600),
}
MICROSOFTS = {
    "container": generate_container_sas(
        "acct",
        "con",
        account_key=ENCODED,
        permission=ContainerSasPermissions(read=True, list=True),
        expiry=LATER,
    ),
    "directory": generate_directory_sas("acct", "con", "a/b", ENCODED, permission="rl", expiry=LATER),
    "blob": generate_blob_sas(
        "acct", "con", "a/b/c", account_key=ENCODED, permission=BlobSasPermissions(read=True), expiry=LATER
    ),
    "account": generate_account_sas(
        "acct",
        ENCODED,
        ResourceTypes(object=True, container=True),
        AccountSasPermissions(read=True, list=True),
        LATER,
    ),
}
TOKENS = [(kind, token) for made in (OURS, MICROSOFTS) for kind, token in made.items()]


@pytest.mark.parametrize(("kind", "token"), TOKENS)
def test_a_signature_reaches_as_far_as_it_says(kind: str, token: str) -> None:
    assert "r" in check(token, read("a/b/c"))
    reaches = {
        "blob": set(),
        "directory": {"a/b/d", "a/b/d/e", "a/b"},
        "container": {"a/b/d", "a/b/d/e", "a/b", "a/bc", "x"},
        "account": {"a/b/d", "a/b/d/e", "a/b", "a/bc", "x"},
    }[kind]
    for name in ("a/b/d", "a/b/d/e", "a/b", "a/bc", "x", "a", "A/b/c"):
        if name in reaches or (kind in ("container", "account")):
            check(token, read(name))
        else:
            assert refusal(token, read(name)) == "AuthenticationFailed"
    if kind == "account":
        check(token, read("a/b/c", "other"))
    else:
        assert refusal(token, read("a/b/c", "other")) == "AuthenticationFailed"


@pytest.mark.parametrize(("kind", "token"), TOKENS)
def test_forged_expired_and_foreign_ones_are_refused(kind: str, token: str) -> None:
    wanted = read("a/b/c")
    assert refusal(token, wanted, now=NOW + 3600) == "AuthenticationFailed"
    assert refusal(token, wanted, key=b"o" * 64) == "AuthenticationFailed"
    fields = dict(parse_qsl(token))
    for name in fields:
        changed = {
            **fields,
            name: {"se": "2099-01-01T00:00:00Z", "sp": "racwdl"}.get(name, fields[name] + "x"),
        }
        with pytest.raises(Forbidden):
            check_sas(changed, KEY, ["acct"], wanted, HERE, NOW)
    del fields["sig"]
    with pytest.raises(Forbidden):
        check_sas(fields, KEY, ["acct"], wanted, HERE, NOW)


@pytest.mark.parametrize(("kind", "token"), TOKENS)
def test_permissions(kind: str, token: str) -> None:
    assert refusal(token, Wanted("cw", "o", "con", "a/b/c")) == "AuthorizationPermissionMismatch"
    assert refusal(token, Wanted("d", "o", "con", "a/b/c")) == "AuthorizationPermissionMismatch"
    listing = Wanted("l", "c", "con", "a/b/")
    if kind == "blob":
        assert refusal(token, listing) == "AuthenticationFailed"
    else:
        check(token, listing)
    if kind == "directory":
        for prefix in ("", "a/b", "a/", "a/bc/"):
            assert refusal(token, Wanted("l", "c", "con", prefix)) == "AuthenticationFailed"
    service = refusal(token, Wanted("l", "s"))
    assert service == ("AuthorizationResourceTypeMismatch" if kind == "account" else "AuthenticationFailed")


def test_start_protocol_address() -> None:
    later = container_sas(KEY, "acct", "con", "r", NOW + 3600, starts_at=NOW + 60)
    assert refusal(later, read("x")) == "AuthenticationFailed"
    check(later, read("x"), now=NOW + 60)
    https = generate_container_sas(
        "acct",
        "con",
        account_key=ENCODED,
        permission="r",
        expiry=LATER,
        protocol="https",
        ip="10.0.0.1-10.0.0.9",
    )
    check(https, read("x"), caller=Caller("10.0.0.5", is_https=True))
    assert (
        refusal(https, read("x"), caller=Caller("10.0.0.5", is_https=False))
        == "AuthorizationProtocolMismatch"
    )
    for address in ("10.0.0.10", "::1"):
        code = refusal(https, read("x"), caller=Caller(address, is_https=True))
        assert code == "AuthorizationSourceIPMismatch"
    assert refusal(https, read("x"), caller=Caller("", is_https=True)) == "AuthenticationFailed"


@pytest.mark.parametrize("version", ["2017-11-09", "2018-11-09", "2019-12-12", "2020-12-06", "2025-05-05"])
def test_versions(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fields = {"sv": version, "sr": "c", "sp": "r", "se": "2030-01-01"}
    lines = ["r", "", "2030-01-01", "/blob/acct/con", "", "", "", version]
    lines += ["c", ""] if version >= "2018-11-09" else []
    lines += [""] if version >= "2020-12-06" else []
    text = "\n".join([*lines, "", "", "", "", ""])
    from noriba.storage.sas import sign

    check_sas({**fields, "sig": sign(KEY, text)}, KEY, ["acct"], read("x"), HERE, NOW)


def test_what_is_not_supported_is_refused() -> None:
    token = dict(parse_qsl(OURS["container"]))
    for extra in ({"si": "policy"}, {"skoid": "x"}, {"se": "soon"}, {"sr": "bs"}):
        with pytest.raises(Forbidden):
            check_sas({**token, **extra}, KEY, ["acct"], read("x"), HERE, NOW)
