"""MLflow's real clients against a real server: 3.x, 2.x and azureml-mlflow, by the same scripts."""

from __future__ import annotations

import json
import sys
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import WORKSPACE_PATH
from tests.sdk.client_environments import client_python, run_client
from tests.server import ServerProcess

pytestmark = pytest.mark.sdk

Client = Callable[[str], Any]


@pytest.fixture(params=["mlflow 3", "mlflow 3 by workspace", "mlflow 2", "azureml-mlflow"])
def client(request: pytest.FixtureRequest, server: ServerProcess) -> Client:
    """Runs a script with one of the clients; returns what the script leaves in ``answer``."""
    python = Path(sys.executable)
    if request.param == "mlflow 2":
        python = client_python("mlflow-skinny>=2.19,<3", "setuptools<81")
    environment = environment_of(server, azure=request.param == "azureml-mlflow")
    if request.param == "mlflow 3 by workspace":
        environment["MLFLOW_TRACKING_URI"] = f"{server.url}/mlflow/plain{WORKSPACE_PATH}"

    def run(script: str) -> Any:
        prelude = f"import mlflow, os, json\nc = mlflow.MlflowClient()\nunique = {uuid.uuid4().hex!r}\n"
        output = run_client(python, f"{prelude}{script}\nprint('\\n' + json.dumps(answer))", environment)
        return json.loads(output.strip().splitlines()[-1])

    return run


def environment_of(server: ServerProcess, *, azure: bool) -> dict[str, str]:
    """What a notebook has in its environment."""
    environment = server.client_environment()
    if azure:
        host = server.url.removeprefix("https://")
        # Without this the plugin asks Azure itself for its clouds first.
        environment["AZUREML_CURRENT_CLOUD"] = f"{host}/ty/"
        environment["MLFLOW_TRACKING_URI"] = f"azureml://{host}/mlflow/v1.0{WORKSPACE_PATH}"
        return environment
    with server.client() as client:
        environment["MLFLOW_TRACKING_TOKEN"] = client.headers["Authorization"].split()[1]
    environment["MLFLOW_TRACKING_URI"] = server.url
    return environment


def test_runs_are_logged_and_found(client: Client) -> None:
    answer = client(
        """
exp = mlflow.set_experiment(unique)
with mlflow.start_run(run_name="first", tags={"team": "risk"}, description="about") as run:
    mlflow.log_param("depth", 3)
    mlflow.log_params({f"p{i}": i for i in range(150)})
    for step in range(5):
        mlflow.log_metric("loss", 1 / (step + 1), step=step)
    mlflow.log_metrics({"nan": float("nan"), "inf": float("inf")})
    mlflow.set_tag("stage", "dev")
    mlflow.log_metric("later", 1.0, synchronous=False)
    mlflow.flush_async_logging()
    with mlflow.start_run(nested=True, run_name="child") as child:
        mlflow.log_metric("loss", 9)
try:
    c.log_param(run.info.run_id, "depth", 4)
    changed = True
except mlflow.MlflowException as error:
    changed = "Changing param values is not allowed" not in str(error)
found = mlflow.get_run(run.info.run_id)
mine = [exp.experiment_id]
def search(text, **more):
    return [r.info.run_name for r in c.search_runs(mine, text, **more)]
answer = {
    "status": found.info.status,
    "params": len(found.data.params),
    "metrics": {k: str(v) for k, v in found.data.metrics.items()},
    "team": found.data.tags["team"],
    "note": found.data.tags["mlflow.note.content"],
    "history": [m.step for m in c.get_metric_history(run.info.run_id, "loss")],
    "best": search("metrics.loss < 0.5 and params.depth = '3'"),
    "children": search(f"tags.mlflow.parentRunId = '{run.info.run_id}'"),
    "ordered": search("", order_by=["metrics.loss DESC"]),
    "names": search("attributes.run_name LIKE 'ch%'"),
    "changed": changed,
    "same": c.get_experiment_by_name(unique).experiment_id == exp.experiment_id,
    "first_page": len(c.search_runs(mine, max_results=1)),
    "experiments": [e.name for e in c.search_experiments(filter_string=f"name = '{unique}'")],
}
c.delete_run(child.info.run_id)
answer["deleted"] = search("", run_view_type=mlflow.entities.ViewType.DELETED_ONLY)
"""
    )
    assert answer == {
        "status": "FINISHED",
        "params": 151,
        "metrics": {"loss": "0.2", "nan": "nan", "inf": "inf", "later": "1.0"},
        "team": "risk",
        "note": "about",
        "history": [0, 1, 2, 3, 4],
        "best": ["first"],
        "children": ["child"],
        "ordered": ["child", "first"],
        "names": ["child"],
        "changed": False,
        "same": True,
        "first_page": 1,
        "experiments": [answer["experiments"][0]],
        "deleted": ["child"],
    }


