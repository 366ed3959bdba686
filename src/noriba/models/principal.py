"""Who makes a request, and what they may do."""

from __future__ import annotations

from typing import Literal

import msgspec

PrincipalKind = Literal["user", "managed_identity", "job", "node"]
Action = Literal["read", "write", "admin"]

ROLE_ACTIONS: dict[str, frozenset[Action]] = {
    "Owner": frozenset({"read", "write", "admin"}),
    "Contributor": frozenset({"read", "write"}),
    "Reader": frozenset({"read"}),
}
"""What each role allows. Roles are given per workspace, or for all workspaces (``*``)."""


class Principal(msgspec.Struct, frozen=True, kw_only=True):
    """An authenticated caller.

    ``id`` is the object id (a GUID), ``name`` is for people. ``roles`` maps workspace ids (or ``*``) to role names.
    ``job`` is (workspace id, job name) when the token was given to a job; ``node`` the id of a node for agents.
    """

    id: str
    kind: PrincipalKind
    name: str
    tenant_id: str
    roles: dict[str, str] = {}
    job: tuple[str, str] | None = None
    node: str | None = None

    def may(self, action: Action, workspace_id: str) -> bool:
        """Whether this caller may do ``action`` in the workspace with that id."""
        role = self.roles.get(workspace_id) or self.roles.get("*")
        return role is not None and action in ROLE_ACTIONS.get(role, frozenset())
