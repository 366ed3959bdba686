"""Tables of the blob store (storage/)."""