def test_artifacts_go_up_and_down(client: Client) -> None:
    answer = client(
        """
import pathlib, tempfile
mlflow.set_experiment(unique)
folder = pathlib.Path(tempfile.mkdtemp())
(folder / "sub").mkdir()
(folder / "sub" / "x.bin").write_bytes(bytes(range(256)) * 40000)
(folder / "empty").write_bytes(b"")
with mlflow.start_run() as run:
    mlflow.log_text("hello", "texts/a b é.txt")
    mlflow.log_dict({"v": 1}, "d.json")
    mlflow.log_dict({"v": 2}, "d.json")
    mlflow.log_artifacts(str(folder), "all")
    mlflow.log_artifact(str(folder / "empty"))
run_id = run.info.run_id
down = pathlib.Path(mlflow.artifacts.download_artifacts(f"runs:/{run_id}/all"))
answer = {
    "text": mlflow.artifacts.load_text(f"runs:/{run_id}/texts/a b é.txt"),
    "json": mlflow.artifacts.load_dict(f"runs:/{run_id}/d.json"),
    "root": sorted(f.path for f in c.list_artifacts(run_id)),
    "below": sorted(f.path for f in c.list_artifacts(run_id, "all")),
    "same": (down / "sub" / "x.bin").read_bytes() == (folder / "sub" / "x.bin").read_bytes(),
    "empty": (down / "empty").stat().st_size,
}
"""
    )
    assert answer == {
        "text": "hello",
        "json": {"v": 2},
        "root": ["all", "d.json", "empty", "texts"],
        "below": ["all/empty", "all/sub"],
        "same": True,
        "empty": 0,
    }


@pytest.mark.parametrize("python", ["mlflow 3", "mlflow 2"])
def test_large_artifacts_in_parts(server: ServerProcess, python: str) -> None:
    script = """
import mlflow, os, pathlib, tempfile
c = mlflow.MlflowClient()
file = pathlib.Path(tempfile.mkdtemp()) / "big model é.bin"
content = os.urandom((12 << 20) + 17)
file.write_bytes(content)
run_id = c.create_run("0").info.run_id
for _ in range(2):
    c.log_artifact(run_id, str(file), "sub")
down = pathlib.Path(c.download_artifacts(run_id, "sub/" + file.name))
print(down.read_bytes() == content, [f.file_size - len(content) for f in c.list_artifacts(run_id, "sub")])
"""
    environment = {
        **environment_of(server, azure=False),
        "MLFLOW_ENABLE_PROXY_MULTIPART_UPLOAD": "true",
        "MLFLOW_ENABLE_PROXY_MULTIPART_DOWNLOAD": "true",
        "MLFLOW_MULTIPART_UPLOAD_MINIMUM_FILE_SIZE": str(5 << 20),
        "MLFLOW_MULTIPART_UPLOAD_CHUNK_SIZE": str(5 << 20),
        "MLFLOW_MULTIPART_DOWNLOAD_MINIMUM_FILE_SIZE": str(5 << 20),
        "MLFLOW_MULTIPART_DOWNLOAD_CHUNK_SIZE": str(5 << 20),
    }
    interpreter = Path(sys.executable)
    if python == "mlflow 2":
        interpreter = client_python("mlflow-skinny>=2.19,<3", "setuptools<81")
    output = run_client(interpreter, script, environment)
    assert output.strip().splitlines()[-1] == "True [0]"


