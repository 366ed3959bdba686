"""What an agent and the control plane say to each other (architecture.md, decision 3).

One call, ``POST /agent/v1/nodes/{node_id}/sync``, msgpack both ways, authorised by the node's own bearer
token. Everything in it may be repeated, delayed or sent to a restarted peer without harm:

* *Events* go up, numbered by the agent (``seq``, from 1, without gaps, kept in a journal on the node's disk).
  The server applies those after the last one it has, in order, in one transaction, and answers ``acked_seq``;
  the agent then forgets up to there.
* *Log chunks* go up with the offset at which they stand in their file. The server appends what it does not have
  yet and answers the size it holds; the agent sends from there. Chunks are applied before events, so a task's
  last lines are visible before its end is.
* *Tasks* come down as desired state. Each change of any task of the node raises the node's ``revision``; the
  agent names the highest it has seen and gets the tasks changed since, whole. Applying one twice changes nothing.

The agent keeps one long poll open (``wait_s`` > 0) and reports on a second connection with ``wait_s = 0``.
Times are UTC seconds since the epoch; sizes are bytes.
"""

from __future__ import annotations

from typing import Literal

import msgspec

PROTOCOL_VERSION = 1

# --- Where bytes live -------------------------------------------------------------------------------------


class Location(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A file or folder as the node is to reach it.

    ``blob``: a container of an Azure Blob endpoint (Noriba's own data plane or any other), ``url`` being the
    container's URL, ``path`` the name or prefix below it, ``sas`` the query string that opens it (no ``?``).
    ``http``: ``url`` is one file's address, fetched with GET.
    ``object_store``: ``url`` is an object-store URL (``s3://…``, ``gs://…``, ``az://…``) with ``options`` for it.
    ``uri`` is what the user wrote, for messages. A SAS that has run out is renewed by asking for the task
    again (``GET /agent/v1/nodes/{node_id}/tasks/{task_id}``).
    """

    kind: Literal["blob", "http", "object_store"]
    url: str
    path: str = ""
    sas: str = ""
    uri: str = ""
    options: dict[str, str] = {}


AssetType = Literal[
    "literal", "uri_file", "uri_folder", "mltable", "mlflow_model", "custom_model", "triton_model"
]


class TaskInput(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An input of a job: a literal ``value``, or data at ``source``.

    ``direct`` inputs are not fetched: the job gets ``source.uri`` itself. ``eval_*`` modes deliver the data like
    their plain twins, then (mltable) evaluate the MLTable file into a folder.
    """

    type: AssetType
    value: str | None = None
    source: Location | None = None
    mode: Literal["ro_mount", "download", "direct", "eval_mount", "eval_download"] = "ro_mount"


class TaskOutput(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An output of a job, kept at ``target``. ``direct`` outputs are not uploaded: the job gets ``target.uri``."""

    type: AssetType
    target: Location
    mode: Literal["rw_mount", "upload", "direct"] = "rw_mount"


class TaskDistribution(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How many processes run and how they find each other (wire.md 4.1)."""

    type: Literal["pytorch", "mpi", "tensorflow", "ray"]
    process_count_per_instance: int = 1
    parameter_server_count: int = 0
    worker_count: int = 1
    port: int | None = None
    include_dashboard: bool = False
    dashboard_port: int | None = None
    head_node_additional_args: str = ""
    worker_node_additional_args: str = ""


class TaskEnvironment(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The environment asked for: fields as in Azure ML's environment document.

    ``curated`` names an environment of the built-in catalogue. ``build_context`` is a folder with a Dockerfile.
    """

    name: str = ""
    version: str = ""
    image: str | None = None
    conda_file: str | None = None
    curated: str | None = None
    build_context: Location | None = None
    dockerfile_path: str = "Dockerfile"


class TaskSize(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The size the node was asked as; in strict sizing the task is held to it."""

    name: str
    vcpus: int
    memory_gib: float
    gpus: int = 0
    disk_gib: float = 0.0
    strict: bool = False


class TaskSpec(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """All that a node needs to run its part (``rank`` of ``node_count``) of one attempt of a job."""

    id: str
    revision: int
    desired: Literal["run", "stop"]
    stop_reason: str = ""
    job: str
    attempt: int = 1
    rank: int = 0
    node_count: int = 1
    command: str = ""
    """As the user wrote it: ``${{inputs.x}}``, ``${{outputs.y}}``, ``$[[ … ]]`` unexpanded; run with ``bash -c``."""
    code: Location | None = None
    inputs: dict[str, TaskInput] = {}
    outputs: dict[str, TaskOutput] = {}
    environment: TaskEnvironment = TaskEnvironment()
    environment_variables: dict[str, str] = {}
    """Given by the platform (``AZUREML_RUN_ID`` …); the agent adds those that hold paths and ranks."""
    user_environment_variables: dict[str, str] = {}
    """Given by the user; they win over the platform's except where a client could not work any more."""
    distribution: TaskDistribution | None = None
    leader: str = ""
    """``host:port`` that rank 0 announced (TaskRendezvous); empty until then. Ranks > 0 wait for it."""
    timeout_s: float | None = None
    grace_s: float = 30.0
    size: TaskSize
    shm_size_bytes: int | None = None
    artifacts: Location
    """Folder that receives ``outputs/``, ``logs/`` (uploaded by the agent) and the log files (by log chunks)."""
    container_args: list[str] = []


# --- What the agent reports -------------------------------------------------------------------------------

Phase = Literal["environment", "data", "starting", "running", "finalizing"]


class TaskPhase(msgspec.Struct, frozen=True, kw_only=True, tag="phase", omit_defaults=True):
    """The task entered a phase at ``at``."""

    seq: int
    task_id: str
    at: float
    phase: Phase
    message: str = ""


class TaskRendezvous(msgspec.Struct, frozen=True, kw_only=True, tag="rendezvous"):
    """Rank 0 of a distributed task says where the others find it (``host:port``)."""

    seq: int
    task_id: str
    at: float
    address: str


class Sample(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Utilisation of a task since the last sample (product.md R5). Bytes are totals since the task's start."""

    at: float
    cpu_percent: float
    """100 is one core fully used."""
    memory_bytes: int
    disk_read_bytes: int = 0
    disk_write_bytes: int = 0
    disk_used_bytes: int = 0
    network_receive_bytes: int = 0
    network_send_bytes: int = 0
    gpu_percent: float | None = None
    gpu_memory_bytes: int | None = None


class TaskSamples(msgspec.Struct, frozen=True, kw_only=True, tag="samples"):
    seq: int
    task_id: str
    samples: list[Sample]


class TaskWarning(msgspec.Struct, frozen=True, kw_only=True, tag="warning"):
    """Something the user should see on the job, such as a Python version that is only near what was asked."""

    seq: int
    task_id: str
    at: float
    code: str
    message: str


class TaskOutputStored(msgspec.Struct, frozen=True, kw_only=True, tag="output"):
    """The final content of an output is stored."""

    seq: int
    task_id: str
    at: float
    name: str
    file_count: int
    size_bytes: int


class TaskExited(msgspec.Struct, frozen=True, kw_only=True, tag="exited", omit_defaults=True):
    """The task is over and everything it leaves is stored.

    ``outcome``: ``completed`` (exit code 0), ``failed``, ``stopped`` (as desired). ``code`` is a stable word
    such as ``UserProcessFailed``, ``UserProcessKilled``, ``OutOfMemory``, ``TimedOut``, ``EnvironmentBuildFailed``,
    ``InputNotFound``, ``OutputUploadFailed``, ``DiskFull``, ``ShimLost``; ``message`` a sentence for the user that
    says what to change. ``user_error`` tells whether a retry elsewhere makes no sense.
    """

    seq: int
    task_id: str
    at: float
    outcome: Literal["completed", "failed", "stopped"]
    exit_code: int | None = None
    signal: str | None = None
    code: str = ""
    message: str = ""
    user_error: bool = True


Event = TaskPhase | TaskRendezvous | TaskSamples | TaskWarning | TaskOutputStored | TaskExited


class LogChunk(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes ``offset .. offset + len(data)`` of a log file named relative to the job's artifacts."""

    task_id: str
    file: str
    offset: int
    data: bytes


class LogSize(msgspec.Struct, frozen=True, kw_only=True):
    """How many bytes of a log file the server holds durably."""

    task_id: str
    file: str
    size: int


class NodeFacts(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the machine under a node really has."""

    host: str
    address: str
    pid: int
    agent_version: str
    protocol_version: int = PROTOCOL_VERSION
    cpus: float = 0
    memory_bytes: int = 0
    disk_free_bytes: int = 0
    gpus: list[str] = []
    isolation: str = "process"
    cgroup: str = "none"


class SyncRequest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """``incarnation`` is new for each start of the agent; ``facts`` come with its first call."""

    incarnation: str
    revision: int = 0
    wait_s: float = 0.0
    facts: NodeFacts | None = None
    logs: list[LogChunk] = []
    events: list[Event] = []
    tasks_held: list[str] = []
    """Ids of the tasks the agent has on disk, so that the server can tell it which to forget."""


class SyncResponse(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """``node_state`` ``released``: stop everything, remove the work folder, exit with code 0.

    ``draining``: finish what runs, take nothing new. ``forget`` names tasks whose folders may go.
    """

    acked_seq: int
    revision: int
    node_state: Literal["active", "draining", "released"] = "active"
    log_sizes: list[LogSize] = []
    tasks: list[TaskSpec] = []
    forget: list[str] = []
