"""Everything that stands behind the API, in one place so that it is passed, not imported."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from noriba.database import Database
from noriba.identity.keys import Keys
from noriba.identity.principals import Principals
from noriba.identity.tokens import Tokens
from noriba.settings import Settings
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
    control: Control
    clock: Callable[[], float] = field(default=time.time)

    @property
    def host(self) -> str:
        """``host:port`` of the server."""
        return self.base_url.partition("://")[2]
