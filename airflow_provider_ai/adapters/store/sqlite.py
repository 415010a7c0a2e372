"""A store in a SQLite file: WAL, so readers never wait; one writer at a time, each for some ten microseconds.

SQLite's own wait for a lock sleeps up to 100 ms between two tries; here a try costs a fraction of a millisecond, so
that many processes get through within the time a call has for the store. Power loss can take the last commits, a crash
of a process cannot; through a durable connection each commit waits for the disk, and power loss takes none.

Commits only append to the WAL. Moving its pages into the file costs fsyncs, which no caller shall make: once it is
``WAL_BYTES`` long, a thread of whichever process notices first moves them, while that process goes on with its call. As
others go on writing, it first moves what there is beside them, and then holds them up only for what came meanwhile.
"""

from __future__ import annotations

import logging
import os
import random
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, TypeVar, cast

import sqlalchemy as sa
from sqlalchemy import event, exc
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.engine import URL, Connection, Engine

from airflow_provider_ai.adapters.store.database import Clock, Database, Patience, Session
from airflow_provider_ai.exceptions import SpecError, StoreError, StoreUnavailableError

log = logging.getLogger(__name__)

T = TypeVar("T")
WAL_BYTES = 8 * 1024 * 1024
_CHECKPOINT_EVERY_SECONDS = 0.1
_LOCK_WAIT_SECONDS = 0.05
_SHORTEST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.0002, 0.002
_SETTINGS = (
    "PRAGMA page_size = 1024",  # of a new file: rows are small, and the WAL gets a whole page for each that changes
    "PRAGMA journal_mode = WAL",  # where it is not so already, this needs the file to itself for a moment
    "PRAGMA synchronous = NORMAL",
    "PRAGMA wal_autocheckpoint = 0",
)
_UNAVAILABLE = {
    sqlite3.SQLITE_BUSY: "other processes have held the file for too long",
    sqlite3.SQLITE_LOCKED: "other processes have held the file for too long",
    sqlite3.SQLITE_FULL: "the disk is full",
    sqlite3.SQLITE_IOERR: "the disk is failing",
    sqlite3.SQLITE_PROTOCOL: "the file's locks do not work (a network drive?)",
}
_UNUSABLE = {
    sqlite3.SQLITE_CANTOPEN: "the file cannot be opened: its folder is missing or not writable",
    sqlite3.SQLITE_READONLY: "the file is read-only",
    sqlite3.SQLITE_PERM: "the file may not be opened",
    sqlite3.SQLITE_NOTADB: "the file is not a SQLite database",
    sqlite3.SQLITE_CORRUPT: "the file is damaged; move it away, a new one is made",
}


