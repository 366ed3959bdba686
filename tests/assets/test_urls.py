import pytest

from noriba.assets.urls import BlobAddress, azure_blob, own_blob

BASE = "https://127.0.0.1:8443"


@pytest.mark.parametrize(
    ("url", "address"),
    [
        (f"{BASE}/blob/ws1.blob.local/c1/src", BlobAddress(account="ws1", container="c1", path="src")),
        (f"{BASE}/blob/ws1/c1/src/", BlobAddress(account="ws1", container="c1", path="src/")),
        (
            f"{BASE}/blob/ws1.blob.local//c1/a%20b?sig=x",
            BlobAddress(account="ws1", container="c1", path="a b"),
        ),
        ("https://other:1/blob/ws1.blob.local/c1", BlobAddress(account="ws1", container="c1", path="")),
        (f"{BASE}/mlflow/v1.0", None),
        ("s3://bucket/blob/x/y", None),
        ("https://[/blob/ws1/c1/x", None),
    ],
)
def test_own_addresses(url: str, address: BlobAddress | None) -> None:
    assert own_blob(url) == address


@pytest.mark.parametrize(
    ("url", "address"),
    [
        (
            "https://acct.blob.core.windows.net/c/p/a.csv?sv=1&sig=x",
            BlobAddress(
                account="acct",
                container="c",
                path="p/a.csv",
                container_url="https://acct.blob.core.windows.net/c",
                sas="sv=1&sig=x",
            ),
        ),
        (
            "wasbs://c@acct.blob.core.windows.net/p/",
            BlobAddress(
                account="acct", container="c", path="p/", container_url="https://acct.blob.core.windows.net/c"
            ),
        ),
        (
            "abfss://fs@acct.dfs.core.windows.net/p",
            BlobAddress(
                account="acct",
                container="fs",
                path="p",
                container_url="https://acct.blob.core.windows.net/fs",
            ),
        ),
        ("https://example.com/data.csv", None),
        ("wasbs://acct.blob.core.windows.net/p", None),
    ],
)
def test_addresses_in_azure(url: str, address: BlobAddress | None) -> None:
    assert azure_blob(url) == address
