"""Alembic's environment: runs on the connection that ``migrate.upgrade`` opened."""

from __future__ import annotations

from alembic import context

from noriba.database.migrate import VERSION_TABLE, metadata

connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=metadata,
    version_table=VERSION_TABLE,
    transactional_ddl=True,
    render_as_batch=connection.dialect.name == "sqlite",
    render_item=context.config.attributes.get("render_item") or (lambda *_: False),
)
with context.begin_transaction():
    context.run_migrations()
