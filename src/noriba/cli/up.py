"""``noriba up``."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from noriba.cli.framework import HomeCommand, note
from noriba.client.connection import Connection
from noriba.client.errors import ClientError
from noriba.home import AlreadyRunning, Home, HomeError, ServerInfo
from noriba.settings import SettingsError, default_home, load_settings

if TYPE_CHECKING:
    from noriba.settings import Settings

LOG_LIMIT_BYTES = 32 * 1024 * 1024
"""A detached server's log that has grown beyond this is put aside (one generation) at the next start."""


@click.command(cls=HomeCommand)
@click.option("--host", help="Address to listen on. [127.0.0.1]")
@click.option("--port", type=click.IntRange(0, 65535), help="Port to listen on; 0 takes a free one. [8443]")
@click.option("--detach", "-d", is_flag=True, help="Run in the background; return when the server is ready.")
@click.option(
    "--database", metavar="URL", help="Database, such as postgresql+psycopg://… [SQLite in the home]"
)
@click.option(
    "--storage", metavar="URL", help="Where blobs are kept: a folder, s3://, az://, gs://. [in the home]"
)
@click.option("--engine", help="What gives the nodes. [local]")
@click.option("--sizing", help="Whether sizes are only named (emulate) or enforced (strict). [emulate]")
@click.option("--log-level", help="debug, info, warning or error. [info]")
@click.option("--log-format", help="json or text. [json; text on a terminal]")
@click.option("--set", "settings", multiple=True, metavar="SECTION.NAME=VALUE", help="Any other setting.")
@click.option("--ready-fd", type=int, hidden=True)
def up(
    home: Path | None, detach: bool, settings: tuple[str, ...], ready_fd: int | None, **flags: Any
) -> None:
    """Start the server, unless it runs already.

    Settings come from these flags, NORIBA_<SECTION>_<NAME> in the environment and noriba.toml in the home, in that
    order; docs/settings.md lists them.
    """
    given = _settings_of(settings, flags)
    terminal = {"log.format": "text"} if sys.stderr.isatty() and ready_fd is None else {}
    loaded = load_settings(home=home, flags=given, defaults=terminal)
    place = Home(loaded.home_path)
    running = place.server()
    if running is not None and ready_fd is None:
        _say_running(place, running, bool(given))
        return
    if ready_fd is not None:
        _serve_for_parent(loaded, place, ready_fd)
    elif detach:
        _detach(place, given)
    else:
        _serve(loaded, place, bool(given))


def _settings_of(assignments: tuple[str, ...], flags: dict[str, Any]) -> dict[str, Any]:
    names = {
        "host": "server.host",
        "port": "server.port",
        "database": "database.url",
        "storage": "storage.url",
        "engine": "engine.name",
        "sizing": "engine.sizing",
        "log_level": "log.level",
        "log_format": "log.format",
    }
    given = {names[flag]: value for flag, value in flags.items() if value is not None}
    for assignment in assignments:
        name, equals, value = assignment.partition("=")
        if not equals or "." not in name:
            raise SettingsError(f"--set takes section.name=value, not '{assignment}'.")
        given[name.strip()] = value
    return given


def _serve(settings: Settings, place: Home, had_flags: bool) -> None:
    """Serve in the foreground."""
    from noriba.database import DatabaseError
    from noriba.server import serve

    fresh = not place.path.exists()
    try:
        serve(settings, on_ready=lambda info: _say_started(place, info, fresh))
    except AlreadyRunning as error:
        _say_running(place, error.info, had_flags)
    except DatabaseError as error:
        raise ClientError(str(error)) from error


