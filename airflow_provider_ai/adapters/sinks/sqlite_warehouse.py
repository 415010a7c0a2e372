"""SQLite: one writer at a time, by BEGIN IMMEDIATE.

SQLite has five storage classes, so booleans are 0 and 1, dates and timestamps ISO text (timestamps in UTC), lists and
structs JSON text. A database this sink creates is put in WAL mode: readers are then not held up by a publish.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import exc

from airflow_provider_ai.adapters.sinks.failures import refused, unavailable
from airflow_provider_ai.adapters.sinks.session import Session
from airflow_provider_ai.adapters.sinks.sqlalchemy_warehouse import SqlalchemySession, SqlalchemyWarehouse
from airflow_provider_ai.exceptions import SinkError

if TYPE_CHECKING:
    from sqlalchemy.engine import URL


class SqliteWarehouse(SqlalchemyWarehouse):
    """A SQLite file."""

    def __init__(self, url: URL, lock_wait_seconds: float) -> None:
        path = url.database or ""
        if path in ("", ":memory:") or path.startswith("file:"):
            raise SinkError("the sink's url must name a SQLite file, got an in-memory database: nothing would survive")
        self._path = Path(path)
        super().__init__(
            url.set(drivername="sqlite"), isolation_level="AUTOCOMMIT", connect_args={"timeout": lock_wait_seconds}
        )

    @contextmanager
    def open(self, schema: str | None, *, reading: bool) -> Iterator[Session]:
        new = not self._path.exists()
        with self.engine.connect() as connection:
            if new and not reading:
                connection.exec_driver_sql("PRAGMA journal_mode = WAL")
            yield SqliteSession(connection, schema)

    def exists(self) -> bool:
        return self._path.exists()

    def explain(self, error: Exception) -> SinkError:
        text = str(error.orig) if isinstance(error, exc.OperationalError) else ""
        if "locked" in text or "busy" in text:
            return unavailable(self.where, "another process holds the file")
        if "unable to open" in text:
            return refused(self.where, "the file cannot be opened: its folder is missing or not readable")
        if "full" in text or "disk I/O" in text:
            return unavailable(self.where, "the disk is full or failing")
        return refused(self.where, "the table does not suit the statement") if text else super().explain(error)


class SqliteSession(SqlalchemySession):
    """One connection in the driver's autocommit mode: transactions are begun here, as IMMEDIATE ones."""

    folds_case = True
    can_stage = True

    def begin(self, *, reading: bool) -> None:
        self._connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")

    def commit(self) -> None:
        self._connection.exec_driver_sql("COMMIT")

    def rollback(self) -> None:
        self._connection.exec_driver_sql("ROLLBACK")

    def lock_publish(self, target: str, scope: str, partition: str) -> None:
        """Nothing: the transaction is the only writer."""
