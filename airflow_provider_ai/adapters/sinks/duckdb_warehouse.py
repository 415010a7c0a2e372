"""DuckDB: a file that one process at a time may write.

A publisher keeps the file open from one partition to the next (opening it and writing its checkpoint cost as much as
the rows), but lets it go every few seconds, so that other processes get their turn; while another holds it, we try
again until the wait is over. Inside this process everybody shares one connection a file, in turns, which makes every
write transaction the only one; one that somebody else has opened here is waited for.

Memory is bounded whatever the partition's size: DuckDB spills beyond ``memory_limit``, which can be raised in the URL
(``?memory_limit=2GB&threads=8``). There is no index on ``_partition``: the column compresses to almost nothing and is
scanned in milliseconds, while an index would be held in memory.
"""

from __future__ import annotations

import os
import re
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow as pa
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from sqlalchemy.sql.base import Executable
from sqlalchemy.types import TypeEngine, UserDefinedType

from airflow_provider_ai.adapters.sinks.arrow_types import Column, family_of, plain
from airflow_provider_ai.adapters.sinks.duckdb_file import HEADERS_BYTES, create_file, literal, remove_leftovers
from airflow_provider_ai.adapters.sinks.failures import refused, unavailable, unexpected
from airflow_provider_ai.adapters.sinks.session import Session, Warehouse
from airflow_provider_ai.adapters.sinks.waiting import BusyError, until_free
from airflow_provider_ai.exceptions import SinkError

if TYPE_CHECKING:
    from sqlalchemy.engine import URL

DEFAULTS = {"memory_limit": "96MB", "threads": "2", "preserve_insertion_order": "false"}
_REMOTE = ("md:", "motherduck:")
_KEPT_SECONDS = 5.0
_TURN_SECONDS = 0.25  # others look about twice a second

_ROW_GROUP_ROWS = 16 * 1024
"""DuckDB compresses full row groups straight into the file. What does not fill one passes through the write-ahead log
and is written twice; with its own 122,880 rows that would be all of a partition of usual size."""

_CATALOG = "ai_warehouse"

_UNAVAILABLE = {
    "TransactionException": "the transaction lost against a concurrent one",
    "IOException": "the file cannot be read or written (disk full or failing, or another process holds it)",
    "HTTPException": "the remote database does not answer",
    "InterruptException": "the statement was interrupted",
    "ConnectionException": "this process has the file open with other settings",
}
_REFUSED = {
    "OutOfMemoryException": "memory_limit is too small for these rows; raise it in the url (?memory_limit=1GB)",
    "ConstraintException": "a constraint refuses a row (a key that is there already, or a null where none may be)",
    "ConversionException": "a value does not fit its column",
    "OutOfRangeException": "a value does not fit its column",
    "CatalogException": "the table does not suit the statement, or the schema does not exist",
    "BinderException": "the table does not suit the statement",
    "PermissionException": "the file may not be written",
    "FatalException": "the database invalidated itself after an error; check the file and the disk",
    "SerializationException": "the file was written by a DuckDB this one cannot read",
}


class _File:
    """What this process has of a file: the turn to use it, and the connection kept from one operation to the next."""

    def __init__(self) -> None:
        self.turn = threading.Lock()
        self.kept: duckdb.DuckDBPyConnection | None = None
        self.settings: Mapping[str, str] = {}
        self.since = 0.0

    def keep(self, connection: duckdb.DuckDBPyConnection, settings: Mapping[str, str]) -> None:
        self.kept, self.settings, self.since = connection, settings, time.monotonic()

    def let_go(self) -> None:
        kept, self.kept = self.kept, None
        if kept is not None:
            kept.close()


_files: dict[str, _File] = defaultdict(_File)
_files_guard = threading.Lock()


