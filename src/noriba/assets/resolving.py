"""From references to where data and code are.

Called when a job is submitted. References may lead on (a data asset to a job's output to a datastore); each step
checks that the caller may read where it leads. ``principal`` is that caller; without one, only what is in the
workspace itself (and in registries) is reached.
"""

from __future__ import annotations

from typing import Any, cast, get_args

import sqlalchemy as sa

from noriba import datastores
from noriba.assets import store
from noriba.assets.ids import no_version, registry_of, version_id, workspace_name
from noriba.assets.references import (
    AssetReference,
    DatastoreReference,
    JobOutputReference,
    Reference,
    RunReference,
    UrlReference,
    WorkspaceName,
    long_datastore_uri,
    parse_reference,
    short_datastore_uri,
)
from noriba.assets.urls import REGISTRY_ACCOUNT, azure_blob, own_blob
from noriba.database.tables import jobs
from noriba.models.asset import AssetKind, DataType, ResolvedData, Version
from noriba.models.errors import BadRequest, Forbidden, NotFound
from noriba.models.principal import Principal
from noriba.models.workspace import Workspace
from noriba.services import Services
from noriba.tracking.store import run_key

FOLDER_TYPES = frozenset({"uri_folder", "mltable", "mlflow_model", "triton_model"})
MAX_STEPS = 8
"""How many references may lead from one to the next."""


def artifacts_path(job: str) -> str:
    """The folder of a job's artifacts in the datastore ``workspaceartifactstore``."""
    return f"ExperimentRun/dcid.{job}/"


def default_output_path(job: str, output: str, output_type: str = "uri_folder") -> str:
    """Where an output of a job stands in the default datastore unless the job says otherwise (wire.md 5.5)."""
    return f"azureml/{job}/{output}" + ("" if output_type == "uri_file" else "/")


async def resolve_data(
    services: Services,
    workspace: Workspace,
    uri: str,
    type: str,
    *,
    principal: Principal | None = None,
) -> ResolvedData:
    """Where the data behind ``uri`` is. ``type`` is the input's or output's (``uri_folder``, ``mlflow_model`` …).

    Raises BadRequest (a reference that is malformed, of the wrong type or can not be read by jobs), NotFound and
    Forbidden; all name the reference.
    """
    wanted = _data_type(type)
    return await Resolver(services, workspace, uri, wanted, principal).resolve()


async def resolve_code(
    services: Services, workspace: Workspace, code_id: str, *, principal: Principal | None = None
) -> ResolvedData:
    """The folder of a job's code. Raises BadRequest, NotFound and Forbidden."""
    return await Resolver(services, workspace, code_id, "uri_folder", principal, kind="codes").resolve()


