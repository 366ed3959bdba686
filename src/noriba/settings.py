"""Settings: by flag, then environment (``NORIBA_<SECTION>_<NAME>``), then ``noriba.toml``, then the default.

Each field is documented where it is declared; ``docs/settings.md`` is made from here. Values are checked against
the declared types when they are loaded, so that a mistake is one clear line at the start.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec

DEFAULT_PORT = 8443


class SettingsError(Exception):
    """A setting is unknown or has a value of the wrong kind; the message names it and where it came from."""


class ServerSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    host: str = "127.0.0.1"
    """Address to listen on."""
    port: int = DEFAULT_PORT
    """Port to listen on; 0 takes a free one."""
    public_url: str = ""
    """URL under which clients and nodes reach the server, such as ``https://noriba.example.com``; by default
    ``https://<host>:<port>``."""
    names: list[str] = []
    """Further host names and addresses for the server's certificate."""
    tls_certificate: str = ""
    """PEM file of a certificate to use instead of one from the local CA (with ``tls_key``)."""
    tls_key: str = ""
    """PEM file of that certificate's private key."""
    shutdown_grace_s: float = 10.0
    """How long requests in progress may take to end when the server stops."""
    max_body_bytes: int = 64 * 1024 * 1024
    """Largest request body outside the blob and artifact routes."""


class LogSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    level: Literal["debug", "info", "warning", "error"] = "info"
    """What is logged at least; ``debug`` has a line for each request."""
    format: Literal["json", "text"] = "json"
    """``json`` has one object a line; ``text`` is for reading."""


class DatabaseSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    url: str = ""
    """SQLAlchemy URL; by default SQLite in the home folder. ``postgresql+psycopg://…`` for PostgreSQL."""


class StorageSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    url: str = ""
    """Where blobs are kept: a folder, ``file:///…``, ``s3://bucket/prefix``, ``az://container/prefix``,
    ``gs://bucket/prefix``; by default ``blobs`` in the home folder."""
    options: dict[str, str] = {}
    """Options for the object store (keys as in obstore, such as ``aws_region``)."""


class EngineSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: Literal["local"] = "local"
    """What gives the nodes; ``local`` runs them on this machine."""
    sizing: Literal["emulate", "strict"] = "emulate"
    """``emulate`` honours sizes for quota, price and variables only; ``strict`` holds jobs to them."""
    max_nodes: int = 0
    """Most nodes alive at a time; 0 lets the engine choose from the machine."""
    keep_warm_s: float = 300.0
    """How long an idle node is kept for a next job of the same workspace and identity."""
    max_node_age_s: float = 86_400.0
    """Idle nodes older than this are replaced."""
    heartbeat_timeout_s: float = 60.0
    """A node that was silent for so long is lost."""


class RuntimeSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    isolation: Literal["process", "sandbox", "container"] = "process"
    """What stands between a job and the machine: a process and its control group (`process`), or a container for
    every environment that names an image (`container`, with `runtime.container_runtime`). `sandbox` is not there
    yet and is refused."""
    container_runtime: Literal["none", "podman", "docker"] = "none"
    """Run jobs in their environment's container image with this program."""
    pass_environment: list[str] = []
    """Further environment variables of the node (wildcards allowed) that jobs inherit."""


class EnvironmentSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    folder: str = ""
    """Folder in which built environments are kept, by default ``environments`` in the home. Homes of one machine
    may share one."""
    python_version: Literal["nearest", "exact"] = "nearest"
    """What to do when the Python version an environment asks for can not be had: take the nearest with a
    warning in the job's log, or refuse."""
    python_downloads: bool = True
    """Let uv download a Python that the node does not have, where its server answers."""
    torch_build: Literal["auto", "cpu", "any"] = "auto"
    """``auto``: PyTorch without CUDA on nodes without a GPU; ``cpu``: everywhere; ``any``: as the index has it."""
    torch_version: Literal["nearest", "exact"] = "nearest"
    """What to do when the PyTorch version asked for has no CPU build in reach."""
    torch_cpu_index: str = "https://download.pytorch.org/whl/cpu"
    """Package index with CPU builds of PyTorch."""
    conda: Literal["auto", "always", "never"] = "auto"
    """When conda channels are asked: when more than Python and pip is wanted from them, always, or never."""
    conda_channels: list[str] = msgspec.field(default_factory=lambda: ["conda-forge"])
    """Channels of conda files that name none."""
    pypi_mapping: bool = True
    """Take conda packages from PyPI where no channel answers and the mapping is sound; else refuse."""
    source_builds: bool = True
    """Allow packages without a wheel: their build code runs on the node."""


class WorkspaceSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The workspace that a new home starts with."""

    subscription_id: str = "00000000-0000-4000-8000-000000000001"
    """Subscription of that workspace."""
    resource_group: str = "noriba"
    """Its resource group."""
    name: str = "main"
    """Its name."""
    location: str = "local"
    """Its location, which clients show."""


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    home: str = ""
    server: ServerSettings = ServerSettings()
    log: LogSettings = LogSettings()
    database: DatabaseSettings = DatabaseSettings()
    storage: StorageSettings = StorageSettings()
    engine: EngineSettings = EngineSettings()
    runtime: RuntimeSettings = RuntimeSettings()
    environments: EnvironmentSettings = EnvironmentSettings()
    workspace: WorkspaceSettings = WorkspaceSettings()

    @property
    def home_path(self) -> Path:
        return Path(self.home)


def default_home(environ: Mapping[str, str]) -> Path:
    """``$NORIBA_HOME``, else ``~/.noriba``."""
    return Path(environ.get("NORIBA_HOME") or Path(environ.get("HOME") or Path.home()) / ".noriba").absolute()


def load_settings(
    *,
    flags: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
    home: Path | None = None,
    config_file: Path | None = None,
    defaults: Mapping[str, Any] | None = None,
) -> Settings:
    """Merge flags (dotted names such as ``server.port``), environment and ``noriba.toml`` of the home.

    ``defaults`` take the place of the declared ones. Text values of flags are read like those of the environment.
    Raises SettingsError.
    """
    environ = os.environ if environ is None else environ
    home = (home or default_home(environ)).absolute()
    config_file = config_file or home / "noriba.toml"
    merged: dict[str, Any] = {}
    if config_file.is_file():
        try:
            merged = tomllib.loads(config_file.read_text())
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise SettingsError(f"{config_file} is not valid TOML: {error}") from error
        except OSError as error:
            raise SettingsError(f"{config_file} can not be read: {error.strerror}.") from error
        _check(merged, str(config_file))
    for dotted, value in (defaults or {}).items():
        if value is not None:
            section, _, name = dotted.partition(".")
            merged.setdefault(section, {}).setdefault(name, value)
    for dotted, value in _from_environment(environ).items():
        _set(merged, dotted, value)
    _check(merged, "the environment (NORIBA_*)")
    for dotted, value in (flags or {}).items():
        if value is not None:
            _set(merged, dotted, _parse(dotted, value) if isinstance(value, str) else value)
    merged["home"] = str(home)
    return _check(merged, "the command line")


def _check(values: dict[str, Any], source: str) -> Settings:
    try:
        return msgspec.convert(values, Settings, strict=False)
    except msgspec.ValidationError as error:
        where = str(error).replace(" - at `$.", " at `")
        raise SettingsError(f"Bad setting in {source}: {where}. See docs/settings.md for all.") from error


def fields() -> dict[str, msgspec.structs.FieldInfo]:
    """Every setting under its dotted name, in the order of declaration."""
    return {
        f"{section.name}.{field.name}": field
        for section in msgspec.structs.fields(Settings)
        if isinstance(section.type, type) and issubclass(section.type, msgspec.Struct)
        for field in msgspec.structs.fields(section.type)
    }


def environment_name(dotted: str) -> str:
    """``NORIBA_SERVER_PORT`` for ``server.port``."""
    return "NORIBA_" + dotted.replace(".", "_").upper()


def _from_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    found = {dotted: environ.get(environment_name(dotted)) for dotted in fields()}
    return {dotted: _parse(dotted, value) for dotted, value in found.items() if value is not None}


def _parse(dotted: str, text: str) -> Any:
    """Text of the environment or a flag as a value: lists are ``a,b``, tables ``a=1,b=2``; msgspec does the rest."""
    field = fields().get(dotted)
    if field is not None and field.type == list[str]:
        return [part.strip() for part in text.split(",") if part.strip()]
    if field is not None and field.type == dict[str, str]:
        return dict(part.split("=", 1) for part in text.split(",") if "=" in part)
    return text


def _set(values: dict[str, Any], dotted: str, value: Any) -> None:
    section, _, name = dotted.partition(".")
    if not name:
        values[section] = value
        return
    target = values.setdefault(section, {})
    if isinstance(target, dict):
        target[name] = value
