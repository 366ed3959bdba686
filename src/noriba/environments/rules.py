"""The data files by which environments are planned, as one digest: answers made by others are not reused."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path


@cache
def rules_digest() -> bytes:
    """Changes with every data file of this package (the catalogue, the mappings of images and packages)."""
    folder = Path(__file__).parent / "data"
    digest = hashlib.sha256()
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        digest.update(f"{file.relative_to(folder)}\0".encode())
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.digest()