class Resolver:
    """Follows one reference of one job or (not ``to_read``) asset, which may name what jobs can not read."""

    def __init__(
        self,
        services: Services,
        workspace: Workspace,
        text: str,
        wanted: DataType,
        principal: Principal | None,
        kind: AssetKind | None = None,
        *,
        to_read: bool = True,
    ) -> None:
        self.services = services
        self.workspace = workspace
        self.text = text
        self.wanted = wanted
        self.principal = principal
        self.kind = kind
        self.to_read = to_read
        self.asset_id = ""
        self.asset_type = ""

    async def resolve(self, home: Workspace | None = None) -> ResolvedData:
        """Follow the reference, which is used in the workspace ``home``, to the data."""
        reference = parse_reference(self.text)
        home = home or self.workspace
        for _ in range(MAX_STEPS):
            following = await self._step(reference, home)
            if isinstance(following, ResolvedData):
                self._check_type(following)
                return following
            reference, home = following
        raise BadRequest(
            f"'{self.text}' leads through more than {MAX_STEPS} other references. Point at the data itself.",
            code="InvalidReference",
            target=self.text,
        )

    async def _step(
        self, reference: Reference, home: Workspace
    ) -> ResolvedData | tuple[Reference, Workspace]:
        """Follow a reference used in the workspace ``home``: to the data, or to the next reference."""
        match reference:
            case DatastoreReference():
                return await self._datastore(reference, home)
            case UrlReference():
                return await self._url(reference, home)
            case JobOutputReference():
                return await self._job_output(reference, home), home
            case RunReference(run=run, path=path):
                return await self._job_output(
                    JobOutputReference(job=run, output="artifacts", path=path), home
                ), home
        found = await self.version(reference, home=home)
        assert found is not None
        home = await self.home_of(found, home)
        uri = _uri_of(found)
        self.asset_id = self.asset_id or version_id(home, found)
        self.asset_type = self.asset_type or _type_of(found)
        return parse_reference(uri), home

    async def home_of(self, version: Version, home: Workspace) -> Workspace:
        """The workspace that references inside the version are relative to."""
        if registry_of(version.scope) or version.scope == home.id:
            return home
        return await self.services.workspaces.by_id(version.scope)

    # --- assets

    async def version(
        self, reference: AssetReference, *, home: Workspace | None = None, required: bool = True
    ) -> Version | None:
        """The version that a reference names. Raises NotFound (unless not ``required``), Forbidden."""
        scope = await self._scope(reference, home or self.workspace)
        kinds = self._kinds(reference)

        def read(connection: sa.Connection) -> Version | None:
            for kind in kinds:
                if reference.label == "latest" or (not reference.version and not reference.label):
                    found = store.find_latest(connection, scope, kind, reference.name)
                elif reference.label:
                    found = None
                else:
                    found = store.find_version(connection, scope, kind, reference.name, reference.version)
                if found is not None:
                    return found
            return None

        found = await self.services.database.read(read)
        if found is None and required:
            raise no_version(kinds[0], reference, self.text)
        return found

    def _kinds(self, reference: AssetReference) -> tuple[AssetKind, ...]:
        """Which kinds of asset a reference may mean here; a bare name is first looked for as the input's type."""
        if reference.kind:
            kind = cast(AssetKind, reference.kind)
            if self.kind and kind != self.kind:
                raise BadRequest(
                    f"'{self.text}' is one of {kind}, where one of {self.kind} is needed.",
                    code="InvalidReference",
                    target=self.text,
                )
            return (kind,)
        if self.kind:
            return (self.kind,)
        return ("models", "data") if self.wanted.endswith("_model") else ("data", "models")

    async def _scope(self, reference: AssetReference, home: Workspace) -> str:
        if reference.registry:
            return f"registry:{reference.registry.lower()}"
        if reference.workspace_id:
            if reference.workspace_id.lower() == home.id.lower():
                return home.id
            return (await self._enter(await self.services.workspaces.by_id(reference.workspace_id))).id
        return (await self._other(reference.workspace, home)).id

    async def _other(self, name: WorkspaceName | None, home: Workspace) -> Workspace:
        if name is None:
            return home
        found = await self.services.workspaces.find(name.subscription_id, name.resource_group, name.name)
        return await self._enter(found)

    async def _enter(self, workspace: Workspace) -> Workspace:
        """The workspace, if the caller may read it. Raises Forbidden."""
        if workspace.id != self.workspace.id and not (
            self.principal and self.principal.may("read", workspace.id)
        ):
            raise Forbidden(
                f"'{self.text}' is in workspace '{workspace.name}', which you have no role in. "
                "Ask an owner of that workspace for one, or copy the asset to this workspace.",
                target=self.text,
            )
        return workspace

    # --- data

    async def _datastore(self, reference: DatastoreReference, home: Workspace) -> ResolvedData:
        owner = await self._other(reference.workspace, home)

        def read(connection: sa.Connection) -> datastores.Datastore:
            return datastores.get(connection, owner.id, reference.datastore)

        try:
            found = await self.services.database.read(read)
        except NotFound as error:
            raise NotFound(
                f"'{self.text}' names the datastore '{reference.datastore}', which workspace '{owner.name}' does "
                "not have. See the existing ones with: noriba datastore list",
                code=error.code,
                target=self.text,
            ) from None
        own = "" if not found.is_built_in else owner.storage_account
        is_folder = await self._is_folder(reference.path, own, found.container)
        path = reference.path.rstrip("/") + "/" if is_folder and reference.path else reference.path
        return ResolvedData(
            reference=self.text,
            uri=long_datastore_uri(workspace_name(owner), found.name, path),
            type=self.wanted,
            is_folder=is_folder,
            workspace_id=owner.id,
            datastore=found.name,
            path=path,
            asset_id=self.asset_id,
        )

    async def _url(self, reference: UrlReference, home: Workspace) -> ResolvedData:
        url = reference.url
        if reference.scheme == "file" or (reference.scheme == "adl" and self.to_read):
            raise BadRequest(
                _UNREADABLE[reference.scheme].format(self.text), code="InvalidReference", target=self.text
            )
        # Code is registered under the address that Azure would give it (urls.in_azure).
        own = own_blob(url) or azure_blob(url)
        if own is not None and await self._may_enter(own.account, home):
            is_folder = await self._is_folder(own.path, own.account, own.container)
            return ResolvedData(
                reference=self.text,
                uri=url.partition("?")[0],
                type=self.wanted,
                is_folder=is_folder,
                account=own.account,
                container=own.container,
                path=own.path.rstrip("/") + "/" if is_folder and own.path else own.path,
                asset_id=self.asset_id,
            )
        azure = azure_blob(url)
        path = azure.path if azure else url.partition("?")[0]
        is_folder = await self._is_folder(path, "", "")
        if self.to_read and is_folder and azure is None and reference.scheme in ("http", "https"):
            raise BadRequest(
                f"'{self.text}' is used as a folder ({self.wanted}), but the files of a web address can not be "
                "listed. Use type uri_file, or an address in a storage account or datastore.",
                code="InvalidReference",
                target=self.text,
            )
        return ResolvedData(
            reference=self.text,
            uri=url,
            type=self.wanted,
            is_folder=is_folder,
            url=url,
            asset_id=self.asset_id,
        )

    async def _may_enter(self, account: str, home: Workspace) -> bool:
        """Whether the account is one of this server's; raises Forbidden when the caller may not read it."""
        if account == REGISTRY_ACCOUNT:
            return True  # whoever has a role anywhere may read registries; the containers' names are secrets besides
        try:
            owner = await self.services.workspaces.by_account(account)
        except NotFound:
            return False
        # An asset that another workspace owns was entered already; what it points at there is part of it.
        if owner.id != home.id:
            await self._enter(owner)
        return True

    async def _job_output(self, reference: JobOutputReference, home: Workspace) -> Reference:
        def read(connection: sa.Connection) -> tuple[Any, bool]:
            row = connection.execute(
                sa.select(jobs.c.definition, jobs.c.resolved).where(
                    jobs.c.workspace_id == home.id, jobs.c.name == reference.job
                )
            ).one_or_none()
            return row, row is not None or run_key(connection, home.id, reference.job) is not None

        row, is_run = await self.services.database.read(read)
        if not is_run:
            raise NotFound(
                f"'{self.text}' names the job '{reference.job}', which this workspace does not have. "
                "See the existing ones with: noriba job list",
                code="JobNotFound",
                target=self.text,
            )
        # A run that was logged from outside of a job has artifacts only.
        outputs: dict[str, Any] = (row.definition.get("outputs") if row is not None else None) or {}
        if reference.output in outputs:
            resolved = row.resolved if row is not None else None
            return await self._output_root(reference, home, outputs[reference.output] or {}, resolved or {})
        if reference.output in ("artifacts", "default"):
            return DatastoreReference(
                datastore=datastores.ARTIFACTS, path=artifacts_path(reference.job) + reference.path
            )
        known = ", ".join([*outputs, "artifacts"])
        raise NotFound(
            f"'{self.text}' names the output '{reference.output}', which job '{reference.job}' does not have. "
            f"It has: {known}.",
            code="JobOutputNotFound",
            target=self.text,
        )

    async def _output_root(
        self,
        reference: JobOutputReference,
        home: Workspace,
        declared: dict[str, Any],
        resolved: dict[str, Any],
    ) -> Reference:
        stored = (resolved.get("outputs") or {}).get(reference.output) or {}
        uri = (stored.get("data") or {}).get("uri") or declared.get("uri")
        if not uri:
            default = await self.services.database.read(
                lambda connection: datastores.get_default(connection, home.id)
            )
            path = default_output_path(reference.job, reference.output, str(declared.get("jobOutputType")))
            uri = short_datastore_uri(default.name, path)
        self.asset_type = self.asset_type or str(declared.get("jobOutputType") or "")
        if reference.path:
            self.asset_type = ""
            uri = f"{uri.rstrip('/')}/{reference.path}"
        return parse_reference(uri)

    # --- shape

    async def _is_folder(self, path: str, account: str, container: str) -> bool:
        """Whether the data is a folder: by type, else (a custom model may be either) by its name or by looking."""
        if self.wanted == "uri_file":
            return False
        if self.wanted in FOLDER_TYPES or not path or path.endswith("/"):
            return True
        if account:
            return await self.services.blobs.head(account, container, path) is None
        return "." not in path.rpartition("/")[2]

    def _check_type(self, found: ResolvedData) -> None:
        """A file can not be delivered as a folder, nor the reverse; what the asset says it is counts."""
        asset_is_file = self.asset_type == "uri_file"
        asset_is_folder = self.asset_type in FOLDER_TYPES
        if (self.wanted == "uri_file" and (asset_is_folder or found.path.endswith("/"))) or (
            self.wanted in FOLDER_TYPES and asset_is_file
        ):
            is_what = self.asset_type or "a folder"
            raise BadRequest(
                f"'{self.text}' is {is_what}, but the input is of type {self.wanted}. "
                f"Set its type to {self.asset_type or 'uri_folder'}.",
                code="InputTypeMismatch",
                target=self.text,
            )


_UNREADABLE = {
    "file": "'{}' is a file of one machine, which jobs can not reach. Give the local path to the SDK or CLI so that "
    "it is uploaded, or put the file into a datastore.",
    "adl": "'{}' is in Azure Data Lake Storage Gen1, which Azure has retired. Use an abfss:// or https:// address.",
}


def _data_type(name: str) -> DataType:
    if name not in get_args(DataType):
        raise BadRequest(
            f"'{name}' is not a type of data. Use one of: {', '.join(get_args(DataType))}.",
            code="ValidationError",
            target="type",
        )
    return cast(DataType, name)


def _uri_of(version: Version) -> str:
    field = {"data": "dataUri", "models": "modelUri", "codes": "codeUri"}.get(version.kind)
    uri = version.properties.get(field) if field else None
    if not uri:
        raise BadRequest(
            f"'{version.name}:{version.version}' of {version.kind} holds no data that a job could read.",
            code="InvalidReference",
        )
    return str(uri)


def _type_of(version: Version) -> str:
    return str(version.properties.get("dataType") or version.properties.get("modelType") or "")
