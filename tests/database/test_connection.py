"""One writer with group commit, many readers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from noriba.database import Database
from noriba.database.migrate import upgrade
from noriba.database.tables import meta
from noriba.models.errors import Conflict, Unavailable


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path / 'noriba.db'}"
    else:
        create: Callable[[], str] = request.getfixturevalue("postgresql")
        url = create()
    database = Database(url)
    upgrade(database)
    yield database
    database.close()


def insert(key: str, value: str = "1") -> Callable[[sa.Connection], None]:
    return lambda connection: connection.execute(meta.insert().values(key=key, value=value)) and None


def count(connection: sa.Connection) -> int:
    return connection.execute(sa.select(sa.func.count()).select_from(meta)).scalar_one()


async def test_a_write_is_seen_once_it_is_acknowledged(database: Database) -> None:
    for number in range(20):
        await database.write(insert(str(number)))
        assert await database.read(count) == number + 1
        assert await database.read(count, heavy=True) == number + 1


async def test_one_that_fails_does_not_take_its_neighbours_with_it(database: Database) -> None:
    def refuse(connection: sa.Connection) -> None:
        connection.execute(meta.insert().values(key="half", value="made"))
        raise Conflict("no")

    results = await asyncio.gather(
        *(database.write(insert(str(number))) for number in range(50)),
        database.write(refuse),
        database.write(insert("0")),  # the key is taken
        *(database.write(insert(str(number))) for number in range(50, 100)),
        return_exceptions=True,
    )
    failed = [result for result in results if result is not None]
    assert [type(error) for error in failed] == [Conflict, sa.exc.IntegrityError]
    assert await database.read(count) == 100, "all others are there, and nothing of the failed ones"


async def test_writes_are_committed_in_groups(database: Database) -> None:
    commits = 0

    @sa.event.listens_for(database.writer_engine, "commit")
    def _count(_: sa.Connection) -> None:
        nonlocal commits
        commits += 1

    await asyncio.gather(*(database.write(insert(str(number))) for number in range(500)))
    assert await database.read(count) == 500
    assert commits < 250


async def test_a_closed_database_says_so(database: Database) -> None:
    database.close()
    with pytest.raises(Unavailable):
        await database.write(insert("late"))


def test_what_was_acknowledged_is_there_after_a_crash(tmp_path: Path) -> None:
    """A process that is killed right after an acknowledgement has lost nothing."""
    import subprocess
    import sys

    url = f"sqlite:///{tmp_path / 'noriba.db'}"
    program = f"""
import os, signal
from noriba.database import Database
from noriba.database.migrate import upgrade
from noriba.database.tables import meta
database = Database({url!r})
upgrade(database)
for number in range(100):
    database.write_now(lambda c: c.execute(meta.insert().values(key=str(number), value="x")) and None)
os.kill(os.getpid(), signal.SIGKILL)
"""
    killed = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=60, check=False)
    assert killed.returncode == -9, killed.stderr
    database = Database(url)
    assert database.read_now(count) == 100
    database.close()
