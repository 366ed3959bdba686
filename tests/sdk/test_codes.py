"""Code assets through the unmodified SDK."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest
from azure.ai.ml import MLClient
from azure.ai.ml.entities._assets import Code

pytestmark = pytest.mark.sdk


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "src"
    (folder / "package").mkdir(parents=True)
    (folder / "main.py").write_text(f"print('{uuid.uuid4()}')\n")
    (folder / "package" / "deep.py").write_text("")
    return folder


def test_code_is_uploaded_found_by_content_and_downloaded(
    ml_client: MLClient, source: Path, tmp_path: Path
) -> None:
    codes = ml_client._code
    made = codes.create_or_update(Code(name=str(uuid.uuid4()), version="1", path=str(source)))
    found = codes.get(made.name, "1")
    assert found.id == made.id
    # Another name with the same content is the same code: nothing is uploaded again.
    again = codes.create_or_update(Code(path=str(source)))
    assert (again.name, again.version) == (made.name, made.version)
    codes.download(made.name, "1", tmp_path / "down")
    down = {path.relative_to(tmp_path / "down").as_posix() for path in (tmp_path / "down").rglob("*.py")}
    assert down == {"main.py", "package/deep.py"}


def test_two_codes_do_not_share_a_place(ml_client: MLClient, tmp_path: Path) -> None:
    made = []
    for number in (1, 2):
        folder = tmp_path / str(number) / "src"
        folder.mkdir(parents=True)
        (folder / "main.py").write_text(f"print({number}, '{uuid.uuid4()}')")
        made.append(ml_client._code.create_or_update(Code(path=str(folder))))
    assert made[0].path != made[1].path
