"""Access to the database: many readers, one writer that commits in groups (architecture.md, decision 5).

A write is a function of a connection. It is queued to the writer thread, which takes what is waiting, runs it in
one transaction and commits once, so full durability (``synchronous=FULL``) costs nearly nothing under load and a
lone write pays one fsync. A write is acknowledged after its commit only.

Rules for such functions: they use nothing but the connection and their arguments, and may be run twice (when a
neighbour in the group fails, the group is rolled back and each is run alone). They raise to roll back.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

import sqlalchemy as sa

from noriba.models.errors import NoribaError, Unavailable

T = TypeVar("T")
Statement = Callable[[sa.Connection], T]

GROUP_LIMIT = 128


class DatabaseError(Exception):
    """The database can not be opened or is not ours; the message says what to do."""


class Database:
    """One database. Call ``close`` when done.

    ``read`` and ``write`` are for coroutines; ``read_now`` and ``write_now`` block and are for threads and start-up.
    """

    def __init__(self, url: str, *, readers: int = 8) -> None:
        self.url = sa.make_url(url)
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        self._writer_engine = _engine(self.url, writer=True)
        self._reader_engine = _engine(self.url, writer=False, size=readers)
        self._readers = ThreadPoolExecutor(readers, thread_name_prefix="database-reader")
        self._queue: queue.SimpleQueue[tuple[Statement[Any], Future[Any]] | None] = queue.SimpleQueue()
        self._local = threading.local()
        self._closed = False
        self._writer = threading.Thread(target=self._write_loop, name="database-writer", daemon=True)
        self._writer.start()

    # --- reading

    async def read(self, statement: Statement[T], *, heavy: bool = False) -> T:
        """Run a read. On SQLite a light one (an indexed look-up) runs at once, which is far cheaper than a thread."""
        if self.is_sqlite and not heavy:
            return self.read_now(statement)
        return await asyncio.get_running_loop().run_in_executor(self._readers, self.read_now, statement)

    def read_now(self, statement: Statement[T]) -> T:
        """Run a read in this thread. It sees every write acknowledged before."""
        connection: sa.Connection | None = getattr(self._local, "connection", None)
        try:
            if connection is None or connection.closed or connection.invalidated:
                connection = self._local.connection = self._reader_engine.connect()
            try:
                return statement(connection)
            finally:
                # Ends the read's snapshot, so that the next read sees new commits.
                connection.rollback()
        except sa.exc.OperationalError as error:
            self._local.connection = None
            raise Unavailable("The database does not answer. Try again shortly.") from error

    # --- writing

    async def write(self, statement: Statement[T]) -> T:
        """Run a write; returns its result once it is durable. Raises what the function raised."""
        return await asyncio.wrap_future(self._submit(statement))

    def write_now(self, statement: Statement[T]) -> T:
        """Like ``write``, for threads other than the event loop's."""
        return self._submit(statement).result()

    def _submit(self, statement: Statement[T]) -> Future[T]:
        if self._closed:
            raise Unavailable("The server is stopping. Try again shortly.")
        future: Future[T] = Future()
        self._queue.put((statement, future))
        return future

    def _write_loop(self) -> None:
        connection: sa.Connection | None = None
        stopping = False
        while not stopping:
            batch: list[tuple[Statement[Any], Future[Any]]] = []
            item = self._queue.get()
            while True:
                if item is None:
                    stopping = True
                    break
                batch.append(item)
                if len(batch) >= GROUP_LIMIT:
                    break
                try:
                    item = self._queue.get_nowait()
                except queue.Empty:
                    break
            if not batch:
                continue
            try:
                if connection is None or connection.closed or connection.invalidated:
                    connection = self._writer_engine.connect()
                if not self._run_group(connection, batch):
                    for single in batch:
                        self._run_group(connection, [single])
            except BaseException as error:
                # The connection itself failed: nobody's write is acknowledged.
                if connection is not None:
                    connection.invalidate()
                    connection = None
                for _, future in batch:
                    if not future.done():
                        future.set_exception(_translate(error))
        if connection is not None:
            connection.close()

    @staticmethod
    def _run_group(connection: sa.Connection, batch: list[tuple[Statement[Any], Future[Any]]]) -> bool:
        """Run a group in one transaction. False (nothing done) if one of several failed; a lone one is told why."""
        results = []
        try:
            with connection.begin():
                for statement, _ in batch:
                    results.append(statement(connection))
        except Exception as error:
            if len(batch) > 1:
                return False
            batch[0][1].set_exception(_translate(error))
            return True
        for (_, future), result in zip(batch, results, strict=True):
            future.set_result(result)
        return True

    # --- life

    def check(self) -> None:
        """Raise Unavailable unless the database answers."""
        self.read_now(lambda connection: connection.execute(sa.text("SELECT 1")).scalar_one())

    @property
    def writer_engine(self) -> sa.Engine:
        """For migrations, before anything else uses the database."""
        return self._writer_engine

    def close(self) -> None:
        """Finish queued writes and close all connections."""
        if self._closed:
            return
        self._closed = True
        self._queue.put(None)
        self._writer.join(timeout=30)
        self._readers.shutdown(wait=True)
        self._reader_engine.dispose()
        self._writer_engine.dispose()


def _translate(error: BaseException) -> BaseException:
    if isinstance(error, NoribaError):
        return error
    if isinstance(error, sa.exc.OperationalError | sa.exc.InterfaceError):
        unavailable = Unavailable("The database does not take writes at the moment. Try again shortly.")
        unavailable.__cause__ = error
        return unavailable
    return error


def _engine(url: sa.URL, *, writer: bool, size: int = 1) -> sa.Engine:
    if url.get_backend_name() != "sqlite":
        return sa.create_engine(
            url, pool_size=1 if writer else size + 1, max_overflow=8, pool_pre_ping=True, pool_recycle=1800
        )
    # Every thread holds its own connection (see read_now), so no pool is needed.
    engine = sa.create_engine(
        url, poolclass=sa.pool.NullPool, connect_args={"check_same_thread": False, "timeout": 30}
    )

    @sa.event.listens_for(engine, "connect")
    def _configure(connection: Any, _: Any) -> None:
        # SQLAlchemy, not the driver, begins transactions.
        connection.isolation_level = None
        cursor = connection.cursor()
        for pragma in (
            "journal_mode=WAL",
            "synchronous=FULL",
            "foreign_keys=ON",
            "temp_store=MEMORY",
            "cache_size=-32768",
            "mmap_size=268435456",
        ):
            cursor.execute(f"PRAGMA {pragma}")
        if not writer:
            cursor.execute("PRAGMA query_only=ON")
        cursor.close()

    @sa.event.listens_for(engine, "begin")
    def _begin(connection: sa.Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writer else "BEGIN DEFERRED")

    return engine
