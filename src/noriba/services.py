"""Everything that stands behind the API, in one place so that it is passed, not imported."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING
from urllib.parse import quote

from noriba.database import Database
from noriba.identity.keys import Keys
from noriba.identity.principals import Principals
from noriba.identity.tokens import Tokens
from noriba.settings import Settings
from noriba.tracking.service import Tracking
from noriba.workspaces import Workspaces

if TYPE_CHECKING:
    from noriba.jobs.control import Control
    from noriba.storage.blobs import BlobStore


@dataclass
class Services:
    """The services of one server process. ``base_url`` is ``https://host:port``, as clients type it."""

    settings: Settings
    base_url: str
    database: Database
    keys: Keys
    tokens: Tokens
    principals: Principals
    workspaces: Workspaces
    blobs: BlobStore
    clock: Callable[[], float] = field(default=time.time)
    _control: Control | None = None

    @property
    def control(self) -> Control:
        """The controller of jobs and nodes, which itself stands on these services."""
        assert self._control is not None
        return self._control

    @control.setter
    def control(self, control: Control) -> None:
        self._control = control

    @cached_property
    def tracking(self) -> Tracking:
        """Look-ups of experiment tracking, with its caches."""
        return Tracking(self.database)

    @property
    def host(self) -> str:
        """``host:port`` of the server."""
        return self.base_url.partition("://")[2]

    def blob_url(self, account: str, container: str, name: str, query: str = "") -> str:
        """The address of a blob on this server; ``query`` is a SAS."""
        path = f"/blob/{account}.blob.local/{container}/{quote(name)}"
        return f"{self.base_url}{path}{'?' if query else ''}{query}"
