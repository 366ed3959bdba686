"""A build context on disk."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path


class ContextFolder:
    """A build context on disk. Paths that lead outside of it do not exist (symbolic links included)."""

    def __init__(self, root: str) -> None:
        self.root = Path(root).resolve()

    def _path(self, path: str) -> Path | None:
        full = (self.root / path.lstrip("/")).resolve()
        return full if full == self.root or self.root in full.parents else None

    def text(self, path: str) -> str | None:
        """The file's text; None where it is missing, a folder, or no text."""
        full = self._path(path)
        try:
            return full.read_text("utf-8-sig") if full is not None and full.is_file() else None
        except (UnicodeDecodeError, OSError):
            return None

    def exists(self, path: str) -> bool:
        """True for a file or folder of the context."""
        full = self._path(path)
        return full is not None and full.exists()

    def is_folder(self, path: str) -> bool:
        """True for a folder of the context."""
        full = self._path(path)
        return full is not None and full.is_dir()

    def digest(self) -> str:
        """Digest of all names and contents of the context."""
        whole = hashlib.sha256()
        for folder, folders, files in os.walk(self.root):
            folders.sort()
            for name in sorted(files):
                path = Path(folder) / name
                whole.update(str(path.relative_to(self.root)).encode("utf-8", "surrogateescape") + b"\0")
                if path.is_symlink() or not path.is_file():
                    whole.update(
                        b"link" + os.readlink(path).encode("utf-8", "surrogateescape")
                        if path.is_symlink()
                        else b"?"
                    )
                    continue
                with path.open("rb") as stream:
                    whole.update(hashlib.file_digest(stream, "sha256").digest())
        return whole.hexdigest()[:32]
