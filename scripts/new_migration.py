"""Write a migration from the difference between the newest schema and the tables: ``new_migration.py MESSAGE``."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from alembic import command
from alembic.config import Config

from noriba.database.migrate import MIGRATIONS, revisions
from noriba.database.types import Json


def render_item(kind: str, item: Any, context: Any) -> str | bool:
    # Migrations do not depend on our classes, which may change after them.
    return "sa.Text()" if kind == "type" and isinstance(item, Json) else False


def main() -> None:
    message = sys.argv[1]
    with tempfile.TemporaryDirectory() as folder:
        engine = sa.create_engine(f"sqlite:///{Path(folder) / 'schema.db'}")
        with engine.connect() as connection:
            config = Config()
            config.set_main_option("script_location", str(MIGRATIONS))
            config.set_main_option("file_template", "%%(rev)s_%%(slug)s")
            config.attributes.update(connection=connection, render_item=render_item)
            if revisions():
                command.upgrade(config, "head")
            command.revision(config, message, autogenerate=True, rev_id=f"{len(revisions()) + 1:04}")


if __name__ == "__main__":
    main()
