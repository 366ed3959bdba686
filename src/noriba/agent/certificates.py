"""Which certificate authorities jobs and transfers trust: the public ones, the machine's own and the server's."""

from __future__ import annotations

import os
import ssl
import threading
import time
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path

from noriba.agent.folder import write_atomic

_MACHINE_FILES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
)
_MACHINE_VARIABLES = ("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE", "CURL_CA_BUNDLE")

_LOOK_EVERY_S = 10.0


class Trust:
    """Builds the bundle below ``root`` when it is first needed, and again when one of its parts has changed."""

    def __init__(self, root: Path, ca_file: Path | None, environment: Mapping[str, str] = os.environ) -> None:
        self._root = root
        self._ca_file = ca_file
        self._environment = environment
        self._lock = threading.Lock()
        self._looked_at = 0.0
        self._bundle: tuple[tuple[object, ...], str] | None = None
        self._context: tuple[str, ssl.SSLContext] | None = None

    def _parts(self) -> list[Path]:
        import certifi

        found = [Path(certifi.where())]
        named = [self._environment[name] for name in _MACHINE_VARIABLES if self._environment.get(name)]
        for candidate in [*named, *[name for name in _MACHINE_FILES if os.path.isfile(name)][:1]]:
            path = Path(candidate)
            if path.is_file() and path not in found:
                found.append(path)
        if self._ca_file is not None:
            found.append(self._ca_file)
        return found

    def bundle(self) -> str:
        """Path of a PEM file with all of them."""
        with self._lock:
            now = time.monotonic()
            if self._bundle is not None and now - self._looked_at < _LOOK_EVERY_S:
                return self._bundle[1]
            self._looked_at = now
            parts = self._parts()
            state = tuple((str(p), (s := p.stat()).st_mtime_ns, s.st_size) for p in parts)
            if self._bundle is not None and self._bundle[0] == state and os.path.exists(self._bundle[1]):
                return self._bundle[1]
            content = b"\n".join(dict.fromkeys(part.read_bytes() for part in parts))
            path = self._root / f"ca-{sha256(content).hexdigest()[:16]}.pem"
            if not path.exists():
                self._root.mkdir(parents=True, exist_ok=True)
                write_atomic(path, content)
                path.chmod(0o644)
            self._bundle = (state, str(path))
            return self._bundle[1]

    def context(self) -> ssl.SSLContext:
        """A TLS context that trusts them."""
        bundle = self.bundle()
        with self._lock:
            if self._context is None or self._context[0] != bundle:
                self._context = (bundle, ssl.create_default_context(cafile=bundle))
            return self._context[1]