def test_models_are_registered_and_read(client: Client) -> None:
    answer = client(
        """
mlflow.set_experiment(unique)
with mlflow.start_run() as run:
    mlflow.log_text("flavors:\\n  python_function:\\n    loader_module: none\\n", "model/MLmodel")
c.create_registered_model(unique, tags={"a": "b"}, description="about")
version = c.create_model_version(unique, f"{run.info.artifact_uri}/model", run.info.run_id, tags={"t": "1"})
c.set_registered_model_alias(unique, "champion", version.version)
c.set_model_version_tag(unique, "1", "u", "2")
c.update_model_version(unique, "1", description="first")
c.transition_model_version_stage(unique, "1", "Staging") if hasattr(c, "transition_model_version_stage") else None
path = mlflow.artifacts.download_artifacts(f"models:/{unique}/1")
by_alias = mlflow.artifacts.download_artifacts(f"models:/{unique}@champion")
found = c.get_model_version_by_alias(unique, "champion")
answer = {
    "files": sorted(os.listdir(path)), "aliased": sorted(os.listdir(by_alias)),
    "version": [found.version, found.description, found.current_stage, found.run_id == run.info.run_id, found.tags],
    "model": [c.get_registered_model(unique).tags, c.get_registered_model(unique).description],
    "search": [v.version for v in c.search_model_versions(f"name = '{unique}'")],
    "models": [m.name == unique for m in c.search_registered_models(f"name = '{unique}'")],
    "latest": [v.version for v in c.get_latest_versions(unique)],
}
c.delete_registered_model_alias(unique, "champion")
c.delete_model_version(unique, "1")
answer["left"] = len(c.search_model_versions(f"name = '{unique}'"))
c.rename_registered_model(unique, unique + "x")
c.delete_registered_model(unique + "x")
"""
    )
    # MLflow notes what it registered beside the model.
    for key in ("files", "aliased"):
        assert "MLmodel" in answer.pop(key)
    assert answer == {
        "version": ["1", "first", "Staging", True, {"t": "1", "u": "2"}],
        "model": [{"a": "b"}, "about"],
        "search": ["1"],
        "models": [True],
        "latest": ["1"],
        "left": 0,
    }


def test_many_processes_logging_to_one_run_lose_nothing(server: ServerProcess) -> None:
    script = """
import sys, concurrent.futures as f
import mlflow, json
c = mlflow.MlflowClient()
def work(worker):
    for i in range(40):
        c.log_metric(run_id, "shared", worker * 1000 + i, timestamp=worker * 1000 + i, step=i)
    c.log_batch(run_id, params=[mlflow.entities.Param(f"p{worker}.{i}", "x") for i in range(50)])
run_id = c.create_run("0").info.run_id
if __name__ == "__main__":
    import multiprocessing
    with f.ProcessPoolExecutor(6, mp_context=multiprocessing.get_context("fork")) as pool:
        list(pool.map(work, range(6)))
    points = c.get_metric_history(run_id, "shared")
    print(json.dumps([len(points), len({p.value for p in points}), len(c.get_run(run_id).data.params)]))
"""
    output = run_client(Path(sys.executable), script, environment_of(server, azure=False))
    assert json.loads(output.strip().splitlines()[-1]) == [240, 240, 300]


