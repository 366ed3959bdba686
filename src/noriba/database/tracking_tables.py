"""Tables of experiment tracking and the model registry (tracking/).

Times are MLflow's: milliseconds since the epoch, UTC, as integers. Rows that belong to a run name it by the run's
``key``, a small integer, because a run may have millions of them.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, Double, Index, Integer, Table, Text, UniqueConstraint

from noriba.database.types import Json, metadata

_Key = BigInteger().with_variant(Integer, "sqlite")
"""SQLite numbers rows only in columns that are exactly INTEGER."""

experiments = Table(
    "experiments",
    metadata,
    Column("workspace_id", Text, primary_key=True),
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("artifact_location", Text),
    Column("lifecycle_stage", Text, nullable=False, default="active"),
    Column("created_ms", BigInteger, nullable=False),
    Column("updated_ms", BigInteger, nullable=False),
    UniqueConstraint("workspace_id", "name"),
)
"""``artifact_location`` only where the client chose one outside the server."""

experiment_tags = Table(
    "experiment_tags",
    metadata,
    Column("workspace_id", Text, primary_key=True),
    Column("experiment_id", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("value", Text, nullable=False),
)

runs = Table(
    "runs",
    metadata,
    Column("key", _Key, primary_key=True, autoincrement=True),
    Column("workspace_id", Text, nullable=False),
    Column("id", Text, nullable=False),
    Column("experiment_id", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("user_id", Text, nullable=False, default=""),
    Column("status", Text, nullable=False),
    Column("start_ms", BigInteger, nullable=False),
    Column("end_ms", BigInteger),
    Column("lifecycle_stage", Text, nullable=False, default="active"),
    Column("parent_run_id", Text),
    Column("is_job", Boolean, nullable=False, default=False),
    UniqueConstraint("workspace_id", "id"),
    Index("ix_runs_experiment", "workspace_id", "experiment_id", "start_ms"),
    Index("ix_runs_parent", "workspace_id", "parent_run_id"),
    Index("ix_runs_without_job", "workspace_id", "is_job", "key"),
    sqlite_autoincrement=True,
)
"""``is_job``: the run is a job, so its status is the job controller's to change. Keys are never used again, lest a
late call to a deleted run reach another one."""

run_params = Table(
    "run_params",
    metadata,
    Column("run_key", BigInteger, primary_key=True, autoincrement=False),
    Column("key", Text, primary_key=True),
    Column("value", Text, nullable=False),
    sqlite_with_rowid=False,
)

run_tags = Table(
    "run_tags",
    metadata,
    Column("run_key", BigInteger, primary_key=True, autoincrement=False),
    Column("key", Text, primary_key=True),
    Column("value", Text, nullable=False),
    Index("ix_run_tags_value", "key", "value"),
    sqlite_with_rowid=False,
)

run_metrics = Table(
    "run_metrics",
    metadata,
    Column("run_key", BigInteger, primary_key=True, autoincrement=False),
    Column("key", Text, primary_key=True),
    Column("timestamp_ms", BigInteger, primary_key=True, autoincrement=False),
    Column("step", BigInteger, primary_key=True, autoincrement=False),
    Column("value", Double, primary_key=True, autoincrement=False),
    Column("is_nan", Boolean, primary_key=True),
    Column("model_id", Text),
    Column("dataset_name", Text),
    Column("dataset_digest", Text),
    sqlite_with_rowid=False,
)
"""Every point. The key is the whole point, so a call that is sent again changes nothing, and it is the order in
which the history is read. NaN is kept as 0 with ``is_nan`` (SQLite would store NULL)."""

run_latest_metrics = Table(
    "run_latest_metrics",
    metadata,
    Column("run_key", BigInteger, primary_key=True, autoincrement=False),
    Column("key", Text, primary_key=True),
    Column("timestamp_ms", BigInteger, nullable=False),
    Column("step", BigInteger, nullable=False),
    Column("value", Double, nullable=False),
    Column("is_nan", Boolean, nullable=False),
    Column("model_id", Text),
    Column("dataset_name", Text),
    Column("dataset_digest", Text),
    sqlite_with_rowid=False,
)
"""The point with the highest (step, timestamp, value) of each metric."""

run_datasets = Table(
    "run_datasets",
    metadata,
    Column("run_key", BigInteger, primary_key=True, autoincrement=False),
    Column("name", Text, primary_key=True),
    Column("digest", Text, primary_key=True),
    Column("document", Json, nullable=False),
    Column("tags", Json, nullable=False),
    Column("context", Text, nullable=False, default=""),
)
"""Datasets that a run read. ``document`` is MLflow's Dataset, ``context`` the tag ``mlflow.data.context``."""

