"""What a warehouse must offer so that the shared publish steps can run on it: the only thing dialects implement.

A :class:`Warehouse` opens a :class:`Session` for the time of one operation and explains its errors. A session is one
connection. Outside :meth:`Session.transaction` every statement stands alone; inside, all or nothing. Statements are
SQLAlchemy Core constructs, so quoting, types and placeholders are the dialect's business and never string formatting.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime
from typing import Any, ClassVar

import sqlalchemy as sa
from sqlalchemy.engine import Dialect
from sqlalchemy.sql.base import Executable
from sqlalchemy.sql.elements import quoted_name
from sqlalchemy.types import TypeEngine

from airflow_provider_ai.adapters.sinks import sql_types
from airflow_provider_ai.adapters.sinks.arrow_types import Column
from airflow_provider_ai.exceptions import SinkError


class Session(ABC):
    """One connection.

    :ivar dialect: compiles statements
    :ivar schema: where target and marker table are; ``None`` for the only one there is
    """

    dialect: Dialect
    schema: str | None
    quote_always = True
    """Quote every name. Off where unquoted names are folded and users expect that."""
    folds_case = False
    """Whether ``Score`` and ``score`` are the same column."""
    index_options: ClassVar[Mapping[str, Any]] = {}
    """Arguments for :class:`sqlalchemy.Index` that suit rows which lie together by ``_partition``."""
    can_stage = True
    """Whether CREATE TEMPORARY TABLE … AS SELECT works."""

    # --- statements

    @abstractmethod
    def run(self, statement: Executable) -> list[tuple[Any, ...]]:
        """Execute; the rows, if any."""

    @abstractmethod
    def begin(self, *, reading: bool) -> None:
        """Start a transaction. ``reading``: it writes nothing, and sees one state of the database."""

    @abstractmethod
    def commit(self) -> None:
        """Make it durable."""

    @abstractmethod
    def rollback(self) -> None:
        """Undo it."""

    def instant(self, moment: datetime) -> sa.ColumnElement[Any]:
        """A point in time as a value in a statement."""
        return sa.literal(moment, sql_types.timestamp(zone=True))

    @contextmanager
    def transaction(self, *, reading: bool = False) -> Iterator[None]:
        """All or nothing."""
        self.begin(reading=reading)
        try:
            yield
            self.commit()
        except BaseException:
            self._rollback_quietly()
            raise

    def _rollback_quietly(self) -> None:
        try:
            self.rollback()
        except Exception:  # noqa: BLE001, S110 - the first error is the one to report; closing ends the transaction too
            pass

    # --- tables

    @abstractmethod
    def describe(self, table: str) -> Mapping[str, Column] | None:
        """Columns of a table by name; ``None`` when it does not exist. SinkError when it is not a table."""

    @abstractmethod
    def load(self, table: sa.TableClause, columns: Sequence[Column], reader: Any, *, temporary: bool) -> None:
        """Append a pyarrow.RecordBatchReader, whose fields are ``columns``, inside the open transaction."""

    def column_types(self, fields: Sequence[Any]) -> list[TypeEngine[Any]]:
        """Types of new columns for Arrow fields. SinkError for a field the warehouse cannot hold."""
        return [sql_types.for_field(field) for field in fields]

    def index_wanted(self, table: str, *, created: bool) -> bool:
        """Whether an index on ``_partition`` should be made now. ``created``: with the table, else for an old one."""
        return created

    def published(self, target: str) -> None:  # noqa: B027 - only some dialects need it
        """Upkeep after the commit. Whatever goes wrong here must not make a publish fail that has succeeded."""

    def check_name(self, name: str, what: str) -> None:
        """SinkError when ``name`` cannot name a table or column here."""
        limit = self.dialect.max_identifier_length
        if not name or "\0" in name or len(name.encode()) > limit:
            raise SinkError(
                f"{what} must be a name of 1 to {limit} bytes without U+0000, got {name!r}; a retry cannot help"
            )

    def name(self, name: str) -> quoted_name:
        """``name`` for a SQLAlchemy construct."""
        return quoted_name(name, True if self.quote_always else None)

    # --- concurrency: the first is called before the transaction, the others inside the one they protect

    def prepare_lock(self, target: str, scope: str) -> None:  # noqa: B027 - only some dialects need it
        """Make whatever locking needs to exist."""

    def lock_tables(self, target: str) -> None:  # noqa: B027 - only some dialects need it
        """One creator of tables at a time."""

    def lock_publish(self, target: str, scope: str, partition: str) -> None:  # noqa: B027 - only some dialects need it
        """One publisher of a partition at a time, none while the scope is pruned."""

    def lock_commit(self, target: str, scope: str) -> bool:
        """One committing publisher of a scope at a time; whether others may have committed since the start."""
        return False

    def lock_prune(self, target: str, scope: str) -> None:  # noqa: B027 - only some dialects need it
        """No publisher of the scope while it is pruned."""


class Warehouse(ABC):
    """Where sessions come from."""

    where: str
    """The warehouse in messages: kind, host or file; no credentials."""

    @abstractmethod
    def open(self, schema: str | None, *, reading: bool) -> AbstractContextManager[Session]:
        """A session, closed at the end. ``reading``: it will write nothing."""

    @abstractmethod
    def explain(self, error: Exception) -> SinkError:
        """A driver's error in our words: nothing of its text, which may hold row values."""

    def exists(self) -> bool:
        """Whether there is anything to read. Opening a file to read it must not create it."""
        return True

    def close(self) -> None:  # noqa: B027 - only pools need it
        """Release what outlives sessions."""