AUTOLOG = """
import warnings
warnings.filterwarnings("ignore")
import mlflow.sklearn, mlflow.lightgbm
import lightgbm as lgb
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
mlflow.set_experiment(unique)
mlflow.autolog()
X, y = load_iris(return_X_y=True, as_frame=True)
with mlflow.start_run() as run:
    LogisticRegression(max_iter=300).fit(X, y)
found = mlflow.get_run(run.info.run_id)
loaded = mlflow.pyfunc.load_model(f"runs:/{run.info.run_id}/model")
version = mlflow.register_model(f"runs:/{run.info.run_id}/model", unique)
again = mlflow.sklearn.load_model(f"models:/{unique}/{version.version}")
answer = {
    "accuracy": found.data.metrics["training_accuracy_score"] > 0.9,
    "param": found.data.params["max_iter"],
    "dataset": len(found.inputs.dataset_inputs),
    "files": "model" in [f.path for f in c.list_artifacts(run.info.run_id)],
    "predicts": [int(x) for x in loaded.predict(X[:2])],
    "registered": [version.version, version.run_id == run.info.run_id, again.max_iter],
}
with mlflow.start_run() as run:
    lgb.train({"objective": "multiclass", "num_class": 3, "verbosity": -1, "num_threads": 1}, lgb.Dataset(X, y),
              num_boost_round=12, valid_sets=[lgb.Dataset(X, y)])
found = mlflow.get_run(run.info.run_id)
[metric] = [k for k in found.data.metrics if "multi_logloss" in k]
answer["boosting"] = [len(c.get_metric_history(run.info.run_id, metric)), found.data.params["num_boost_round"]]
with mlflow.start_run() as run:
    GridSearchCV(LogisticRegression(max_iter=300), {"C": [0.1, 1]}, cv=2).fit(X, y)
children = mlflow.search_runs(filter_string=f"tags.mlflow.parentRunId = '{run.info.run_id}'", output_format="list")
answer["children"] = len(children)
print("\\n" + json.dumps(answer))
"""

LEARNING = ("scikit-learn<1.8", "lightgbm", "pandas<3", "matplotlib", "setuptools<81")


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("packages", "azure"),
    [
        (("mlflow-skinny>=2.19,<3",), False),
        (("mlflow-skinny>=3.15,<4", "azureml-mlflow"), False),
        (("mlflow-skinny>=3.15,<4", "azureml-mlflow"), True),
    ],
    ids=["mlflow 2", "mlflow 3", "azureml-mlflow"],
)
def test_autologging_scikit_learn_and_lightgbm(
    server: ServerProcess, packages: tuple[str, ...], azure: bool
) -> None:
    python = client_python(*packages, *LEARNING)
    prelude = f"import mlflow, json\nc = mlflow.MlflowClient()\nunique = {uuid.uuid4().hex!r}\n"
    output = run_client(python, prelude + AUTOLOG, environment_of(server, azure=azure), timeout_s=500)
    assert json.loads(output.strip().splitlines()[-1]) == {
        "accuracy": True,
        "param": "300",
        "dataset": 1,
        "files": True,
        "predicts": [0, 0],
        "registered": ["1", True, 300],
        "boosting": [12, "12"],
        "children": 2,
    }


LIGHTNING = """
import warnings
warnings.filterwarnings("ignore")
import torch, mlflow.pytorch
import lightning.pytorch as pl
torch.set_num_threads(1)
class Line(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)
    def training_step(self, batch, _):
        loss = torch.nn.functional.mse_loss(self.layer(batch[0]), batch[1])
        self.log("train_loss", loss, on_epoch=True)
        return loss
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)
x = torch.linspace(0, 1, 64).reshape(-1, 1)
data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, 2 * x), batch_size=16)
mlflow.set_experiment(unique)
mlflow.pytorch.autolog(log_models=True)
with mlflow.start_run() as run:
    pl.Trainer(max_epochs=4, logger=False, enable_checkpointing=False, enable_progress_bar=False,
               accelerator="cpu").fit(Line(), data)
found = mlflow.get_run(run.info.run_id)
print("\\n" + json.dumps({
    "epochs": found.data.params["epochs"],
    "optimizer": found.data.params["optimizer_name"],
    "points": len(c.get_metric_history(run.info.run_id, "train_loss_epoch")),
    "files": sorted(f.path for f in c.list_artifacts(run.info.run_id)),
}))
"""


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_autologging_pytorch_lightning(server: ServerProcess) -> None:
    python = client_python(
        "mlflow-skinny>=3.15,<4", "torch==2.13.0", "lightning", "pandas<3", "numpy", "setuptools<81"
    )
    prelude = f"import mlflow, json\nc = mlflow.MlflowClient()\nunique = {uuid.uuid4().hex!r}\n"
    output = run_client(python, prelude + LIGHTNING, environment_of(server, azure=False), timeout_s=700)
    answer = json.loads(output.strip().splitlines()[-1])
    assert answer["epochs"] == "4"
    assert answer["optimizer"] == "SGD"
    assert answer["points"] == 4
    assert "model" in answer["files"]