class DuckdbWarehouse(Warehouse):
    """A DuckDB file."""

    def __init__(self, url: URL, lock_wait_seconds: float) -> None:
        path = url.database or ""
        if path in ("", ":memory:") or path.startswith(":memory:"):
            raise SinkError("the sink's url must name a DuckDB file, got an in-memory database: nothing would survive")
        self._remote = path.startswith(_REMOTE)
        self._path = path if self._remote else os.path.abspath(path)  # noqa: PTH100 - resolve() would follow links
        self._settings = DEFAULTS | {name: str(value) for name, value in url.query.items()}
        self._lock_wait_seconds = lock_wait_seconds
        self.where = f"DuckDB at {self._path.partition('?')[0]}"

    @contextmanager
    def open(self, schema: str | None, *, reading: bool) -> Iterator[Session]:
        file = self._file()
        if not file.turn.acquire(timeout=self._lock_wait_seconds):
            raise unavailable(self.where, f"another thread has held it for {self._lock_wait_seconds:g} s")
        try:
            connection = self._taken(file, reading=reading)
            try:
                yield DuckdbSession(connection, schema)
            except BaseException:
                file.let_go()  # nobody knows what state it is in
                raise
            finally:
                if connection is not file.kept:
                    connection.close()
            if file.kept is not None and time.monotonic() - file.since > _KEPT_SECONDS:
                file.let_go()
                time.sleep(_TURN_SECONDS)
        finally:
            file.turn.release()

    def close(self) -> None:
        file = self._file()
        with file.turn:
            file.let_go()

    def _file(self) -> _File:
        with _files_guard:
            return _files[self._path if self._remote else os.path.realpath(self._path)]

    def _taken(self, file: _File, *, reading: bool) -> duckdb.DuckDBPyConnection:
        """The connection kept from the operation before, or a new one; one that can write is kept."""
        if file.kept is not None and file.settings == self._settings:
            return file.kept
        file.let_go()
        read_only = reading and not self._remote
        connect = partial(self._connect, read_only=read_only)
        connection = until_free(connect, where=self.where, wait_seconds=self._lock_wait_seconds)
        if not read_only:
            file.keep(connection, self._settings)
        return connection

    def _connect(self, *, read_only: bool) -> duckdb.DuckDBPyConnection:
        try:
            connection = self._connected(read_only=read_only)
        except duckdb.Error as error:
            if (holder := self._holder(str(error))) is None:
                raise
            raise BusyError(holder) from None
        try:
            for name, value in self._settings.items():
                connection.execute(f"SET {_quoted(name)} = {literal(value)}")
        except BaseException:
            connection.close()
            raise
        return connection

    def _holder(self, text: str) -> str | None:
        """Who has the file, when that is why DuckDB cannot open it."""
        if "set lock on file" in text:
            found = re.search(r"\(PID (\d+)\)", text)
            return f"process {found[1]}" if found else "another process"
        if "Unique file handle conflict" in text:
            return "another connection of this process"
        if not self._remote and Path(self._path).is_file() and Path(self._path).stat().st_size < HEADERS_BYTES:
            return "a program that is creating the file (if none is, it holds nothing: delete it)"
        return None

    def _connected(self, *, read_only: bool) -> duckdb.DuckDBPyConnection:
        if self._remote:
            return duckdb.connect(self._path)
        if not read_only:
            return self._writing()
        try:
            return duckdb.connect(self._path, read_only=True)
        except duckdb.ConnectionException:
            # This process has it open for writing: a second connection joins it.
            return duckdb.connect(self._path)

    def _writing(self) -> duckdb.DuckDBPyConnection:
        connection = duckdb.connect()
        try:
            if not self.exists():
                create_file(Path(self._path), connection)
            name = _quoted(_CATALOG)
            connection.execute(f"ATTACH {literal(self._path)} AS {name} (ROW_GROUP_SIZE {_ROW_GROUP_ROWS})")
            connection.execute(f"USE {name}")
        except BaseException:
            connection.close()
            raise
        remove_leftovers(Path(self._path))
        return connection

    def explain(self, error: Exception) -> SinkError:
        for kind in type(error).__mro__:
            if kind.__name__ in _REFUSED:
                return refused(self.where, _REFUSED[kind.__name__])
            if kind.__name__ in _UNAVAILABLE:
                return self._io_failure(str(error)) or unavailable(self.where, _UNAVAILABLE[kind.__name__])
        return unexpected(self.where, error)

    def _io_failure(self, text: str) -> SinkError | None:
        """Files that a retry does not bring back."""
        if "not a valid DuckDB database file" in text:
            return refused(self.where, "the file is not a DuckDB database")
        if "No such file or directory" in text or "Is a directory" in text:
            return refused(self.where, "there is no such folder, or the path is one")
        return refused(self.where, "permission denied") if "Permission denied" in text else None

    def exists(self) -> bool:
        return self._remote or Path(self._path).exists()


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


