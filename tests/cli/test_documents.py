"""The documents that the CLI shows are those of the SDK's entities, which is what ``az ml`` shows."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noriba.client import documents

WS = "/subscriptions/s/resourceGroups/rg/providers/Microsoft.MachineLearningServices/workspaces/ws"
SYSTEM_DATA = {
    "createdAt": "2026-11-23T00:00:00.123456Z",
    "createdBy": "root",
    "createdByType": "User",
    "lastModifiedAt": "2026-11-23T00:00:00Z",
}
SERVICES = {
    "Tracking": {"endpoint": "https://h/x", "jobServiceType": "Tracking"},
    "Studio": {"endpoint": "https://h/runs/j1?wsid=x", "jobServiceType": "Studio"},
}


def _document(path: str, **properties: Any) -> dict[str, Any]:
    name = path.rpartition("/")[2]
    return {"id": f"{WS}/{path}", "name": name, "systemData": SYSTEM_DATA, "properties": properties}


COMMAND = _document(
    "jobs/j1",
    jobType="Command",
    status="Completed",
    displayName="J 1",
    description="d",
    experimentName="exp1",
    isArchived=False,
    command="python main.py ${{inputs.n}}",
    codeId=f"{WS}/codes/g/versions/1",
    environmentId=f"{WS}/environments/e1/versions/1",
    computeId=f"{WS}/computes/cpu",
    tags={"camelCase": "b"},
    properties={"somePProperty": "q"},
    environmentVariables={"someVar": "1"},
    inputs={
        "someNumber": {"jobInputType": "literal", "value": "3"},
        "f": {"jobInputType": "uri_file", "uri": "azureml://datastores/x/paths/a.csv"},
        "d": {"jobInputType": "uri_folder", "uri": "azureml://datastores/x/paths/data/", "mode": "Download"},
        "a": {"jobInputType": "uri_folder", "uri": f"{WS}/data/dd/versions/1"},
        "m": {"jobInputType": "mlflow_model", "uri": f"{WS}/models/m/versions/1", "mode": "ReadOnlyMount"},
    },
    outputs={
        "o1": {"jobOutputType": "uri_folder"},
        "o2": {"jobOutputType": "uri_file", "uri": "azureml://datastores/x", "mode": "ReadWriteMount"},
        "o3": {"jobOutputType": "mlflow_model", "assetName": "mm", "assetVersion": "3"},
    },
    distribution={"distributionType": "PyTorch", "processCountPerInstance": 4},
    resources={
        "instanceCount": 2,
        "instanceType": "STANDARD_D2",
        "shmSize": "8g",
        "dockerArgs": "--ipc=host",
        "locations": ["westus"],
        "properties": {},
    },
    limits={"jobLimitsType": "Command", "timeout": "PT1H10M"},
    queueSettings={"jobTier": "Spot", "priority": 3},
    identity={"identityType": "UserIdentity"},
    services={
        **SERVICES,
        "jl": {"jobServiceType": "JupyterLab", "nodes": {"nodesValueType": "All"}},
        "ssh": {"jobServiceType": "SSH", "properties": {"sshPublicKeys": "ssh-rsa A"}},
        "tb": {"jobServiceType": "TensorBoard", "properties": {"logDir": "outputs/tb"}},
    },
)
SMALL = _document(
    "jobs/j2",
    jobType="Command",
    status="Running",
    command="ls",
    environmentId="azureml://registries/azureml/environments/sklearn-1.5/labels/latest",
    experimentName="e",
    services=SERVICES,
    properties={},
    tags={},
)
MPI = _document(
    "jobs/j3",
    jobType="Command",
    status="Queued",
    command="ls",
    environmentId="azureml:e:1",
    experimentName="e",
    services=SERVICES,
    properties={},
    tags={},
    distribution={"distributionType": "Mpi", "processCountPerInstance": 2},
    queueSettings={"jobTier": "Standard"},
    limits={"jobLimitsType": "Command", "timeout": "P1DT30S"},
)


def _command(document: dict[str, Any]) -> Any:
    from azure.ai.ml._restclient.arm_ml_service.models import JobBase
    from azure.ai.ml.entities import CommandJob

    return CommandJob._load_from_rest(JobBase(document))


def _any_job(document: dict[str, Any]) -> Any:
    from azure.ai.ml._restclient.arm_ml_service.models import JobBase
    from azure.ai.ml.entities import Job

    return Job._from_rest_object(JobBase(document))


def _entity(kind: str, model: str) -> Callable[[dict[str, Any]], Any]:
    def build(document: dict[str, Any]) -> Any:
        from azure.ai.ml import entities
        from azure.ai.ml._restclient.arm_ml_service import models
        from azure.ai.ml.entities._datastore.datastore import Datastore

        cls = Datastore if kind == "Datastore" else getattr(entities, kind)
        return cls._from_rest_object(getattr(models, model)(document))

    return build


SWEEP = _document(
    "jobs/s1",
    jobType="Sweep",
    status="Running",
    experimentName="e",
    computeId=f"{WS}/computes/serverless",
    searchSpace={
        "lr": ["uniform", [0.01, 0.9]],
        "bs": ["choice", [[16, 32]]],
        "someQ": ["quniform", [1, 9, 2]],
        "n": ["normal", [0, 1]],
        "r": ["randint", [7]],
    },
    samplingAlgorithm={"samplingAlgorithmType": "Random"},
    objective={"goal": "maximize", "primaryMetric": "acc"},
    limits={
        "jobLimitsType": "Sweep",
        "maxTotalTrials": 4,
        "maxConcurrentTrials": 2,
        "timeout": "PT1H",
        "trialTimeout": "PT10M",
    },
    earlyTermination={
        "policyType": "Bandit",
        "slackFactor": 0.1,
        "evaluationInterval": 2,
        "delayEvaluation": 3,
    },
    trial={"codeId": f"{WS}/codes/g/versions/1", "environmentId": "azureml:e:1", "command": "python main.py"},
    services=SERVICES,
    inputs={},
    outputs={},
    queueSettings={"jobTier": "Standard"},
    resources={"instanceType": "X", "instanceCount": 1, "properties": {}},
    properties={},
    tags={},
)
PIPELINE = _document(
    "jobs/p1",
    jobType="Pipeline",
    status="Running",
    displayName="p1",
    experimentName="exp1",
    services=SERVICES,
    computeId=f"{WS}/computes/cpu",
    tags={"a": "b"},
    properties={"p": "q"},
    inputs={"lr": {"jobInputType": "literal", "value": "0.3"}},
    outputs={"out": {"jobOutputType": "uri_folder", "mode": "Upload"}},
    settings={
        "default_compute": f"{WS}/computes/serverless",
        "continue_on_step_failure": False,
        "_source": "DSL",
    },
    jobs={},
)
ENVIRONMENT = _document(
    "environments/e/versions/2",
    image="ubuntu",
    condaFile="name: x\ndependencies: [python=3.10]\n",
    description="d",
    tags={"a": "b"},
    osType="Linux",
    isAnonymous=False,
    isArchived=False,
    environmentType="UserCreated",
)
BUILD = _document(
    "environments/e/versions/3", build={"contextUri": "https://h/c/", "dockerfilePath": "Dockerfile"}, tags={}
)
DATA = _document(
    "data/dd/versions/1",
    dataType="uri_folder",
    dataUri="azureml://datastores/x/paths/y/",
    isAnonymous=False,
    isArchived=False,
    tags={},
    properties={},
)
MODEL = _document(
    "models/m/versions/1",
    modelType="mlflow_model",
    modelUri="azureml://datastores/x/paths/y/",
    flavors={"python_function": {"data": {"loaderModule": "b"}}},
    stage="Production",
    tags={},
    properties={},
    jobName="j1",
)
COMPONENT = _document(
    "components/train/versions/1",
    isAnonymous=False,
    isArchived=False,
    tags={},
    properties={},
    componentSpec={
        "$schema": "..",
        "type": "command",
        "name": "train",
        "version": "1",
        "display_name": "Train",
        "is_deterministic": True,
        "command": "python run.py",
        "environment": "azureml:e:1",
        "inputs": {"lr": {"type": "number", "default": "0.1"}},
        "outputs": {"someModel": {"type": "mlflow_model"}},
        "_source": "YAML.COMPONENT",
    },
)
DATASTORE = _document(
    "datastores/x",
    datastoreType="AzureBlob",
    isDefault=True,
    accountName="a",
    containerName="c",
    endpoint="local",
    protocol="https",
    credentials={"credentialsType": "Sas"},
    tags={},
    description="d",
)
WORKSPACE = {
    **_document(
        "x", friendlyName="ws", workspaceId="g", discoveryUrl="u", description="d", mlFlowTrackingUri="m"
    ),
    "id": WS,
    "name": "ws",
    "location": "local",
    "tags": {"a": "b"},
    "identity": {"type": "SystemAssigned", "principalId": "g", "tenantId": "t"},
}

BEYOND = {"resourceGroup", "creation_context", "status"}
"""az's own field, and two that this version of the SDK prints wrongly (``JobStatus.COMPLETED``)."""


