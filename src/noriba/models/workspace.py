"""A workspace: the unit of sharing, isolation and quota."""

from __future__ import annotations

import msgspec


class Workspace(msgspec.Struct, frozen=True, kw_only=True):
    """``id`` is a GUID made anew for each workspace (clients cache by it), ``storage_account`` its blob account."""

    id: str
    subscription_id: str
    resource_group: str
    name: str
    location: str
    storage_account: str

    @property
    def arm_id(self) -> str:
        """The resource id, ``/subscriptions/…/workspaces/<name>``."""
        return (
            f"/subscriptions/{self.subscription_id}/resourceGroups/{self.resource_group}"
            f"/providers/Microsoft.MachineLearningServices/workspaces/{self.name}"
        )
