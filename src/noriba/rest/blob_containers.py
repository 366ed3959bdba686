"""The account and its containers: listing, making, deleting, properties."""

from __future__ import annotations

import base64
import binascii

from starlette.responses import Response

from noriba.models.errors import BadRequest
from noriba.rest.blob_request import BlobRequest, Operation
from noriba.rest.blob_wire import (
    element,
    http_date,
    metadata_headers,
    metadata_of,
    name_element,
    version_headers,
    xml_response,
)
from noriba.storage import editing
from noriba.storage.model import BlobProperties, ContainerProperties, no_container

MAX_RESULTS = 5000


# --- the account


async def list_containers(request: BlobRequest) -> Response:
    """List Containers."""
    prefix, marker = _text(request, "prefix"), request.query.get("marker", "")
    limit = request.integer("maxresults", MAX_RESULTS, 1, MAX_RESULTS)
    found, following = await request.blobs.list_containers(
        request.account, prefix, _decode_marker(marker), limit
    )
    with_metadata = "metadata" in _include(request)
    listed = "".join(_container_element(container, with_metadata) for container in found)
    return xml_response(
        f'<EnumerationResults ServiceEndpoint="{_endpoint(request)}">'
        + _asked(request, prefix, marker)
        + f"<Containers>{listed}</Containers>{element('NextMarker', _encode_marker(following))}"
        + "</EnumerationResults>"
    )


def _container_element(container: ContainerProperties, with_metadata: bool) -> str:
    properties = (
        element("Last-Modified", http_date(container.modified_at))
        + element("Etag", f'"{container.etag}"')
        + "<LeaseStatus>unlocked</LeaseStatus><LeaseState>available</LeaseState>"
    )
    metadata = _metadata_element(container.metadata) if with_metadata else ""
    return f"<Container>{element('Name', container.name)}<Properties>{properties}</Properties>{metadata}</Container>"


async def account_information(request: BlobRequest) -> Response:
    """Get Account Information."""
    return Response(
        headers={
            "x-ms-sku-name": "Standard_LRS",
            "x-ms-account-kind": "StorageV2",
            "x-ms-is-hns-enabled": "false",
        }
    )


async def service_properties(request: BlobRequest) -> Response:
    """Get Blob Service Properties: nothing of it is switched on."""
    off = "<Enabled>false</Enabled>"
    logging = "<Version>1.0</Version><Read>false</Read><Write>false</Write><Delete>false</Delete>"
    metrics = f"<Version>1.0</Version>{off}<RetentionPolicy>{off}</RetentionPolicy>"
    return xml_response(
        "<StorageServiceProperties>"
        f"<Logging>{logging}<RetentionPolicy>{off}</RetentionPolicy></Logging>"
        f"<HourMetrics>{metrics}</HourMetrics><MinuteMetrics>{metrics}</MinuteMetrics>"
        f"<Cors /><DeleteRetentionPolicy>{off}</DeleteRetentionPolicy><StaticWebsite>{off}</StaticWebsite>"
        "</StorageServiceProperties>"
    )


# --- containers


async def create_container(request: BlobRequest) -> Response:
    """Create Container. Public ones can not be made."""
    if request.headers.get("x-ms-blob-public-access"):
        raise BadRequest(
            "Public access is not supported: make the container without it and give out signatures.",
            code="PublicAccessNotPermitted",
        )
    made = await request.blobs.create_container(
        request.account, request.container, metadata_of(request.headers)
    )
    return Response(status_code=201, headers=version_headers(made.etag, made.modified_at))


async def container_properties(request: BlobRequest) -> Response:
    """Get Container Properties, Get Container Metadata."""
    found = await request.blobs.container(request.account, request.container)
    if found is None:
        raise no_container(request.container)
    headers = {
        **version_headers(found.etag, found.modified_at),
        "x-ms-lease-status": "unlocked",
        "x-ms-lease-state": "available",
        "x-ms-has-immutability-policy": "false",
        "x-ms-has-legal-hold": "false",
    }
    headers.update(metadata_headers(found.metadata))
    return Response(headers=headers)


async def set_container_metadata(request: BlobRequest) -> Response:
    """Set Container Metadata."""
    found = await editing.set_container_metadata(
        request.blobs, request.account, request.container, metadata_of(request.headers)
    )
    return Response(headers=version_headers(found.etag, found.modified_at))


async def delete_container(request: BlobRequest) -> Response:
    """Delete Container."""
    await request.blobs.delete_container(request.account, request.container)
    return Response(status_code=202)


async def container_acl(request: BlobRequest) -> Response:
    """Get Container ACL: there are no stored access policies."""
    found = await request.blobs.container(request.account, request.container)
    if found is None:
        raise no_container(request.container)
    return xml_response("<SignedIdentifiers />", headers=version_headers(found.etag, found.modified_at))


async def list_blobs(request: BlobRequest) -> Response:
    """List Blobs, flat or (with a delimiter) by folder."""
    prefix, delimiter = _text(request, "prefix"), _text(request, "delimiter") or None
    marker = request.query.get("marker", "")
    limit = request.integer("maxresults", MAX_RESULTS, 1, 1 << 31)
    include = _include(request)
    page = await request.blobs.list(
        request.account,
        request.container,
        prefix,
        delimiter,
        _decode_marker(marker),
        min(limit, MAX_RESULTS),
        uncommitted="uncommittedblobs" in include,
    )
    entries = [(blob.name, _blob_element(blob, include)) for blob in page.blobs]
    entries += [(folder, f"<BlobPrefix>{name_element(folder)}</BlobPrefix>") for folder in page.prefixes]
    if page.prefixes:
        entries.sort()
    listed = "".join(text for _, text in entries)
    return xml_response(
        f'<EnumerationResults ServiceEndpoint="{_endpoint(request)}" ContainerName="{request.container}">'
        + _asked(request, prefix, marker)
        + (element("Delimiter", delimiter) if delimiter else "")
        + f"<Blobs>{listed}</Blobs>{element('NextMarker', _encode_marker(page.marker))}"
        + "</EnumerationResults>"
    )