@pytest.mark.parametrize(
    ("document", "convert", "entity", "apart"),
    [
        pytest.param(COMMAND, documents.job, _command, {}, id="command"),
        pytest.param(SMALL, documents.job, _command, {}, id="small"),
        pytest.param(MPI, documents.job, _command, {}, id="mpi"),
        # The SDK makes up parts of the trial and drops the kinds of services.
        pytest.param(SWEEP, documents.job, _any_job, {"trial", "services"}, id="sweep"),
        # The SDK drops these of pipelines, which say where to look.
        pytest.param(
            PIPELINE, documents.job, _any_job, {"services", "properties", "tags", "jobs"}, id="pipeline"
        ),
        pytest.param(
            ENVIRONMENT, documents.version, _entity("Environment", "EnvironmentVersion"), {}, id="environment"
        ),
        pytest.param(BUILD, documents.version, _entity("Environment", "EnvironmentVersion"), {}, id="build"),
        pytest.param(DATA, documents.version, _entity("Data", "DataVersionBase"), {}, id="data"),
        pytest.param(MODEL, documents.version, _entity("Model", "ModelVersion"), {}, id="model"),
        pytest.param(
            COMPONENT,
            documents.version,
            _entity("Component", "ComponentVersion"),
            {"tags", "properties"},
            id="component",
        ),
        pytest.param(
            DATASTORE,
            documents.datastore,
            _entity("Datastore", "Datastore"),
            {"credentials", "is_default"},
            id="datastore",
        ),
        pytest.param(
            WORKSPACE, documents.workspace, _entity("Workspace", "Workspace"), {"workspace_id"}, id="ws"
        ),
    ],
)
def test_as_the_sdk_shows_it(
    document: dict[str, Any],
    convert: Callable[[dict[str, Any]], dict[str, Any]],
    entity: Callable[[dict[str, Any]], Any],
    apart: set[str],
) -> None:
    before = copy.deepcopy(document)
    ours = convert(document)
    assert document == before, "the document was changed"
    theirs = json.loads(json.dumps(entity(copy.deepcopy(document))._to_dict(), default=str))
    skipped = BEYOND | set(apart)
    assert {key: value for key, value in ours.items() if key not in skipped} == {
        key: value for key, value in theirs.items() if key not in skipped
    }


