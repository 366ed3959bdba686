"""The home folder: where a server keeps everything, and what its clients find there.

noriba.toml        settings (yours)          noriba.db      the embedded database
server.json        the running server        blobs/         the embedded object store
credentials.json   the local user's secret   nodes/         work folders of local nodes
keys/  tls/        secrets and certificates   environments/  built environments
logs/              server and node logs
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import Any

import msgspec

from noriba import __version__
from noriba.files import write_private

FORMAT = 1
"""Raised when a home made by this version can not be used by the one before."""


class HomeError(Exception):
    """The home can not be used; the message is one line that says what to do."""


class AlreadyRunning(HomeError):
    """A server runs in this home already."""

    def __init__(self, path: Path, info: ServerInfo) -> None:
        super().__init__(f"A server runs in {path} already: {info.base_url} (pid {info.pid}).")
        self.info = info


class ServerInfo(msgspec.Struct, kw_only=True):
    """The running server as written in ``server.json``. ``started_at`` is the process's start, against reused pids."""

    pid: int
    started_at: float
    base_url: str
    version: str
    engine: str
    sizing: str
    isolation: str
    isolation_reason: str = ""
    database: str
    storage: str
    log_file: str = ""
    """Where its log goes; empty when that is the terminal it was started from."""
    own_certificate: bool = False
    """The server's certificate is the user's (``server.tls_certificate``), not one from the local CA."""
    subscription_id: str = ""
    resource_group: str = ""
    workspace: str = ""
    """The workspace that the home started with, which clients take by default."""


class Credentials(msgspec.Struct, kw_only=True):
    """The local user, who signs in with ``secret`` (as MSI_SECRET)."""

    user: str
    secret: str


class Home:
    """Paths and small files of one home folder."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config_file = path / "noriba.toml"
        self.database_file = path / "noriba.db"
        self.blobs = path / "blobs"
        self.keys = path / "keys"
        self.tls = path / "tls"
        self.nodes = path / "nodes"
        self.environments = path / "environments"
        self.logs = path / "logs"
        self.server_log = self.logs / "server.log"
        self.ca_file = self.tls / "ca.pem"
        self.bundle_file = self.tls / "bundle.pem"
        self.credentials_file = path / "credentials.json"
        self._lock_file = path / "server.lock"
        self._format_file = path / "home.json"
        self._server_file = path / "server.json"

    def prepare(self) -> None:
        """Make the folder if need be and check that we may use it. Raises HomeError."""
        if self.path.exists() and not self.path.is_dir():
            raise HomeError(
                f"The home {self.path} can not be used: it is a file. Give a folder with --home or NORIBA_HOME."
            )
        try:
            self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
            os.chmod(self.path, 0o700)
            for folder in (self.keys, self.tls, self.nodes, self.environments, self.logs):
                folder.mkdir(exist_ok=True, mode=0o700)
            if self._format_file.exists():
                found = msgspec.json.decode(self._format_file.read_bytes(), type=dict[str, Any])
                if int(found.get("format", 0)) > FORMAT:
                    raise HomeError(
                        f"The home {self.path} was made by Noriba {found.get('version')}, which is newer than this "
                        f"one ({__version__}). Upgrade Noriba, or give another home with --home."
                    )
            write_private(self._format_file, msgspec.json.encode({"format": FORMAT, "version": __version__}))
        except OSError as error:
            raise HomeError(
                f"The home {self.path} can not be used: {error.strerror or error}. Give a folder that you may write "
                "to with --home or NORIBA_HOME."
            ) from error
        except (msgspec.DecodeError, ValueError) as error:
            raise HomeError(
                f"{self._format_file} is damaged: {error}. Restore it or use another home."
            ) from error

    def write_server(self, info: ServerInfo) -> None:
        """Say which server runs here."""
        write_private(self._server_file, msgspec.json.format(msgspec.json.encode(info)))

    def last_server(self) -> ServerInfo | None:
        """The server that runs here or, with ``pid`` 0, the last that did."""
        try:
            return msgspec.json.decode(self._server_file.read_bytes(), type=ServerInfo)
        except (OSError, msgspec.DecodeError):
            return None

    def server(self) -> ServerInfo | None:
        """The server running in this home, None when there is none (a stale file counts as none)."""
        # Imported here: the command line reads homes without needing it.
        import psutil

        info = self.last_server()
        if info is None or not info.pid:
            return None
        try:
            process = psutil.Process(info.pid)
            alive = (
                abs(process.create_time() - info.started_at) < 2 and process.status() != psutil.STATUS_ZOMBIE
            )
        except psutil.Error:
            return None
        return info if alive else None

    def try_lock(self) -> int | None:
        """Take the home for the life of this process: a descriptor to keep open, None when another has it.

        The kernel drops the lock when the process ends, however it ends. Raises HomeError.
        """
        try:
            descriptor = os.open(self._lock_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise HomeError(f"{self._lock_file} can not be opened: {error.strerror}.") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        except OSError as error:
            os.close(descriptor)
            raise HomeError(
                f"{self._lock_file} can not be locked: {error.strerror}. Give a home on a local file system."
            ) from error
        return descriptor

    def clear_server(self) -> None:
        """Say that no server runs here any more; ``last_server`` still tells where it was."""
        info = self.last_server()
        if info is not None:
            info.pid, info.started_at = 0, 0.0
            self.write_server(info)

    def credentials(self) -> Credentials | None:
        """The local user's credentials."""
        try:
            return msgspec.json.decode(self.credentials_file.read_bytes(), type=Credentials)
        except FileNotFoundError:
            return None

    def write_credentials(self, credentials: Credentials) -> None:
        """Keep the local user's credentials (0600)."""
        write_private(self.credentials_file, msgspec.json.encode(credentials))
