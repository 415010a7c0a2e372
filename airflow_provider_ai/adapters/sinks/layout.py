"""The target table and its marker table: what they must look like, and the DDL that makes them so.

The marker table ``_ai_publications`` stands beside the target and is written in the transaction of the rows, so a
marker never promises rows that are not there. Nothing is ever dropped or narrowed: DDL only creates tables and adds
columns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any
from uuid import uuid4

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.schema import CreateIndex, CreateTable, ExecutableDDLElement
from sqlalchemy.sql.compiler import DDLCompiler

from airflow_provider_ai.adapters.sinks import sql_types
from airflow_provider_ai.adapters.sinks.arrow_types import Column, Fit, fit
from airflow_provider_ai.adapters.sinks.failures import NO_RETRY
from airflow_provider_ai.adapters.sinks.session import Session
from airflow_provider_ai.exceptions import SinkError

MARKERS = "_ai_publications"
LINEAGE = (
    "_run_id",
    "_partition",
    "_model",
    "_prompt_hash",
    "_schema_version",
    "_source_file",
    "_source_row",
    "_record_key",
    "_inferred_at",
)
# Rows are replaced by these, so a table without them cannot be published into.
_IDENTIFYING = ("_partition", "_record_key")


class AddColumn(ExecutableDDLElement):
    """ALTER TABLE … ADD COLUMN."""

    inherit_cache = False

    def __init__(self, table: sa.Table, column: sa.Column[Any]) -> None:
        self.table = table
        self.column = column


class CreateTemporary(ExecutableDDLElement):
    """CREATE TEMPORARY TABLE … AS a query."""

    inherit_cache = False

    def __init__(self, table: sa.TableClause, like: sa.Select[Any]) -> None:
        self.table = table
        self.like = like


@compiles(AddColumn)
def _add_column(element: AddColumn, compiler: DDLCompiler, **_: Any) -> str:
    name = compiler.preparer.format_table(element.table)
    return f"ALTER TABLE {name} ADD COLUMN {compiler.get_column_specification(element.column)}"


@compiles(CreateTemporary)
def _create_temporary(element: CreateTemporary, compiler: DDLCompiler, **_: Any) -> str:
    name = compiler.preparer.quote(element.table.name)
    return f"CREATE TEMPORARY TABLE {name} AS {compiler.sql_compiler.process(element.like, literal_binds=True)}"


class Layout:
    """Both tables of one sink as one session sees them."""

    def __init__(self, session: Session, table: str) -> None:
        session.check_name(table, "the sink's table")
        self._session = session
        self._table = table
        self.markers = _markers(session)
        self.found: Mapping[str, Column] | None = None
        self.target = self.clause(table, (), schema=session.schema)

    def refresh(self) -> Layout:
        """Look at the target table again; ``found`` is ``None`` when it is not there."""
        self.found = self._session.describe(self._table)
        if self.found is not None:
            self._require_lineage(self.found)
            self.target = self.clause(self._table, self.found.values(), schema=self._session.schema)
        return self

    def clause(self, name: str, columns: Iterable[Column], *, schema: str | None) -> sa.TableClause:
        """A table for SELECT, INSERT and DELETE."""
        quoted: list[sa.ColumnClause[Any]] = [sa.column(self._session.name(column.name)) for column in columns]
        place = {} if schema is None else {"schema": self._session.name(schema)}
        return sa.table(self._session.name(name), *quoted, **place)

    def column(self, name: str) -> sa.ColumnElement[Any]:
        """A column of the target by our name for it."""
        found = self._find(name)
        return self.target.c[found.name if found else name]

    def has_markers(self) -> bool:
        """Whether the marker table is there; SinkError when something else has its name."""
        found = self._session.describe(MARKERS)
        if found is None:
            return False
        missing = [column.name for column in self.markers.columns if self._fold(column.name) not in self._folded(found)]
        if missing:
            raise SinkError(
                f"table {MARKERS!r} exists but is not this package's: it lacks {', '.join(missing)}. "
                f"Rename it or publish into another schema; {NO_RETRY}"
            )
        return True

    def fits(self, schema: Any) -> list[Fit]:
        """How each field goes into its column. SinkError naming column and types when one cannot."""
        return [fit(field, column) for field in schema if (column := self._find(field.name)) is not None]

    def missing(self, schema: Any) -> list[sa.Executable]:
        """The DDL still needed before rows of ``schema`` can be loaded; looks at the tables anew."""
        self._check_names(schema)
        self.refresh()
        ddl: list[sa.Executable] = [] if self.has_markers() else [CreateTable(self.markers)]
        return [*ddl, *(self._create(schema) if self.found is None else self._extend(schema))]

    def _create(self, schema: Any) -> list[sa.Executable]:
        table = _table(self._session, self._table, self._columns(list(schema)))
        return [CreateTable(table), *self._index("_partition", created=True)]

    def _extend(self, schema: Any) -> list[sa.Executable]:
        columns = self._columns([field for field in schema if self._find(field.name) is None])
        table = _table(self._session, self._table, columns)
        partition = self._find("_partition")
        index = self._index(partition.name, created=False) if partition else []
        return [*(AddColumn(table, column) for column in columns), *index]

    def _index(self, partition: str, *, created: bool) -> list[sa.Executable]:
        if not self._session.index_wanted(self._table, created=created):
            return []
        column = sa.Column(self._session.name(partition), sql_types.KEY)
        _table(self._session, self._table, [column])
        # A fresh name: that of a renamed table's index would still be taken.
        name = self._session.name(f"_ai_partition_{uuid4().hex[:12]}")
        return [CreateIndex(sa.Index(name, column, **self._session.index_options))]

    def _columns(self, fields: Sequence[Any]) -> list[sa.Column[Any]]:
        types = self._session.column_types(fields)
        return [
            sa.Column(self._session.name(field.name), kind, nullable=True)
            for field, kind in zip(fields, types, strict=True)
        ]

    def _check_names(self, schema: Any) -> None:
        seen: set[str] = set()
        for name in schema.names:
            self._session.check_name(name, "a column")
            if self._fold(name) in seen:
                raise SinkError(f"column {name!r} comes twice (as this warehouse compares names); {NO_RETRY}")
            seen.add(self._fold(name))

    def _require_lineage(self, found: Mapping[str, Column]) -> None:
        missing = [name for name in LINEAGE if self._fold(name) not in self._folded(found)]
        if not set(missing).intersection(_IDENTIFYING):
            return
        raise SinkError(
            f"table {self._table!r} was not made by this package and lacks {', '.join(missing)}: without "
            f"{' and '.join(_IDENTIFYING)} its rows cannot be replaced. Publish into another table, or add the columns "
            f"(text; _source_row bigint, _inferred_at timestamp with time zone); {NO_RETRY}"
        )

    def _find(self, name: str) -> Column | None:
        found = self.found or {}
        return found.get(name) or self._folded(found).get(self._fold(name))

    def _folded(self, columns: Mapping[str, Column]) -> dict[str, Column]:
        return {self._fold(name): column for name, column in columns.items()}

    @property
    def _fold(self) -> Callable[[str], str]:
        return str.casefold if self._session.folds_case else str


def _markers(session: Session) -> sa.Table:
    key, text = sql_types.KEY, sql_types.KEY
    columns: list[sa.Column[Any]] = [
        sa.Column(session.name("target_table"), key, primary_key=True),
        sa.Column(session.name("scope"), text, nullable=False),
        sa.Column(session.name("partition"), key, primary_key=True),
        sa.Column(session.name("plan"), text, nullable=False),
        sa.Column(session.name("content"), text, nullable=False),
        sa.Column(session.name("rows"), sa.BigInteger(), nullable=False),
        sa.Column(session.name("run_id"), text, nullable=False),
        sa.Column(session.name("published_at"), sql_types.timestamp(zone=True), nullable=False),
    ]
    return _table(session, MARKERS, columns)


def _table(session: Session, name: str, columns: Sequence[sa.Column[Any]]) -> sa.Table:
    schema = None if session.schema is None else session.name(session.schema)
    return sa.Table(session.name(name), sa.MetaData(), *columns, schema=schema, **sql_types.TABLE_OPTIONS)