run_models = Table(
    "run_models",
    metadata,
    Column("run_key", BigInteger, primary_key=True, autoincrement=False),
    Column("direction", Text, primary_key=True),
    Column("model_id", Text, primary_key=True),
    Column("step", BigInteger, nullable=False, default=0),
)
"""Logged models that a run read (``input``) or made (``output``)."""

logged_models = Table(
    "logged_models",
    metadata,
    Column("key", _Key, primary_key=True, autoincrement=True),
    Column("workspace_id", Text, nullable=False),
    Column("id", Text, nullable=False),
    Column("experiment_id", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("model_type", Text, nullable=False, default=""),
    Column("source_run_id", Text, nullable=False, default=""),
    Column("folder", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("status_message", Text, nullable=False, default=""),
    Column("lifecycle_stage", Text, nullable=False, default="active"),
    Column("created_ms", BigInteger, nullable=False),
    Column("updated_ms", BigInteger, nullable=False),
    UniqueConstraint("workspace_id", "id"),
    Index("ix_logged_models_experiment", "workspace_id", "experiment_id", "created_ms"),
    Index("ix_logged_models_run", "workspace_id", "source_run_id"),
    sqlite_autoincrement=True,
)
"""``folder`` is where its files stand among the artifacts of its source run (or of the model, without a run)."""

logged_model_params = Table(
    "logged_model_params",
    metadata,
    Column("model_key", BigInteger, primary_key=True, autoincrement=False),
    Column("key", Text, primary_key=True),
    Column("value", Text, nullable=False),
)

logged_model_tags = Table(
    "logged_model_tags",
    metadata,
    Column("model_key", BigInteger, primary_key=True, autoincrement=False),
    Column("key", Text, primary_key=True),
    Column("value", Text, nullable=False),
)

logged_model_metrics = Table(
    "logged_model_metrics",
    metadata,
    Column("model_key", BigInteger, primary_key=True, autoincrement=False),
    Column("key", Text, primary_key=True),
    Column("timestamp_ms", BigInteger, primary_key=True, autoincrement=False),
    Column("step", BigInteger, primary_key=True, autoincrement=False),
    Column("run_id", Text, primary_key=True),
    Column("value", Double, nullable=False),
    Column("is_nan", Boolean, nullable=False),
    Column("dataset_name", Text),
    Column("dataset_digest", Text),
)

registered_model_aliases = Table(
    "registered_model_aliases",
    metadata,
    Column("workspace_id", Text, primary_key=True),
    Column("model_key", Text, primary_key=True),
    Column("alias", Text, primary_key=True),
    Column("version", Text, nullable=False),
)
"""Registered models are the workspace's model assets (tables.py); only their aliases are MLflow's own.
``model_key`` is the name in lower case."""

__all__ = [
    "experiment_tags",
    "experiments",
    "logged_model_metrics",
    "logged_model_params",
    "logged_model_tags",
    "logged_models",
    "registered_model_aliases",
    "run_datasets",
    "run_latest_metrics",
    "run_metrics",
    "run_models",
    "run_params",
    "run_tags",
    "runs",
]
