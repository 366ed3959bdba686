"""What a user of adlfs does, against the container given on the command line."""

from __future__ import annotations

import sys
from pathlib import Path

import adlfs


def main(connection_string: str, root: str, folder: Path) -> None:
    """Write, read, list, copy, append and remove files. Raises AssertionError."""
    files = adlfs.AzureBlobFileSystem(connection_string=connection_string, skip_instance_cache=True)
    with files.open(f"{root}/dir/a.bin", "wb") as out:
        for number in range(12):
            out.write(bytes([number]) * 1024 * 1024)
    assert files.info(f"{root}/dir/a.bin")["size"] == 12 * 1024 * 1024
    with files.open(f"{root}/dir/a.bin", "rb") as back:
        back.seek(5 * 1024 * 1024 - 1)
        assert back.read(2) == bytes([4, 5])
    files.pipe(f"{root}/dir/sub/b.txt", b"hello")
    assert sorted(files.ls(f"{root}/dir")) == [f"{root}/dir/a.bin", f"{root}/dir/sub"]
    assert sorted(files.find(root)) == [f"{root}/dir/a.bin", f"{root}/dir/sub/b.txt"]
    assert files.exists(f"{root}/dir/sub/b.txt")
    assert not files.exists(f"{root}/nothing")
    assert files.isdir(f"{root}/dir")
    assert files.cat(f"{root}/dir/sub/b.txt") == b"hello"
    files.get(f"{root}/dir", str(folder / "got"), recursive=True)
    assert (folder / "got" / "sub" / "b.txt").read_bytes() == b"hello"
    files.cp_file(f"{root}/dir/sub/b.txt", f"{root}/c.txt")
    assert files.cat(f"{root}/c.txt") == b"hello"
    with files.open(f"{root}/log.txt", "ab") as more:
        more.write(b"one ")
    with files.open(f"{root}/log.txt", "ab") as more:
        more.write(b"two")
    assert files.cat(f"{root}/log.txt") == b"one two"
    files.rm(f"{root}/dir", recursive=True)
    files.invalidate_cache()
    assert sorted(files.find(root)) == [f"{root}/c.txt", f"{root}/log.txt"]


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
