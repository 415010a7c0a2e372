"""Whatever SQLAlchemy speaks: typed executemany inside one transaction. Slower than the native loaders, but general.

Publishers of one partition take turns on its marker row: a no-op update locks it, and of two that insert it first, one
fails with a unique violation, which means "try again".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import sqlalchemy as sa
from sqlalchemy import exc
from sqlalchemy.pool import NullPool
from sqlalchemy.sql.base import Executable
from sqlalchemy.types import TypeEngine

from airflow_provider_ai.adapters.sinks import sql_types
from airflow_provider_ai.adapters.sinks.arrow_types import NAIVE, UTC, Column, without_nan
from airflow_provider_ai.adapters.sinks.failures import from_sqlstate, refused, unavailable, unexpected
from airflow_provider_ai.adapters.sinks.layout import MARKERS
from airflow_provider_ai.adapters.sinks.session import Session, Warehouse
from airflow_provider_ai.exceptions import SinkError

if TYPE_CHECKING:
    from sqlalchemy.engine import URL, Connection, RootTransaction

_ROWS_PER_STATEMENT = 5_000


class SqlalchemyWarehouse(Warehouse):
    """A database behind a SQLAlchemy URL."""

    def __init__(self, url: URL, **engine_options: Any) -> None:
        self.where = f"{url.get_backend_name()} at {url.host or url.database or 'its default address'}"
        try:
            self.engine = sa.create_engine(url, poolclass=NullPool, hide_parameters=True, **engine_options)
        except (exc.ArgumentError, exc.NoSuchModuleError, ImportError) as error:
            raise refused(self.where, f"no usable driver for {url.drivername!r} ({type(error).__name__})") from None

    @contextmanager
    def open(self, schema: str | None, *, reading: bool) -> Iterator[Session]:
        with self.engine.connect() as connection:
            yield self.session(connection, schema)

    def session(self, connection: Connection, schema: str | None) -> Session:
        """The session on a connection."""
        return SqlalchemySession(connection, schema)

    def explain(self, error: Exception) -> SinkError:
        if not isinstance(error, exc.DBAPIError):
            return unexpected(self.where, error)
        state = getattr(error.orig, "sqlstate", None) or getattr(error.orig, "pgcode", None)
        if isinstance(state, str) and len(state) == 5:
            return from_sqlstate(self.where, state)
        if error.connection_invalidated or isinstance(error, exc.OperationalError | exc.InterfaceError):
            return unavailable(self.where, f"the database does not answer ({type(error.orig).__name__})")
        return refused(self.where, f"the database refuses ({type(error.orig).__name__})")

    def close(self) -> None:
        self.engine.dispose()


class SqlalchemySession(Session):
    """One connection."""

    can_stage = False

    def __init__(self, connection: Connection, schema: str | None) -> None:
        self.dialect = connection.dialect
        self._mysql = connection.dialect.name in sql_types.MYSQL
        self.folds_case = self.folds_case or self._mysql
        self.schema = schema
        self._connection = connection
        self._open: RootTransaction | None = None

    # --- statements

    def run(self, statement: Executable) -> list[tuple[Any, ...]]:
        result = self._connection.execute(statement)
        return [tuple(row) for row in result] if result.returns_rows else []

    def begin(self, *, reading: bool) -> None:
        self._end()  # what ran before the first transaction began one of its own
        self._open = self._connection.begin()

    def commit(self) -> None:
        if self._open is not None:
            self._open.commit()

    def rollback(self) -> None:
        if self._open is not None:
            self._open.rollback()

    def _end(self) -> None:
        if self._connection.in_transaction():
            self._connection.rollback()

    # --- tables

    def describe(self, table: str) -> Mapping[str, Column] | None:
        inspector = sa.inspect(self._connection)
        if not inspector.has_table(table, schema=self.schema):
            return None
        if table in inspector.get_view_names(schema=self.schema):
            raise SinkError(f"{table!r} is a view, not a table; a retry cannot help")
        found = inspector.get_columns(table, schema=self.schema)
        return {column["name"]: _column(column, finite=self._mysql) for column in found}

    def load(self, table: sa.TableClause, columns: Sequence[Column], reader: Any, *, temporary: bool) -> None:
        typed = [sa.column(self.name(column.name), column.sql_type) for column in columns]
        place = {} if self.schema is None or temporary else {"schema": self.name(self.schema)}
        insert = sa.insert(sa.table(table.name, *typed, **place))
        for batch in reader:
            for start in range(0, batch.num_rows, _ROWS_PER_STATEMENT):
                self._connection.execute(insert, batch.slice(start, _ROWS_PER_STATEMENT).to_pylist())

    def lock_publish(self, target: str, scope: str, partition: str) -> None:
        name = self.name
        keys: list[sa.ColumnClause[Any]] = [
            sa.column(name(key)) for key in ("target_table", "partition", "scope", "plan", "content", "run_id")
        ]
        place = {} if self.schema is None else {"schema": name(self.schema)}
        rows, published = sa.column(name("rows"), sa.BigInteger()), sa.column(name("published_at"), sa.DateTime())
        markers = sa.table(name(MARKERS), *keys, rows, published, **place)
        mine = sa.and_(markers.c.target_table == target, markers.c.partition == partition)
        if self._connection.execute(sa.update(markers).where(mine).values(scope=markers.c.scope)).rowcount:
            return
        blank = dict.fromkeys(("plan", "content", "run_id"), "")
        first = sa.insert(markers).values(
            target_table=target,
            partition=partition,
            scope=scope,
            rows=-1,
            published_at=sa.func.current_timestamp(),
            **blank,
        )
        try:
            self._connection.execute(first)
        except exc.IntegrityError:
            raise unavailable(target, "another runner is publishing the same partition") from None


def _column(found: Mapping[str, Any], *, finite: bool) -> Column:
    """``finite``: this database's numbers know no NaN."""
    kind: TypeEngine[Any] = found["type"]
    return Column(
        name=found["name"],
        type_name=str(kind),
        accepts=_accepts(kind),
        json=isinstance(kind, sa.JSON),
        open_scale=isinstance(kind, sa.Numeric) and not isinstance(kind, sa.Float) and kind.precision is None,
        encode=without_nan(found["name"]) if finite and isinstance(kind, sa.Float) else None,
        sql_type=kind,
    )


def _accepts(kind: TypeEngine[Any]) -> Any:
    """The Arrow type of values for a column; None for types that are not filled."""
    if isinstance(kind, sa.Integer):
        sizes = ((sa.SmallInteger, pa.int16()), (sa.BigInteger, pa.int64()))
        return next((arrow for size, arrow in sizes if isinstance(kind, size)), pa.int32())
    if isinstance(kind, sa.DateTime):
        return UTC if kind.timezone else NAIVE
    if isinstance(kind, sa.Float):
        return pa.float64()
    if isinstance(kind, sa.Numeric):
        return pa.decimal128(kind.precision or 38, kind.scale or 0)
    simple = ((sa.Boolean, pa.bool_()), (sa.Date, pa.date32()), (sa.Time, pa.time64("us")), (sa.JSON, pa.string()))
    found = next((arrow for cls, arrow in simple if isinstance(kind, cls)), None)
    if found is not None:
        return found
    if isinstance(kind, sa.types._Binary):  # LargeBinary, and what dialects have of their own
        return pa.binary()
    return pa.string() if isinstance(kind, sa.String) else None
