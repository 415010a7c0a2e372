"""A store in PostgreSQL, through psycopg 3. The clock is the server's, so hosts may disagree about the time.

Sessions commit with ``synchronous_commit = off``: nobody waits for the server's disk, and what can be lost with its
power is a fraction of a second of counters and leases; what may not be lost goes through durable ones. The server ends
a statement that takes too long; should the server itself hang, or the network, the connection is given up a little
later from this side.
"""

from __future__ import annotations

import math
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar, cast

import psycopg
import sqlalchemy as sa
from sqlalchemy import event, exc
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.engine import URL, Connection, Engine

from airflow_provider_ai.adapters.database_errors import meaning_of, no_connection
from airflow_provider_ai.adapters.store.database import Clock, Database
from airflow_provider_ai.exceptions import StoreError, StoreUnavailableError

T = TypeVar("T")
_GRACE_SECONDS = 0.2
_INTERVAL_SECONDS = 0.05
_LOCK = 0x61695F73746F7265  # "ai_store"; advisory locks are numbers


class PostgresqlDatabase(Database):
    """A PostgreSQL database."""

    _begin = "BEGIN"

    def __init__(self, url: URL, *, timeout_seconds: float, clock: Clock | None, durable: bool = False) -> None:
        self.where = f"PostgreSQL store at {url.host or 'its socket'}:{url.port or 5432}"
        super().__init__(
            url.set(drivername="postgresql+psycopg"), timeout_seconds=timeout_seconds, clock=clock, durable=durable
        )

    def insert(self, table: sa.Table) -> Any:
        """INSERT … ON CONFLICT."""
        return insert(table)

    def _database_clock(self) -> sa.ColumnElement[Any]:
        return sa.cast(sa.extract("epoch", sa.func.clock_timestamp()), sa.Double())

    def _make_engine(self, url: URL, **options: Any) -> Engine:
        defaults = {"connect_timeout": str(math.ceil(self.timeout_seconds)), "application_name": "airflow-ai"}
        url = url.set(query={**defaults, **url.query})
        engine = sa.create_engine(url, use_native_hstore=False, **options)
        event.listen(engine, "do_connect", self._connect)
        return engine

    def _connect(self, dialect: Any, record: Any, arguments: Any, options: Any) -> _LimitedConnection:
        connection = _LimitedConnection.connect(*arguments, **options, autocommit=True)
        connection.limit_seconds = self.timeout_seconds + _GRACE_SECONDS
        milliseconds = math.ceil(self.timeout_seconds * 1000)
        waits = "on" if self._durable else "off"
        connection.execute(f"SET statement_timeout = {milliseconds}; SET synchronous_commit = {waits}")
        return connection

    @contextmanager
    def _alone(self, connection: Connection, timeout_seconds: float) -> Iterator[None]:
        driver = cast(_LimitedConnection, connection.connection.driver_connection)
        before, driver.limit_seconds = driver.limit_seconds, timeout_seconds + _GRACE_SECONDS
        try:
            connection.exec_driver_sql("BEGIN")
            connection.exec_driver_sql(
                f"SET LOCAL statement_timeout = {math.ceil(timeout_seconds * 1000)}; SET LOCAL synchronous_commit = on"
            )
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_LOCK})")
            yield
            connection.exec_driver_sql("COMMIT")
        except BaseException:
            if not driver.closed:
                connection.exec_driver_sql("ROLLBACK")
            raise
        finally:
            driver.limit_seconds = before

    def _explain(self, error: exc.DBAPIError) -> StoreError:
        state = getattr(error.orig, "sqlstate", None)
        if state:
            what, transient = meaning_of(state)
            what = f"{what} (SQLSTATE {state})"
        elif isinstance(error.orig, _TooSlowError):
            what, transient = "the server does not answer", True
        else:
            what, transient = no_connection(str(error.orig))
        return (StoreUnavailableError if transient else StoreError)(f"{self.where}: {what}")


class _TooSlowError(psycopg.OperationalError):
    """The server has not answered in time, and not even ended the statement."""


class _LimitedConnection(psycopg.Connection[Any]):
    """A connection that waits ``limit_seconds`` at most for an answer, and is closed after that."""

    limit_seconds = math.inf

    def wait(self, gen: Generator[Any, Any, T], *arguments: Any, **options: Any) -> T:
        """What psycopg waits with; here for as long as is allowed."""
        try:
            return super().wait(_limited(gen, self.limit_seconds), interval=_INTERVAL_SECONDS)
        except _TooSlowError:
            self.pgconn.finish()
            raise


def _limited(waiting: Generator[Any, Any, T], seconds: float) -> Generator[Any, Any, T]:
    """The same conversation; TimeoutError from the first silence after its time."""
    end = time.monotonic() + seconds
    try:
        need = next(waiting)
        while True:
            ready = yield need
            if not ready and time.monotonic() >= end:
                raise _TooSlowError("no answer in time")
            need = waiting.send(ready)
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]