class _Spelled(UserDefinedType[Any]):
    """A type as DuckDB spells it."""

    cache_ok = True

    def __init__(self, spelling: str) -> None:
        self.spelling = spelling

    def get_col_spec(self, **_: Any) -> str:
        return self.spelling


class DuckdbSession(Session):
    """One connection. DuckDB speaks PostgreSQL's SQL as far as the shared statements go."""

    folds_case = True

    def __init__(self, connection: duckdb.DuckDBPyConnection, schema: str | None) -> None:
        self.dialect = postgresql.dialect(paramstyle="numeric_dollar")  # type: ignore[no-untyped-call]
        self.dialect.max_identifier_length = 1024
        self.schema = schema
        self._connection = connection

    # --- statements

    def run(self, statement: Executable) -> list[tuple[Any, ...]]:
        if isinstance(statement, sa.schema.ExecutableDDLElement):
            return self._query(str(statement.compile(dialect=self.dialect)))
        compiled: Any = statement.compile(  # type: ignore[attr-defined]
            dialect=self.dialect, compile_kwargs={"render_postcompile": True}
        )
        return self._query(str(compiled), [compiled.params[name] for name in compiled.positiontup or ()])

    def _query(self, text: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        return self._connection.execute(text, list(parameters)).fetchall()

    def begin(self, *, reading: bool) -> None:
        self._query("BEGIN TRANSACTION")

    def commit(self) -> None:
        self._query("COMMIT")

    def rollback(self) -> None:
        self._query("ROLLBACK")

    # --- tables

    def describe(self, table: str) -> Mapping[str, Column] | None:
        kind = self._query(
            "SELECT table_type FROM information_schema.tables WHERE table_catalog = current_database() "
            "AND table_schema = coalesce($1, current_schema()) AND lower(table_name) = lower($2)",
            [self.schema, table],
        )
        if not kind:
            return None
        if kind[0][0] != "BASE TABLE":
            raise SinkError(f"{table!r} is a view, not a table; a retry cannot help")
        name = _quoted(table) if self.schema is None else f"{_quoted(self.schema)}.{_quoted(table)}"
        spelled = {row[0]: row[1] for row in self._query(f"DESCRIBE {name}")}
        fields = self._arrow_schema(f"SELECT * FROM {name} LIMIT 0")  # noqa: S608 - quoted above
        return {field.name: _column(field, spelled[field.name]) for field in fields}

    def _arrow_schema(self, query: str) -> Any:
        relation = self._connection.sql(query)
        found: Any = relation.to_arrow_table() if hasattr(relation, "to_arrow_table") else relation.arrow()
        return found.schema

    def column_types(self, fields: Sequence[Any]) -> list[TypeEngine[Any]]:
        for field in fields:
            if family_of(plain(field.type)) is None:
                raise SinkError(f"column {field.name!r} of type {field.type} has no SQL type; a retry cannot help")
        schema = pa.schema([pa.field(f"c{number}", plain(field.type)) for number, field in enumerate(fields)])
        if not fields:
            return []
        with self._registered(pa.RecordBatchReader.from_batches(schema, iter(()))) as name:
            return [_Spelled(row[1]) for row in self._query(f"DESCRIBE SELECT * FROM {name}")]  # noqa: S608 - our name

    def index_wanted(self, table: str, *, created: bool) -> bool:
        return False

    def load(self, table: sa.TableClause, columns: Sequence[Column], reader: Any, *, temporary: bool) -> None:
        target = self.dialect.identifier_preparer.format_table(table)
        with self._registered(reader) as name:
            self._query(f"INSERT INTO {target} BY NAME SELECT * FROM {name}")  # noqa: S608 - quoted above

    @contextmanager
    def _registered(self, reader: Any) -> Iterator[str]:
        name = "_ai_arriving_rows"
        self._connection.register(name, reader)
        try:
            yield name
        finally:
            self._connection.unregister(name)


def _column(field: Any, spelled: str) -> Column:
    accepts = None if spelled in ("INTERVAL", "BIT") else plain(field.type)
    return Column(name=field.name, type_name=spelled, accepts=accepts, json=spelled == "JSON")