def _blob_element(blob: BlobProperties, include: set[str]) -> str:
    parts = [
        element("Creation-Time", http_date(blob.created_at)),
        element("Last-Modified", http_date(blob.modified_at)),
        element("Etag", blob.etag),
        element("Content-Length", blob.size),
        element("Content-Type", blob.content_type),
        element("Content-Encoding", blob.content_encoding),
        element("Content-Language", blob.content_language),
        element("Content-MD5", base64.b64encode(blob.content_md5).decode() if blob.content_md5 else None),
        element("Cache-Control", blob.cache_control),
        element("Content-Disposition", blob.content_disposition),
        f"<BlobType>{blob.kind}</BlobType>",
    ]
    if blob.kind == "BlockBlob":
        parts.append("<AccessTier>Hot</AccessTier><AccessTierInferred>true</AccessTierInferred>")
    parts.append("<LeaseStatus>unlocked</LeaseStatus><LeaseState>available</LeaseState>")
    parts.append("<ServerEncrypted>false</ServerEncrypted>")
    if blob.tags:
        parts.append(element("TagCount", len(blob.tags)))
    text = f"<Blob>{name_element(blob.name)}<Properties>{''.join(parts)}</Properties>"
    if "metadata" in include:
        text += _metadata_element(blob.metadata)
    if "tags" in include and blob.tags:
        tags = "".join(
            f"<Tag>{element('Key', key)}{element('Value', value)}</Tag>" for key, value in blob.tags.items()
        )
        text += f"<Tags><TagSet>{tags}</TagSet></Tags>"
    return text + "</Blob>"


def _metadata_element(metadata: dict[str, str]) -> str:
    # The names are identifiers (checked when they were set), so they are good element names.
    return f"<Metadata>{''.join(element(key, value) for key, value in metadata.items())}</Metadata>"


def _include(request: BlobRequest) -> set[str]:
    return {part.strip().lower() for part in request.query.get("include", "").split(",") if part}


def _text(request: BlobRequest, name: str) -> str:
    value = request.query.get(name, "")
    if "\0" in value:
        raise BadRequest(f"The query parameter {name} has a NUL.", code="InvalidQueryParameterValue")
    return value


def _endpoint(request: BlobRequest) -> str:
    return f"{request.services.base_url}/blob/{request.account}/"


def _asked(request: BlobRequest, prefix: str, marker: str) -> str:
    text = name_element(prefix).replace("Name", "Prefix") if prefix else ""
    text += element("Marker", marker) if marker else ""
    return text + (
        element("MaxResults", request.query["maxresults"]) if request.query.get("maxresults") else ""
    )


def _encode_marker(name: str | None) -> str | None:
    """Markers are opaque to clients and safe in XML and URLs."""
    return None if name is None else "1!" + base64.urlsafe_b64encode(name.encode()).decode()


def _decode_marker(marker: str) -> str | None:
    if not marker:
        return None
    try:
        if not marker.startswith("1!"):
            raise ValueError
        return base64.urlsafe_b64decode(marker[2:]).decode()
    except (ValueError, binascii.Error) as error:
        raise BadRequest(
            "The marker is not one that a listing gave.", code="InvalidQueryParameterValue", target="marker"
        ) from error


OPERATIONS = {
    ("GET", "s", "", "list"): Operation(list_containers, "l", "s", "read"),
    ("GET", "s", "account", "properties"): Operation(account_information, "rlw", "s", "read"),
    ("HEAD", "s", "account", "properties"): Operation(account_information, "rlw", "s", "read"),
    ("GET", "c", "account", "properties"): Operation(account_information, "rlwacd", "c", "read"),
    ("HEAD", "c", "account", "properties"): Operation(account_information, "rlwacd", "c", "read"),
    ("GET", "o", "account", "properties"): Operation(account_information, "rlwacd", "o", "read"),
    ("HEAD", "o", "account", "properties"): Operation(account_information, "rlwacd", "o", "read"),
    ("GET", "s", "service", "properties"): Operation(service_properties, "r", "s", "read"),
    ("PUT", "c", "container", ""): Operation(create_container, "cw", "c", "write"),
    ("GET", "c", "container", ""): Operation(container_properties, "rl", "c", "read"),
    ("HEAD", "c", "container", ""): Operation(container_properties, "rl", "c", "read"),
    ("GET", "c", "container", "metadata"): Operation(container_properties, "rl", "c", "read"),
    ("HEAD", "c", "container", "metadata"): Operation(container_properties, "rl", "c", "read"),
    ("PUT", "c", "container", "metadata"): Operation(set_container_metadata, "w", "c", "write"),
    ("DELETE", "c", "container", ""): Operation(delete_container, "d", "c", "write"),
    ("GET", "c", "container", "acl"): Operation(container_acl, "rl", "c", "read"),
    ("HEAD", "c", "container", "acl"): Operation(container_acl, "rl", "c", "read"),
    ("GET", "c", "container", "list"): Operation(list_blobs, "l", "c", "read"),
}
