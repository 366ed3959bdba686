"""The blob store."""


class BlobStore:
    """Blobs of all storage accounts."""
