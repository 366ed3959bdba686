"""What is asked for, under which rules, and what comes out: plain data that crosses process borders."""

from __future__ import annotations

import platform as _platform
from pathlib import Path
from typing import Any, Literal

import msgspec


class BuildContext(msgspec.Struct, frozen=True, omit_defaults=True):
    """A folder with a Dockerfile, already on this machine."""

    path: str
    dockerfile_path: str = "Dockerfile"


class EnvironmentSpec(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An environment as Azure ML describes one (wire.md 3.3): curated, image, image + conda file, or context.

    ``conda_file`` is the YAML text. ``curated`` names an environment of the built-in catalogue and excludes the
    other three. ``name``, ``version`` and ``labels`` are for people and logs; they do not enter the key.
    """

    name: str = ""
    version: str = ""
    image: str | None = None
    conda_file: str | None = None
    build: BuildContext | None = None
    curated: str | None = None
    labels: dict[str, str] = {}


class PipOptions(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """pip's options that decide what is found: from its configuration, a requirements file or a conda file.

    ``constraints`` are requirement lines, not file names. ``timeout_s`` is None where pip's default holds.
    """

    index_url: str | None = None
    extra_index_urls: tuple[str, ...] = ()
    find_links: tuple[str, ...] = ()
    constraints: tuple[str, ...] = ()
    trusted_hosts: tuple[str, ...] = ()
    no_binary: tuple[str, ...] = ()
    only_binary: tuple[str, ...] = ()
    no_index: bool = False
    pre: bool = False
    cert: str | None = None
    client_cert: str | None = None
    proxy: str | None = None
    timeout_s: float | None = None

    def over(self, below: PipOptions) -> PipOptions:
        """These options on top of ``below``: lists add up (these first), single values win where they are set."""
        return PipOptions(
            index_url=self.index_url or below.index_url,
            extra_index_urls=merge(self.extra_index_urls, below.extra_index_urls),
            find_links=merge(self.find_links, below.find_links),
            constraints=merge(self.constraints, below.constraints),
            trusted_hosts=merge(self.trusted_hosts, below.trusted_hosts),
            no_binary=merge(self.no_binary, below.no_binary),
            only_binary=merge(self.only_binary, below.only_binary),
            no_index=self.no_index or below.no_index,
            pre=self.pre or below.pre,
            cert=self.cert or below.cert,
            client_cert=self.client_cert or below.client_cert,
            proxy=self.proxy or below.proxy,
            timeout_s=self.timeout_s if self.timeout_s is not None else below.timeout_s,
        )


def merge(*parts: tuple[str, ...]) -> tuple[str, ...]:
    """All entries in order, each once."""
    return tuple(dict.fromkeys(entry for part in parts for entry in part))


def current_platform() -> str:
    """The machine's platform in conda's words, such as ``linux-64`` or ``osx-arm64``."""
    system = {"Linux": "linux", "Darwin": "osx", "Windows": "win"}.get(_platform.system(), _platform.system())
    machine = _platform.machine().lower()
    arch = {"x86_64": "64", "amd64": "64", "aarch64": "aarch64", "arm64": "arm64"}.get(machine, machine)
    return f"{system}-{'aarch64' if system == 'linux' and arch == 'arm64' else arch}"


class BuildSettings(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The node's rules for environments.

    Every field enters a plan only as far as it changes the result, so that an unrelated setting rebuilds nothing.
    """

    platform: str = msgspec.field(default_factory=current_platform)
    python_preference: Literal["nearest", "exact"] = "nearest"
    """What to do where the asked Python minor version cannot be had: take the nearest and say so, or refuse."""
    default_python: str = msgspec.field(
        default_factory=lambda: ".".join(_platform.python_version_tuple()[:2])
    )
    """Python of environments that do not name one: by default the one this process runs on."""
    python_downloads: bool = True
    """Let uv download an interpreter where its server answers."""
    allow_pypi_mapping: bool = True
    """Take conda packages from PyPI where no conda channel answers and the mapping is sound."""
    conda: Literal["auto", "always", "never"] = "auto"
    """``auto``: use the channels when a conda file names more than Python and pip; ``always``: for Python too."""
    conda_timeout_s: float = 5.0
    """How long a channel may take to answer before it counts as unreachable."""
    default_channels: tuple[str, ...] = ("conda-forge",)
    container_runtime: Literal["podman", "docker"] | None = None
    """Run images in containers. None: images are mapped to Python environments (``images``), or refused."""
    gpu: bool = False
    """The node has an NVIDIA GPU."""
    torch_build: Literal["auto", "cpu", "any"] = "auto"
    """``auto``: builds of PyTorch without CUDA where there is no GPU; ``cpu``: everywhere; ``any``: no rule."""
    torch_preference: Literal["nearest", "exact"] = "nearest"
    """What to do where the asked version of PyTorch has no CPU build in reach: nearest and say so, or refuse."""
    torch_cpu_index: str = "https://download.pytorch.org/whl/cpu"
    source_builds: bool = True
    """Allow packages without a wheel (their build code runs on the node while the environment is built)."""
    bytecode: Literal["background", "inline", "off"] = "background"
    pip: PipOptions = PipOptions()
    """pip's own configuration of this node (``pipconfig.read_pip_config``)."""

    @property
    def wants_cpu_torch(self) -> bool:
        """PyTorch from PyPI carries gigabytes of CUDA on x86-64 Linux only; elsewhere there is nothing to avoid."""
        if self.platform != "linux-64" or self.torch_build == "any":
            return False
        return self.torch_build == "cpu" or not self.gpu


class BuiltEnvironment(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An environment that can be used.

    ``python`` runs it; ``bin_dir`` goes first on ``PATH``; ``env`` holds the other variables to set. ``mounts`` are
    the folders that must be visible, read-only, to a job in a sandbox (the environment and the interpreter it
    rests on). With ``container_image`` set, ``path`` holds only the build's record and the job runs in that image.
    """

    key: str
    id: str
    path: Path
    python: Path
    bin_dir: Path
    env: dict[str, str] = {}
    cache_hit: bool = False
    warnings: list[str] = []
    python_version: str = ""
    packages: int = 0
    seconds: float = 0.0
    mounts: list[str] = []
    container_image: str | None = None
    container_runtime: str | None = None

    def to_json(self) -> bytes:
        """JSON; paths become strings."""
        return msgspec.json.encode(self, enc_hook=_encode_path)

    @classmethod
    def from_json(cls, data: bytes | str) -> BuiltEnvironment:
        """The reverse of ``to_json``. Raises ``msgspec.ValidationError``."""
        return msgspec.json.decode(data, type=cls, dec_hook=_decode_path)


def _encode_path(value: Any) -> str:
    if isinstance(value, Path):
        return str(value)
    raise NotImplementedError(type(value))


def _decode_path(kind: type, value: Any) -> Any:
    if kind is Path:
        return Path(value)
    raise NotImplementedError(kind)
