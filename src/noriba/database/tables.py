"""The tables of the control plane. Blob and tracking tables stand in modules beside this one.

Documents that clients send are kept whole (``properties``) and given back; columns beside them are what queries
need. Times are UTC seconds (see types.Timestamp).
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Double,
    Index,
    Integer,
    LargeBinary,
    Table,
    Text,
    UniqueConstraint,
)

from noriba.database.types import Json, Timestamp, metadata

meta = Table(
    "noriba_meta",
    metadata,
    Column("key", Text, primary_key=True),
    Column("value", Text, nullable=False),
)
"""Facts about this database: the instance's id, counters for ids."""

workspaces = Table(
    "workspaces",
    metadata,
    Column("id", Text, primary_key=True),
    Column("subscription_id", Text, nullable=False),
    Column("resource_group", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("key", Text, nullable=False, unique=True),
    Column("location", Text, nullable=False),
    Column("storage_account", Text, nullable=False, unique=True),
    Column("document", Json, nullable=False),
    Column("created_at", Timestamp, nullable=False),
    Column("created_by", Text, nullable=False),
)
"""``key`` is ``subscription/group/name`` in lower case, ``document`` what the client sent (ARM body)."""

principals = Table(
    "principals",
    metadata,
    Column("id", Text, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("client_id", Text),
    Column("tenant_id", Text, nullable=False),
    Column("secret_hash", Text, unique=True),
    Column("created_at", Timestamp, nullable=False),
    Column("disabled", Boolean, nullable=False, default=False),
)

role_assignments = Table(
    "role_assignments",
    metadata,
    Column("principal_id", Text, primary_key=True),
    Column("workspace_id", Text, primary_key=True),
    Column("role", Text, nullable=False),
)
"""``workspace_id`` ``*`` stands for all workspaces."""

datastores = Table(
    "datastores",
    metadata,
    Column("workspace_id", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("is_default", Boolean, nullable=False, default=False),
    Column("properties", Json, nullable=False),
    Column("secrets", LargeBinary),
    Column("created_at", Timestamp, nullable=False),
    Column("created_by", Text, nullable=False),
    Column("modified_at", Timestamp, nullable=False),
)
"""``key`` is the name in lower case; ``secrets`` is sealed (identity/secrets.py)."""

asset_containers = Table(
    "asset_containers",
    metadata,
    Column("scope", Text, primary_key=True),
    Column("kind", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("properties", Json, nullable=False),
    Column("is_archived", Boolean, nullable=False, default=False),
    Column("latest_version", Text),
    Column("highest_number", BigInteger, nullable=False, default=0),
    Column("created_at", Timestamp, nullable=False),
    Column("created_by", Text, nullable=False),
    Column("modified_at", Timestamp, nullable=False),
)
"""Named codes, environments, data, models, components. ``scope`` is a workspace's id or ``registry:<name>``."""

asset_versions = Table(
    "asset_versions",
    metadata,
    Column("sequence", Integer, primary_key=True, autoincrement=True),
    Column("scope", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("key", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("version", Text, nullable=False),
    Column("properties", Json, nullable=False),
    Column("hash", Text),
    Column("stage", Text),
    Column("is_archived", Boolean, nullable=False, default=False),
    Column("is_anonymous", Boolean, nullable=False, default=False),
    Column("created_at", Timestamp, nullable=False),
    Column("created_by", Text, nullable=False),
    Column("modified_at", Timestamp, nullable=False),
    UniqueConstraint("scope", "kind", "key", "version"),
    Index("ix_asset_versions_hash", "scope", "kind", "hash"),
    Index("ix_asset_versions_recent", "scope", "kind", "key", "sequence"),
)
"""``sequence`` is the order of creation: the latest version is the one created last (wire.md 3.1)."""

pending_uploads = Table(
    "pending_uploads",
    metadata,
    Column("id", Text, primary_key=True),
    Column("scope", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("key", Text, nullable=False),
    Column("version", Text, nullable=False),
    Column("account", Text, nullable=False),
    Column("container", Text, nullable=False),
    Column("created_at", Timestamp, nullable=False),
    UniqueConstraint("scope", "kind", "key", "version"),
)

operations = Table(
    "operations",
    metadata,
    Column("id", Text, primary_key=True),
    Column("workspace_id", Text),
    Column("status", Text, nullable=False),
    Column("error", Json),
    Column("location", Text),
    Column("created_at", Timestamp, nullable=False),
)
"""Long-running operations that clients poll (wire.md, rule 9)."""

jobs = Table(
    "jobs",
    metadata,
    Column("sequence", Integer, primary_key=True, autoincrement=True),
    Column("workspace_id", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("display_name", Text, nullable=False),
    Column("experiment", Text, nullable=False),
    Column("parent", Text),
    Column("root", Text, nullable=False),
    Column("definition", Json, nullable=False),
    Column("resolved", Json),
    Column("tags", Json, nullable=False),
    Column("properties", Json, nullable=False),
    Column("description", Text),
    Column("is_archived", Boolean, nullable=False, default=False),
    Column("priority", Integer, nullable=False, default=2),
    Column("tier", Text, nullable=False, default="Standard"),
    Column("size", Text, nullable=False),
    Column("instance_count", Integer, nullable=False, default=1),
    Column("compute", Text, nullable=False, default="serverless"),
    Column("attempt", Integer, nullable=False, default=0),
    Column("reason", Json),
    Column("error", Json),
    Column("warnings", Json),
    Column("outputs", Json),
    Column("identity", Json, nullable=False),
    Column("identity_scope", Text, nullable=False),
    Column("created_at", Timestamp, nullable=False),
    Column("created_by", Text, nullable=False),
    Column("created_by_name", Text, nullable=False),
    Column("status_at", Timestamp, nullable=False),
    Column("modified_at", Timestamp, nullable=False),
    Column("started_at", Timestamp),
    Column("ended_at", Timestamp),
    UniqueConstraint("workspace_id", "name"),
    Index("ix_jobs_status", "status"),
    Index("ix_jobs_list", "workspace_id", "is_archived", "sequence"),
    Index("ix_jobs_parent", "workspace_id", "parent"),
    Index("ix_jobs_experiment", "workspace_id", "experiment", "sequence"),
    # A deleted job's number names its tasks on nodes that remember them, so it must not be given again.
    sqlite_autoincrement=True,
)
"""``definition`` is the submitted ``properties``; ``resolved`` what was looked up at submission (size, environment,
data); ``reason`` why it is not running yet; ``started_at``/``ended_at`` of the user's process."""

job_events = Table(
    "job_events",
    metadata,
    Column("sequence", Integer, primary_key=True, autoincrement=True),
    Column("workspace_id", Text, nullable=False),
    Column("job", Text, nullable=False),
    Column("at", Timestamp, nullable=False),
    Column("kind", Text, nullable=False),
    Column("status", Text),
    Column("attempt", Integer, nullable=False, default=0),
    Column("code", Text),
    Column("message", Text),
    Column("who", Text),
    Index("ix_job_events_job", "workspace_id", "job", "sequence"),
)
"""The timeline: every transition and notable fact, written with what it tells of."""

job_samples = Table(
    "job_samples",
    metadata,
    Column("sequence", Integer, primary_key=True, autoincrement=True),
    Column("workspace_id", Text, nullable=False),
    Column("job", Text, nullable=False),
    Column("rank", Integer, nullable=False),
    Column("at", Timestamp, nullable=False),
    Column("sample", Json, nullable=False),
    Index("ix_job_samples_job", "workspace_id", "job", "sequence"),
)
"""Utilisation over time (agent/protocol.py, Sample)."""

nodes = Table(
    "nodes",
    metadata,
    Column("id", Text, primary_key=True),
    Column("engine", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("workspace_id", Text, nullable=False),
    Column("identity_scope", Text, nullable=False),
    Column("compute", Text, nullable=False, default="serverless"),
    Column("size", Text, nullable=False),
    Column("tier", Text, nullable=False),
    Column("facts", Json),
    Column("incarnation", Text),
    Column("event_seq", Integer, nullable=False, default=0),
    Column("revision", Integer, nullable=False, default=0),
    Column("price_per_hour", Double, nullable=False, default=0.0),
    Column("created_at", Timestamp, nullable=False),
    Column("state_at", Timestamp, nullable=False),
    Column("ready_at", Timestamp),
    Column("ended_at", Timestamp),
    Column("seen_at", Timestamp),
    Column("end_reason", Text),
    Index("ix_nodes_state", "state"),
)

tasks = Table(
    "tasks",
    metadata,
    Column("id", Text, primary_key=True),
    Column("workspace_id", Text, nullable=False),
    Column("job", Text, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("rank", Integer, nullable=False),
    Column("node_id", Text, nullable=False),
    Column("revision", Integer, nullable=False),
    Column("desired", Text, nullable=False),
    Column("stop_reason", Text, nullable=False, default=""),
    Column("leader", Text, nullable=False, default=""),
    Column("phase", Text, nullable=False, default="assigned"),
    Column("exit", Json),
    Column("log_bases", Json),
    Column("assigned_at", Timestamp, nullable=False),
    Column("ended_at", Timestamp),
    UniqueConstraint("workspace_id", "job", "attempt", "rank"),
    Index("ix_tasks_node", "node_id", "revision"),
)
"""One node's part of one attempt of a job. The spec an agent gets is made from the job each time it is asked.
``log_bases`` holds, per log file, where a later attempt's lines begin in the job's file."""

__all__ = [
    "asset_containers",
    "asset_versions",
    "datastores",
    "job_events",
    "job_samples",
    "jobs",
    "meta",
    "nodes",
    "operations",
    "pending_uploads",
    "principals",
    "role_assignments",
    "tasks",
    "workspaces",
]
