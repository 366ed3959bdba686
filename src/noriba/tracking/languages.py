"""What can be searched for in each kind of thing (see filters.py)."""

from __future__ import annotations

from noriba.tracking.filters import LISTS, NULLS, NUMERIC, TEXTUAL, Language

_RUN_NAMES = dict.fromkeys(("run_name", "run name", "Run name", "Run Name"), "run_name")
_STARTED = dict.fromkeys(("start_time", "created", "Created"), "start_time")

RUNS = Language(
    texts={
        "run_id": "run_id",
        "status": "status",
        "user_id": "user_id",
        **_RUN_NAMES,
    },
    numbers={**_STARTED, "end_time": "end_time"},
    operators={
        "metric": NUMERIC,
        "param": TEXTUAL | NULLS,
        "tag": TEXTUAL | NULLS,
        "dataset": TEXTUAL | LISTS,
    },
    listed=frozenset({"run_id"}),
    orders={
        "run_id": "run_id",
        "status": "status",
        "user_id": "user_id",
        "end_time": "end_time",
        **_RUN_NAMES,
        **_STARTED,
    },
    order_kinds=frozenset({"attribute", "metric", "param", "tag"}),
    dataset_keys=frozenset({"name", "digest", "context"}),
)

_EXPERIMENT_TIMES = {"creation_time": "creation_time", "last_update_time": "last_update_time"}
EXPERIMENTS = Language(
    texts={"name": "name", "experiment_id": "experiment_id"},
    numbers=_EXPERIMENT_TIMES,
    operators={"tag": TEXTUAL | NULLS},
    listed=frozenset({"experiment_id"}),
    orders={"name": "name", "experiment_id": "experiment_id", **_EXPERIMENT_TIMES},
)

REGISTERED_MODELS = Language(
    texts={"name": "name"},
    numbers={},
    operators={"tag": TEXTUAL},
    listed=frozenset({"name"}),
    orders={
        "name": "name",
        "timestamp": "last_updated_timestamp",
        "last_updated_timestamp": "last_updated_timestamp",
        "creation_timestamp": "creation_timestamp",
    },
)

MODEL_VERSIONS = Language(
    texts={"name": "name", "run_id": "run_id", "source_path": "source_path"},
    numbers={"version_number": "version_number"},
    operators={"tag": TEXTUAL},
    listed=frozenset({"name", "run_id"}),
    orders={
        "name": "name",
        "version_number": "version_number",
        "creation_timestamp": "creation_timestamp",
        "last_updated_timestamp": "last_updated_timestamp",
    },
)

_MODEL_TIMES = {
    "creation_time": "creation_timestamp",
    "creation_timestamp": "creation_timestamp",
    "creation_timestamp_ms": "creation_timestamp",
    "last_updated_timestamp": "last_updated_timestamp",
    "last_updated_timestamp_ms": "last_updated_timestamp",
}
_MODEL_TEXTS = {
    name: name for name in ("name", "model_id", "model_type", "status", "source_run_id", "experiment_id")
}
LOGGED_MODELS = Language(
    texts=_MODEL_TEXTS,
    numbers=_MODEL_TIMES,
    operators={"metric": NUMERIC, "param": TEXTUAL | LISTS, "tag": TEXTUAL | LISTS},
    listed=frozenset(_MODEL_TEXTS),
    orders={**_MODEL_TEXTS, **_MODEL_TIMES},
    order_kinds=frozenset({"attribute", "metric"}),
)
