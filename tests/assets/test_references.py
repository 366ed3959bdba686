import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noriba.assets.references import (
    AssetReference,
    DatastoreReference,
    JobOutputReference,
    RunReference,
    UrlReference,
    WorkspaceName,
    parse_reference,
)
from noriba.models.errors import BadRequest

WORKSPACE = "/subscriptions/s/resourceGroups/g/providers/Microsoft.MachineLearningServices/workspaces/w"
W = WorkspaceName("s", "g", "w")

FORMS = {
    "azureml:dd:1": AssetReference(name="dd", version="1"),
    "dd:1": AssetReference(name="dd", version="1"),
    "azureml:dd@latest": AssetReference(name="dd", label="latest"),
    "azureml:azureml:dd@latest": AssetReference(name="dd", label="latest"),
    "azureml:AzureML-sklearn-1.0-ubuntu20.04-py38-cpu@latest": AssetReference(
        name="AzureML-sklearn-1.0-ubuntu20.04-py38-cpu", label="latest"
    ),
    f"{WORKSPACE}/data/dd/versions/1": AssetReference(kind="data", name="dd", version="1", workspace=W),
    f"azureml:{WORKSPACE}/codes/c/versions/1": AssetReference(
        kind="codes", name="c", version="1", workspace=W
    ),
    f"{WORKSPACE}/data/azureml:dd/versions/1": AssetReference(
        kind="data", name="dd", version="1", workspace=W
    ),
    f"{WORKSPACE}/environments/e/labels/latest": AssetReference(
        kind="environments", name="e", label="latest", workspace=W
    ),
    "azureml://subscriptions/s/resourcegroups/g/workspaces/w/data/dd/versions/1": AssetReference(
        kind="data", name="dd", version="1", workspace=W
    ),
    "azureml://registries/azureml/environments/sklearn-1.5/labels/latest": AssetReference(
        kind="environments", name="sklearn-1.5", label="latest", registry="azureml"
    ),
    "azureml://registries/r/models/m/versions/9": AssetReference(
        kind="models", name="m", version="9", registry="r"
    ),
    "azureml://locations/local/workspaces/guid/data/azureml_j_output_data_o/versions/1": AssetReference(
        kind="data", name="azureml_j_output_data_o", version="1", workspace_id="guid"
    ),
    "azureml://models/m/versions/2": AssetReference(kind="models", name="m", version="2"),
    "azureml://datastores/d/paths/a/b.csv": DatastoreReference(datastore="d", path="a/b.csv"),
    "azureml://datastores/d/paths/a/": DatastoreReference(datastore="d", path="a/"),
    "azureml://datastores/d/paths/": DatastoreReference(datastore="d"),
    "azureml://datastores/d": DatastoreReference(datastore="d"),
    "azureml://datastores/d/paths/a b/ü:@.csv": DatastoreReference(datastore="d", path="a b/ü:@.csv"),
    "azureml://datastores/d/ExperimentRun/dcid.j/x": DatastoreReference(
        datastore="d", path="ExperimentRun/dcid.j/x"
    ),
    "folder:azureml://datastores/d/paths/a/": DatastoreReference(datastore="d", path="a/"),
    "azureml://subscriptions/s/resourcegroups/g/workspaces/w/datastores/d/paths/a": DatastoreReference(
        datastore="d", path="a", workspace=W
    ),
    "azureml://subscriptions/s/resourceGroups/g/providers/Microsoft.MachineLearningServices/workspaces/w"
    "/datastores/d/paths/a": DatastoreReference(datastore="d", path="a", workspace=W),
    "azureml://jobs/j/outputs/o": JobOutputReference(job="j", output="o"),
    "azureml://jobs/j/outputs/artifacts/paths/model/": JobOutputReference(
        job="j", output="artifacts", path="model/"
    ),
    "runs:/j/model": RunReference(run="j", path="model"),
    "runs:/j": RunReference(run="j"),
    "https://h/a.csv?x=1": UrlReference(scheme="https", url="https://h/a.csv?x=1"),
    "wasbs://c@a.blob.core.windows.net/p": UrlReference(
        scheme="wasbs", url="wasbs://c@a.blob.core.windows.net/p"
    ),
    "S3://bucket/p": UrlReference(scheme="s3", url="S3://bucket/p"),
    "file:///etc/passwd": UrlReference(scheme="file", url="file:///etc/passwd"),
}


@pytest.mark.parametrize("text", FORMS)
def test_every_form_is_understood(text: str) -> None:
    assert parse_reference(text) == FORMS[text]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "./data",
        "data.csv",
        "/etc/passwd",
        "azureml:",
        "azureml://",
        "azureml://registries/r",
        "azureml://registries/r/computes/c/versions/1",
        "azureml://datastores/",
        "azureml://jobs/j",
        f"{WORKSPACE}/computes/c",
        "ftp://host/file",
        "a:b:c",
    ],
)
def test_what_is_no_reference_is_named(text: str) -> None:
    with pytest.raises(BadRequest) as caught:
        parse_reference(text)
    assert caught.value.code == "InvalidReference"
    assert f"'{text}'" in caught.value.message


@given(st.text())
def test_any_text_is_parsed_or_refused(text: str) -> None:
    with contextlib.suppress(BadRequest):
        assert parse_reference(text) is not None


@given(st.text(min_size=1).filter(lambda path: path == path.strip() and path[0] != "/"))
def test_paths_are_kept_as_they_are(path: str) -> None:
    found = parse_reference(f"azureml://datastores/d/paths/{path}")
    assert found == DatastoreReference(datastore="d", path=path)
