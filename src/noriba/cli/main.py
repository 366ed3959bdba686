"""The ``noriba`` command."""

from __future__ import annotations

import sys
from pathlib import Path

import click


@click.group()
@click.version_option(package_name="noriba")
def main() -> None:
    """Serverless compute for model training, speaking Azure ML's API."""


@main.command()
@click.option("--home", type=click.Path(path_type=Path), help="Folder of the server's state (NORIBA_HOME).")
@click.option("--host", help="Address to listen on.")
@click.option("--port", type=int, help="Port to listen on; 0 takes a free one.")
def up(home: Path | None, host: str | None, port: int | None) -> None:
    """Start the server."""
    from noriba.database import DatabaseError
    from noriba.home import HomeError
    from noriba.server import serve
    from noriba.settings import SettingsError, load_settings

    try:
        serve(load_settings(home=home, flags={"server.host": host, "server.port": port}))
    except (HomeError, SettingsError, DatabaseError) as error:
        click.echo(f"noriba: {error}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
