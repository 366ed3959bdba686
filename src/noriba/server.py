"""The server process: put the services together, listen, stop gracefully."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import errno
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
import psutil
import sqlalchemy as sa
import structlog
import uvicorn

from noriba import __version__
from noriba.bootstrap import bootstrap
from noriba.database import Database, DatabaseError
from noriba.database.migrate import upgrade
from noriba.engines.base import Engine
from noriba.engines.local import LocalEngine
from noriba.environments.spec import BuildSettings
from noriba.home import AlreadyRunning, Home, HomeError, ServerInfo
from noriba.identity.keys import Keys, write_private
from noriba.identity.principals import Principals
from noriba.identity.tls import Certificates
from noriba.identity.tokens import Tokens
from noriba.jobs.control import Control
from noriba.logging import configure_logging
from noriba.models.errors import Unavailable
from noriba.rest.app import Application
from noriba.rest.routes import all_routes
from noriba.services import Services
from noriba.settings import DEFAULT_PORT, Settings, SettingsError
from noriba.storage.blobs import BlobStore
from noriba.storage.objects import open_objects
from noriba.workspaces import Workspaces

log = structlog.get_logger("noriba.server")

LOCK_WAIT_S = 20.0
"""How long a start waits for another server in the same home to become ready or to end."""


def listen(settings: Settings, last: ServerInfo | None = None) -> socket.socket:
    """Take the port. Raises HomeError with one line when it can not be had.

    When any port will do, that of the home's ``last`` server is taken if it is free: its nodes and the shells set
    up for it find the new one there.
    """
    server = settings.server
    if server.port == 0 and last and not server.public_url and (before := urlsplit(last.base_url).port):
        try:
            return _bound(server.host, before)
        except OSError:
            log.info("the last port is taken", port=before)
    try:
        return _bound(server.host, server.port)
    except OSError as error:
        reason = error.strerror or str(error)
        default = " (the default port)" if server.port == DEFAULT_PORT else ""
        advice = "Choose another with --host or --port (0 takes a free port)."
        if error.errno == errno.EADDRINUSE:
            advice = "Stop what uses it, or choose another with --port (0 takes a free one)."
        raise HomeError(
            f"Can not listen on {server.host}:{server.port}{default}: {reason}. {advice}"
        ) from error


def _bound(host: str, port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(2048)
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    return listener


def base_url_of(settings: Settings, listener: socket.socket) -> str:
    """The URL under which clients reach us."""
    if settings.server.public_url:
        return settings.server.public_url.rstrip("/")
    host = settings.server.host
    if host in ("0.0.0.0", "::"):
        host = socket.gethostname()
    return f"https://{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}"


def certificate_names(settings: Settings, base_url: str) -> list[str]:
    """Host names that the server's certificate must cover, the main one first."""
    main = base_url.partition("://")[2].rsplit(":", 1)[0].strip("[]")
    names = [main, "localhost", "127.0.0.1", "::1", socket.gethostname(), *settings.server.names]
    return list(dict.fromkeys(name for name in names if name))


def take_home(home: Home) -> int:
    """Make this process the one server of the home; returns the lock to keep open.

    Raises AlreadyRunning, or HomeError when another server neither starts nor stops in time.
    """
    deadline = time.monotonic() + LOCK_WAIT_S
    while True:
        lock = home.try_lock()
        if lock is not None:
            return lock
        running = home.server()
        if running is not None:
            raise AlreadyRunning(home.path, running)
        if time.monotonic() > deadline:
            raise HomeError(f"Another server is starting or stopping in {home.path}. Try again shortly.")
        time.sleep(0.02)


def serve(
    settings: Settings, *, log_file: str = "", on_ready: Callable[[ServerInfo], None] | None = None
) -> None:
    """Run a server until it is told to stop (SIGTERM, SIGINT). Raises HomeError or DatabaseError at start.

    ``log_file`` is where standard error goes, for others to know.
    """
    home = Home(settings.home_path)
    home.prepare()
    lock = take_home(home)
    try:
        _serve(settings, home, log_file, on_ready)
    finally:
        os.close(lock)