class SqliteDatabase(Database):
    """A SQLite file. The clock is that of this machine, which all processes that use the file share."""

    _begin = "BEGIN IMMEDIATE"

    def __init__(self, url: URL, *, timeout_seconds: float, clock: Clock | None, durable: bool = False) -> None:
        path = url.database or ""
        if path in ("", ":memory:") or path.startswith("file:"):
            raise SpecError("the store's url must name a SQLite file: other processes cannot see an in-memory database")
        self._path = Path(path)
        self._wal = f"{path}-wal"
        self._checkpoint_after = 0.0
        self.where = f"SQLite store {path}"
        super().__init__(
            url.set(drivername="sqlite"), timeout_seconds=timeout_seconds, clock=clock or time.time, durable=durable
        )

    def exists(self) -> bool:
        """Whether the file is there."""
        return self._path.exists()

    def insert(self, table: sa.Table) -> Any:
        """INSERT … ON CONFLICT."""
        return insert(table)

    def _database_clock(self) -> sa.ColumnElement[Any]:
        raise NotImplementedError("SQLite has no clock of its own")

    def _make_engine(self, url: URL, **options: Any) -> Engine:
        engine = sa.create_engine(url, connect_args={"timeout": 0.0, "check_same_thread": False}, **options)
        event.listen(engine, "do_connect", self._before_connect)
        event.listen(engine, "connect", self._set_up)
        return engine

    def _before_connect(self, dialect: Any, record: Any, arguments: Any, options: Any) -> None:
        """Make the file, for its owner only; SQLite gives its companions the same mode.

        One thread at a time, and only whoever makes the file closes it: that would drop SQLite's locks on it.
        """
        with self._creating:
            try:
                if not self._path.exists():
                    self._path.parent.mkdir(parents=True, exist_ok=True)
                    os.close(os.open(self._path, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
                    _sync(self._path.parent)
            except FileExistsError:
                pass  # another process was faster
            except OSError as error:
                raise StoreError(f"{self.where}: the file cannot be made ({error.strerror})") from None

    def _set_up(self, connection: sqlite3.Connection, record: Any) -> None:
        for statement in _SETTINGS:
            connection.execute(statement)
        if self._durable:
            connection.execute("PRAGMA synchronous = FULL")

    def _connection(self) -> Connection:
        return until_free(self._engine_here().connect, Patience(self.timeout_seconds))

    def _session(self, connection: Connection) -> Session:
        return SqliteSession(connection, self.timeout_seconds)

    @contextmanager
    def _alone(self, connection: Connection, timeout_seconds: float) -> Iterator[None]:
        until_free(lambda: connection.exec_driver_sql("BEGIN IMMEDIATE"), Patience(timeout_seconds))
        try:
            yield
            connection.exec_driver_sql("COMMIT")
        except BaseException:
            if cast(sqlite3.Connection, connection.connection.driver_connection).in_transaction:
                connection.exec_driver_sql("ROLLBACK")
            raise

    def _explain(self, error: exc.DBAPIError) -> StoreError:
        code = _code(error)
        if code in _UNAVAILABLE:
            return StoreUnavailableError(f"{self.where}: {_UNAVAILABLE[code]}")
        return StoreError(f"{self.where}: {_UNUSABLE.get(code, f'SQLite refuses (code {code})')}")

    def _begin_process(self) -> None:
        super()._begin_process()
        self._creating = threading.Lock()
        self._checkpointing = threading.Lock()

    # --- the WAL

    def _after_session(self) -> None:
        if self._wal_bytes() > WAL_BYTES and time.monotonic() >= self._checkpoint_after:
            threading.Thread(target=self._checkpoint, name="ai-store-checkpoint", daemon=True).start()

    def _wal_bytes(self) -> int:
        try:
            return os.stat(self._wal).st_size  # noqa: PTH116 - a Path costs more than the call
        except OSError:
            return 0

    def _checkpoint(self) -> None:
        if not self._checkpointing.acquire(blocking=False):
            return
        try:
            with closing(sqlite3.connect(self._path, timeout=_LOCK_WAIT_SECONDS, isolation_level=None)) as connection:
                _empty_wal(connection)
        except sqlite3.Error as error:
            log.warning("%s: its WAL could not be emptied (%s); it is tried again", self.where, type(error).__name__)
        finally:
            self._checkpoint_after = time.monotonic() + _CHECKPOINT_EVERY_SECONDS
            self._checkpointing.release()


class SqliteSession(Session):
    """Statements that wait for the writer before them."""

    def __init__(self, connection: Connection, timeout_seconds: float) -> None:
        super().__init__(connection)
        self._patience = Patience(timeout_seconds)

    def attempt(self, work: Callable[[Connection], T]) -> T:
        """What ``work`` returns, however busy the file is, within the time of the operation."""
        return until_free(lambda: work(self._connection), self._patience)


def until_free(attempt: Callable[[], T], patience: Patience) -> T:
    """What ``attempt`` returns once nobody else is writing; its error when that takes longer than ``patience``."""
    while True:
        try:
            return attempt()
        except exc.OperationalError as error:
            if _code(error) not in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED) or patience.over():
                raise
        time.sleep(random.uniform(_SHORTEST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS))


def _empty_wal(connection: sqlite3.Connection) -> None:
    """Most of it beside the writers, the rest with the writers' lock: else it would never catch up with them."""
    connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()


def _sync(folder: Path) -> None:
    """A new file's name must survive a power cut as its commits do."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _code(error: exc.DBAPIError) -> int:
    """SQLite's primary result code."""
    return int(getattr(error.orig, "sqlite_errorcode", 0)) & 0xFF
