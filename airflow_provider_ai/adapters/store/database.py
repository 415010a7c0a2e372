"""What the store needs of a database, and how it is connected: late, pooled, once per process.

Nothing is connected, and no file is made, before the first session. The URL may hold a password: it is in the engine
and nowhere else, and errors are in our own words, because a driver's text may quote it.
"""

from __future__ import annotations

import os
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy import exc
from sqlalchemy.engine import URL, Connection, CursorResult, Engine
from sqlalchemy.pool import QueuePool
from sqlalchemy.sql.base import Executable

from airflow_provider_ai.exceptions import SpecError, StoreError, StoreUnavailableError

T = TypeVar("T")
Clock = Callable[[], float]
_KEPT_CONNECTIONS = 4
_MORE_CONNECTIONS = 12
_inherited: list[Engine] = []  # kept for ever: a child must not even close what it shares with its parent


class Session:
    """One connection, for the time of one operation."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def run(self, statement: Executable, values: dict[str, Any] | list[dict[str, Any]]) -> CursorResult[Any]:
        """Execute a statement with its parameters, or once for each of a list of them."""
        return self.attempt(lambda connection: connection.execute(statement, values))

    def attempt(self, work: Callable[[Connection], T]) -> T:
        """What ``work`` returns. It is one statement, or may be repeated: where one can, it waits for other writers."""
        return work(self._connection)


class Database(ABC):
    """A database that may hold the store's tables.

    :ivar where: the store in messages: kind, host or file; no credentials
    :ivar now: the store's clock inside a statement; its parameters are :meth:`moment`
    :param durable: whether a commit waits for the disk
    """

    where: str

    def __init__(self, url: URL, *, timeout_seconds: float, clock: Clock | None, durable: bool = False) -> None:
        self.timeout_seconds = timeout_seconds
        self._durable = durable
        self._url = url
        self._clock = clock
        self._engine: Engine | None = None
        self._begin_process()
        given: sa.ColumnElement[Any] = sa.bindparam("now", None, sa.Double())
        self.now = self._database_clock() if clock is None else given
        self._engine_here()  # loads the driver now, not within the deadline of the first call

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.where}>"

    def exists(self) -> bool:
        """Whether there is anything to look at. Looking at a file must not make it."""
        return True

    def moment(self) -> dict[str, float]:
        """The parameters of :attr:`now`."""
        return {} if self._clock is None else {"now": self._clock()}

    @contextmanager
    def session(self) -> Iterator[Session]:
        """A session in which each statement commits by itself. Unless durable it may be lost with the server's power.

        :raises StoreUnavailableError: when the database does not answer in time
        """
        with self._explained(), self._connection() as connection:
            yield self._session(connection)
        self._after_session()

    @contextmanager
    def together(self) -> Iterator[Session]:
        """A session whose statements are one transaction.

        :raises StoreUnavailableError: when the database does not answer in time
        """
        with self._explained(), self._connection() as connection:
            session = self._session(connection)
            session.attempt(lambda here: here.exec_driver_sql(self._begin))
            try:
                yield session
                connection.exec_driver_sql("COMMIT")
            except BaseException:
                _roll_back(connection)
                raise
        self._after_session()

    def durable(self) -> Database:
        """The same database, through connections of its own whose commits wait for the disk."""
        return type(self)(self._url, timeout_seconds=self.timeout_seconds, clock=self._clock, durable=True)

    @contextmanager
    def transaction(self, timeout_seconds: float) -> Iterator[Connection]:
        """All or nothing, durable, and one after the other: for changes of the tables themselves.

        :param timeout_seconds: of each statement, and of the wait for another such transaction
        """
        with self._explained(), self._connection() as connection, self._alone(connection, timeout_seconds):
            yield connection

    def close(self) -> None:
        """Close the connections that are not in use. The next session opens new ones."""
        with self._making:
            engine, self._engine = self._engine, None
        if engine is not None:
            engine.dispose()

    # --- what databases differ in

    _begin: str
    """Begins a transaction that may write."""

    @abstractmethod
    def insert(self, table: sa.Table) -> Any:
        """The dialect's INSERT, which knows ON CONFLICT."""

    @abstractmethod
    def _database_clock(self) -> sa.ColumnElement[Any]:
        """The database's own clock: epoch seconds."""

    @abstractmethod
    def _make_engine(self, url: URL, **options: Any) -> Engine:
        """An engine in autocommit mode."""

    @abstractmethod
    def _alone(self, connection: Connection, timeout_seconds: float) -> AbstractContextManager[None]:
        """A durable transaction on a connection, and no second one like it in this database."""

    @abstractmethod
    def _explain(self, error: exc.DBAPIError) -> StoreError:
        """A driver's error in our words."""

    def _session(self, connection: Connection) -> Session:
        return Session(connection)

    def _after_session(self) -> None:  # noqa: B027 - only SQLite needs it
        """Upkeep after an operation."""

    def _connection(self) -> Connection:
        return self._engine_here().connect()

    # --- engine and errors

    def _engine_here(self) -> Engine:
        """The engine of this process; one that was inherited from the parent is left alone."""
        if self._owner != os.getpid():
            self._begin_process()
        with self._making:
            if self._engine is None:
                self._engine = self._new_engine()
            return self._engine

    def _begin_process(self) -> None:
        """Locks of its own too: a thread that a child does not have may have held the parent's."""
        if self._engine is not None:
            _inherited.append(self._engine)
        self._engine = None
        self._making = threading.Lock()
        self._owner = os.getpid()

    def _new_engine(self) -> Engine:
        try:
            return self._make_engine(
                self._url,
                poolclass=QueuePool,
                pool_size=_KEPT_CONNECTIONS,
                max_overflow=_MORE_CONNECTIONS,
                pool_timeout=self.timeout_seconds,
                pool_use_lifo=True,
                pool_reset_on_return=None,
                isolation_level="AUTOCOMMIT",
                hide_parameters=True,
            )
        except (exc.ArgumentError, ImportError) as error:
            raise SpecError(f"{self.where}: cannot be connected ({type(error).__name__})") from None

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except exc.DBAPIError as error:
            explained = self._explain(error)
        except exc.TimeoutError:
            explained = StoreUnavailableError(f"{self.where}: all connections of this process are in use")
        except exc.SQLAlchemyError as error:
            explained = StoreError(f"{self.where}: unexpected {type(error).__name__}")
        else:
            return
        raise explained


def _roll_back(connection: Connection) -> None:
    """No connection goes back into the pool with a transaction that is still open."""
    try:
        connection.exec_driver_sql("ROLLBACK")
    except exc.SQLAlchemyError:
        connection.invalidate()


class Patience:
    """How long an operation may still wait."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    def over(self) -> bool:
        """Whether it has waited long enough."""
        return time.monotonic() >= self._end