def test_status_and_creation() -> None:
    shown = documents.job(COMMAND)
    assert shown["status"] == "Completed"
    assert shown["resourceGroup"] == "rg"
    assert shown["creation_context"] == {
        "created_at": "2026-11-23T00:00:00.123456+00:00",
        "created_by": "root",
        "created_by_type": "User",
        "last_modified_at": "2026-11-23T00:00:00+00:00",
    }


def test_fields_of_later_versions_are_kept() -> None:
    shown = documents.job(
        _document("jobs/j", jobType="Command", someNewField={"innerField": [{"deepField": 1}]})
    )
    assert shown["some_new_field"] == {"inner_field": [{"deep_field": 1}]}


@pytest.mark.parametrize(
    ("wire", "own"),
    [
        ("displayName", "display_name"),
        ("codeId", "code_id"),
        ("mlFlowTrackingUri", "ml_flow_tracking_uri"),
        ("isDefault", "is_default"),
        ("already_snake", "already_snake"),
    ],
)
def test_snake(wire: str, own: str) -> None:
    assert documents.snake(wire) == own


@pytest.mark.parametrize(
    ("duration", "expected"),
    [
        ("PT10M", 600),
        ("P1DT1H1M1S", 90061),
        ("PT0.5H", 1800),
        ("P", "P"),
        ("soon", "soon"),
        (None, None),
        (5, 5),
    ],
)
def test_seconds(duration: Any, expected: Any) -> None:
    assert documents.seconds(duration) == expected


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=10,
)


@given(
    st.dictionaries(
        st.sampled_from(
            [
                *(
                    "inputs",
                    "outputs",
                    "services",
                    "limits",
                    "identity",
                    "distribution",
                    "queueSettings",
                    "jobs",
                ),
                *("searchSpace", "trial", "settings", "tags", "jobType", "command", "earlyTermination", "x"),
            ]
        ),
        st.dictionaries(st.text(max_size=5), _json, max_size=3) | st.none(),
    )
)
def test_whatever_the_server_says_can_be_shown(properties: dict[str, Any]) -> None:
    documents.job({"id": f"{WS}/jobs/j", "name": "j", "properties": properties})
