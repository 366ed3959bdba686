"""The controller of jobs and nodes."""

from __future__ import annotations

from noriba.models.principal import Principal


class Control:
    """Moves jobs and nodes one step towards what is wanted, each time it looks (architecture.md, decision 4)."""

    async def start(self) -> None:
        """Begin to look."""

    async def stop(self) -> None:
        """Stop looking; what is half done is taken up by the next start."""

    async def is_job_active(self, workspace_id: str, name: str) -> bool:
        """Whether the job exists and is not over."""
        return False

    async def principal_of_job_secret(self, secret: str, *, client_id: str | None) -> Principal | None:
        """Who a job acts as when it presents its secret; None if the secret is not known or the job is over."""
        return None

    async def principal_of_obo_secret(self, secret: str) -> Principal | None:
        """The user on whose behalf the job with this secret acts."""
        return None