def _serve_for_parent(settings: Settings, place: Home, ready_fd: int) -> None:
    """Serve as the child of ``--detach``: tell the parent through the pipe what became of it."""
    os.set_inheritable(ready_fd, False)
    pipe = os.fdopen(ready_fd, "wb")

    def tell(**outcome: Any) -> None:
        # The parent may have been interrupted; the server goes on without it.
        with contextlib.suppress(BrokenPipeError):
            pipe.write(msgspec.json.encode(outcome))
            pipe.close()

    try:
        from noriba.database import DatabaseError
        from noriba.server import serve

        try:
            serve(settings, log_file=str(place.server_log), on_ready=lambda info: tell(ready=info))
        except AlreadyRunning as error:
            tell(running=error.info)
        except (HomeError, SettingsError, DatabaseError) as error:
            if pipe.closed:
                raise
            tell(error=str(error))
            sys.exit(1)
    finally:
        with contextlib.suppress(BrokenPipeError):
            pipe.close()


class _Outcome(msgspec.Struct):
    ready: ServerInfo | None = None
    running: ServerInfo | None = None
    error: str = ""


def _detach(place: Home, given: dict[str, Any]) -> None:
    """Start a server in a session of its own and wait until it says that it is ready."""
    fresh = not place.path.exists()
    place.prepare()
    if place.server_log.exists() and place.server_log.stat().st_size > LOG_LIMIT_BYTES:
        place.server_log.replace(place.server_log.with_name("server.log.1"))
    reading, writing = os.pipe()
    command = [sys.executable, "-m", "noriba.cli.main", "up", "--home", str(place.path)]
    command += ["--ready-fd", str(writing)]
    for name, value in given.items():
        command += ["--set", f"{name}={value}"]
    try:
        with open(place.server_log, "ab") as log:
            start = log.tell()
            child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                pass_fds=[writing],
            )
    finally:
        os.close(writing)
    try:
        with os.fdopen(reading, "rb") as pipe:
            said = pipe.read()
    except KeyboardInterrupt:
        child.terminate()
        raise
    if not said:
        child.wait()
        raise ClientError(_last_words(place.server_log, start, child.returncode))
    outcome = msgspec.json.decode(said, type=_Outcome)
    if outcome.error:
        child.wait()
        raise ClientError(outcome.error)
    if outcome.running is not None:
        _say_running(place, outcome.running, bool(given))
    elif outcome.ready is not None:
        answer = Connection(outcome.ready.base_url, [place.bundle_file]).request("GET", "/readyz")
        if answer.status != 200:
            raise ClientError(f"The server started but is not ready; see {place.server_log}")
        _say_started(place, outcome.ready, fresh)


def _last_words(log: Path, start: int, code: int) -> str:
    with log.open("rb") as file:
        file.seek(start)
        lines = file.read().decode(errors="replace").strip().splitlines()
    last = f": {lines[-1]}" if lines else ""
    return f"The server ended with code {code} before it was ready{last} See {log}"


def _say_started(place: Home, info: ServerInfo, fresh: bool) -> None:
    if fresh:
        click.echo(f"Made the home {place.path}")
    click.echo(f"Noriba {info.version} is ready at {info.base_url} (pid {info.pid})")
    _say_more(place, info)


def _say_running(place: Home, info: ServerInfo, had_flags: bool) -> None:
    click.echo(f"Noriba {info.version} runs already at {info.base_url} (pid {info.pid})")
    _say_more(place, info)
    if had_flags:
        note("The options given now change nothing: stop the server first with noriba down.")


def _say_more(place: Home, info: ServerInfo) -> None:
    flag = "" if place.path == default_home(os.environ) else f" --home {place.path}"
    log = (
        info.log_file or "this terminal"
        if info.pid == os.getpid()
        else info.log_file or f"terminal of {info.pid}"
    )
    for label, value in (
        ("Home", str(place.path)),
        ("Log", log),
        (
            "Engine",
            f"{info.engine}, {info.sizing} sizing, {info.isolation} isolation {info.isolation_reason}".strip(),
        ),
        ("Studio", f"{info.base_url}/studio/"),
        ("Next", f'eval "$(noriba env{flag})"'),
        ("", f"noriba job create --file job.yml --stream{flag}"),
    ):
        click.echo(f"  {label:<8}{value}")
    sys.stdout.flush()
