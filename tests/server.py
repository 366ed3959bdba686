"""A real server process for tests."""

from __future__ import annotations

import os
import signal
import ssl
import subprocess
import sys
import time
from pathlib import Path

import httpx

from noriba.home import Home, ServerInfo


class ServerProcess:
    """``noriba up`` on a free port in a home of its own. ``start`` waits until it is ready."""

    def __init__(
        self,
        home: Path,
        *arguments: str,
        environ: dict[str, str] | None = None,
        database: str | None = None,
        environments: Path | None = None,
    ) -> None:
        self.home = Home(home)
        self.arguments = arguments
        self.environ = environ or {}
        if database:
            self.environ = {"NORIBA_DATABASE_URL": database, **self.environ}
        if environments:
            self.environ = {"NORIBA_ENVIRONMENTS_FOLDER": str(environments), **self.environ}
        self.process: subprocess.Popen[bytes] | None = None
        self.log_file = home.with_name(home.name + ".log")
        self.port = 0

    def start(self, timeout_s: float = 30) -> ServerInfo:
        """Start and wait until the server is ready. A restarted server gets the port it had."""
        assert self.process is None, "already started"
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "noriba.cli.main", "up"),
                    *("--home", str(self.home.path), "--port", str(self.port)),
                    *self.arguments,
                ],
                stdout=log,
                stderr=log,
                env={**os.environ, **self.environ},
                start_new_session=True,
            )
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise AssertionError(
                    f"server ended with {self.process.returncode}: {self.log_file.read_text()}"
                )
            info = self.home.server()
            if info is not None and info.pid == self.process.pid:
                self.port = int(info.base_url.rsplit(":", 1)[1])
                return info
            time.sleep(0.02)
        raise AssertionError(f"server not ready in {timeout_s} s: {self.log_file.read_text()}")

    @property
    def info(self) -> ServerInfo:
        info = self.home.server()
        assert info is not None, "not running"
        return info

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    def tls(self) -> ssl.SSLContext:
        """Trusts the server's CA."""
        return ssl.create_default_context(cafile=str(self.home.ca_file))

    def client(self, *, audience: str | None = None, secret: str | None = None) -> httpx.Client:
        """An HTTP client signed in as the local user (or whoever has ``secret``)."""
        if secret is None:
            credentials = self.home.credentials()
            assert credentials is not None
            secret = credentials.secret
        answer = httpx.get(
            f"{self.url}/msi/token",
            params={"resource": audience or self.url},
            headers={"secret": secret},
            verify=self.tls(),
        )
        answer.raise_for_status()
        token = answer.json()["access_token"]
        return httpx.Client(
            base_url=self.url, verify=self.tls(), timeout=30, headers={"Authorization": f"Bearer {token}"}
        )

    def client_environment(self) -> dict[str, str]:
        """What ``noriba env`` exports for the official clients."""
        credentials = self.home.credentials()
        assert credentials is not None
        return {
            "ARM_CLOUD_METADATA_URL": f"{self.url}/metadata/endpoints?api-version=2019-05-01",
            "MSI_ENDPOINT": f"{self.url}/msi/token",
            "MSI_SECRET": credentials.secret,
            "REQUESTS_CA_BUNDLE": str(self.home.bundle_file),
            "SSL_CERT_FILE": str(self.home.bundle_file),
        }

    def kill(self) -> None:
        """kill -9."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """Stop gracefully."""
        self._end(signal.SIGTERM)

    def destroy(self) -> None:
        """Stop the server and its nodes, with all that runs on them."""
        self.stop()
        subprocess.run(
            [sys.executable, "-m", "noriba.cli.main", "down", "--all", "--home", str(self.home.path)],
            check=True,
            capture_output=True,
            timeout=60,
        )

    def _end(self, number: signal.Signals) -> None:
        if self.process is not None:
            self.process.send_signal(number)
            self.process.wait(timeout=30)
            self.process = None