def _serve(
    settings: Settings, home: Home, log_file: str, on_ready: Callable[[ServerInfo], None] | None
) -> None:
    configure_logging(settings.log)
    listener = listen(settings, home.last_server())
    try:
        base_url = base_url_of(settings, listener)
        certificates = Certificates(home.tls)
        certificates.ensure(certificate_names(settings, base_url), dt.datetime.now(dt.UTC))
        services = build_services(settings, home, base_url)
    except BaseException:
        listener.close()
        raise
    info = ServerInfo(
        pid=os.getpid(),
        started_at=psutil.Process().create_time(),
        base_url=base_url,
        version=__version__,
        engine=settings.engine.name,
        sizing=settings.engine.sizing,
        isolation=settings.runtime.isolation,
        database=services.database.url.render_as_string(hide_password=True),
        storage=settings.storage.url or str(home.blobs),
        log_file=log_file,
        own_certificate=bool(settings.server.tls_certificate),
        subscription_id=settings.workspace.subscription_id,
        resource_group=settings.workspace.resource_group,
        workspace=settings.workspace.name,
    )
    config = uvicorn.Config(
        Application(services, all_routes()),
        loop="uvloop",
        http="httptools",
        lifespan="off",
        ssl_certfile=settings.server.tls_certificate or str(certificates.certificate_file),
        ssl_keyfile=settings.server.tls_key or str(certificates.key_file),
        access_log=False,
        log_config=None,
        server_header=False,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=int(settings.server.shutdown_grace_s),
    )

    async def run() -> None:
        await services.blobs.start()
        await services.control.start()
        server = _Server(config)

        def stop() -> None:
            # From now on a new server in this home waits for us to end instead of finding us running.
            home.clear_server()
            server.force_exit = server.should_exit
            server.should_exit = True
            services.control.begin_stop()

        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop)
        serving = asyncio.ensure_future(server.serve(sockets=[listener]))
        while not server.started and not serving.done():  # noqa: ASYNC110 (uvicorn has no event for it)
            await asyncio.sleep(0.005)
        if server.started:
            home.write_server(info)
            log.info("ready", url=base_url, home=str(home.path), version=__version__)
            if on_ready:
                on_ready(info)
        try:
            await serving
        finally:
            await services.control.stop()
            await services.blobs.stop()

    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(run())
    finally:
        home.clear_server()
        services.database.close()
        log.info("stopped")


class _Server(uvicorn.Server):
    """uvicorn would end the process by the signal that stopped it, before we have closed what is open."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def _wait_tasks_to_complete(self) -> None:
        # Requests in progress are waited for. Idle TLS clients are not: many never answer the farewell.
        while self.server_state.tasks and not self.force_exit:  # noqa: ASYNC110 (uvicorn has no event for it)
            await asyncio.sleep(0.02)
        for connection in list(self.server_state.connections):
            if connection.transport is not None:
                connection.transport.abort()


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop
    return uvloop.new_event_loop


def open_database(url: str) -> Database:
    """The database, which answers. Raises DatabaseError with one line."""
    try:
        database = Database(url)
    except (sa.exc.ArgumentError, ImportError) as error:
        raise DatabaseError(
            f"database.url can not be used: {error}. Give a SQLAlchemy URL such as "
            "postgresql+psycopg://user@host/name (for PostgreSQL install noriba[postgresql])."
        ) from error
    try:
        database.check()
    except Unavailable as error:
        database.close()
        cause = str(getattr(error.__cause__, "orig", None) or error.__cause__ or error)
        where = database.url.render_as_string(hide_password=True)
        raise DatabaseError(
            f"The database {where} does not answer: {cause.strip().splitlines()[0]}"
        ) from error
    return database


def make_engine(settings: Settings, home: Home, base_url: str) -> Engine:
    """The engine that the settings name. Raises SettingsError for an isolation that can not be had."""
    runtime = settings.runtime
    if runtime.isolation == "sandbox":
        raise SettingsError(
            "runtime.isolation = sandbox is not in this version. Use process, or container with runtime.container_runtime."
        )
    if runtime.isolation == "container" and runtime.container_runtime == "none":
        raise SettingsError(
            "runtime.isolation = container needs runtime.container_runtime: podman or docker."
        )
    build_file = home.path / "build.json"
    write_private(build_file, msgspec.json.encode(build_settings(settings)))
    folder = settings.environments.folder
    return LocalEngine(
        home=home.path,
        server_url=base_url,
        ca_file=None if settings.server.tls_certificate else home.ca_file,
        sizing=settings.engine.sizing,
        max_nodes=settings.engine.max_nodes or None,
        environments_dir=Path(folder) if folder else home.environments,
        environment_settings=build_file,
        inherit=runtime.pass_environment,
    )


def build_settings(settings: Settings) -> BuildSettings:
    """The rules by which nodes build environments."""
    given, runtime = settings.environments, settings.runtime.container_runtime
    return BuildSettings(
        python_preference=given.python_version,
        python_downloads=given.python_downloads,
        torch_build=given.torch_build,
        torch_preference=given.torch_version,
        torch_cpu_index=given.torch_cpu_index,
        conda=given.conda,
        default_channels=tuple(given.conda_channels),
        allow_pypi_mapping=given.pypi_mapping,
        source_builds=given.source_builds,
        container_runtime=None if runtime == "none" else runtime,
    )


def build_services(
    settings: Settings, home: Home, base_url: str, *, engine: Engine | None = None
) -> Services:
    """Open everything that stands behind the API."""
    database = open_database(settings.database.url or f"sqlite:///{home.database_file}")
    try:
        upgrade(database)
        bootstrap(database, home, settings, time.time())
        keys = Keys.load(home.keys)
        objects = open_objects(settings.storage.url or str(home.blobs), settings.storage.options)
        services = Services(
            settings=settings,
            base_url=base_url,
            database=database,
            keys=keys,
            tokens=Tokens(base_url, keys.signing_key),
            principals=Principals(database),
            workspaces=Workspaces(database),
            blobs=BlobStore(database, objects),
        )
        services.control = Control(services, engine or make_engine(settings, home, base_url))
        return services
    except BaseException:
        database.close()
        raise
