"""Databases for tests: ``--database sqlite`` (the default) or ``--database postgresql`` (a real server, from a wheel)."""

from __future__ import annotations

import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator

import pytest
import sqlalchemy as sa

NewDatabase = Callable[[], str | None]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--database",
        choices=["sqlite", "postgresql"],
        default="sqlite",
        help="Which database the control plane under test uses.",
    )


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Callable[[], str]]:
    """Makes a new, empty PostgreSQL database at each call; returns its URL. One server for the session."""
    import pgserver

    # Not below pytest's own folder: that is closed to others, and under root the server runs as another user.
    folder = tempfile.mkdtemp(prefix="noriba-postgresql-")
    server = pgserver.get_server(folder, cleanup_mode="stop")
    admin_url = sa.make_url(server.get_uri()).set(drivername="postgresql+psycopg")
    admin = sa.create_engine(admin_url, isolation_level="AUTOCOMMIT")

    def create() -> str:
        name = f"noriba_{uuid.uuid4().hex}"
        with admin.connect() as connection:
            connection.execute(sa.text(f'CREATE DATABASE "{name}"'))
        return admin_url.set(database=name).render_as_string(hide_password=False)

    yield create
    admin.dispose()
    server.cleanup()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def new_database(request: pytest.FixtureRequest) -> NewDatabase:
    """Makes a new database as ``--database`` says; None stands for the home's own SQLite file."""
    if request.config.getoption("--database") == "sqlite":
        return lambda: None
    create: Callable[[], str] = request.getfixturevalue("postgresql")
    return create
