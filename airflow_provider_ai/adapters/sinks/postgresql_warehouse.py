"""PostgreSQL through ADBC: Arrow in, binary COPY, in one transaction with everything else.

Concurrency is by transaction-level advisory locks, whose order is fixed (tables; or scope, partition, commit):

* ``tables``, exclusive: one creator of tables at a time.
* ``scope``, shared by publishers and exclusive for pruning: pruning meets no half-published partition.
* ``partition``, exclusive: one publisher of a partition at a time; different partitions load in parallel.
* ``commit``, exclusive, last: publishers of two plans see each other's rows before they commit, whoever is second.

All transactions that write are READ COMMITTED: what is read after a lock was granted includes what its former holder
committed. The index on ``_partition`` is a BRIN: a partition's rows lie together, so a few bytes a megabyte find them,
and a COPY does not get slower (a B-tree costs a third of its speed). A small table is scanned faster than any index is
read: it is made once the table has outgrown ``INDEX_FROM_BYTES``.
"""

from __future__ import annotations

import json
import logging
import re
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from hashlib import blake2b
from types import ModuleType
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import quote, urlencode

import pyarrow as pa
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from sqlalchemy.sql.base import Executable
from sqlalchemy.types import TypeEngine

from airflow_provider_ai.adapters.database_errors import no_connection
from airflow_provider_ai.adapters.sinks import sql_types
from airflow_provider_ai.adapters.sinks.arrow_types import (
    NAIVE,
    UTC,
    Column,
    Convert,
    family_of,
    plain,
    uuid_bytes,
    without_json_nul,
    without_nul,
)
from airflow_provider_ai.adapters.sinks.failures import from_sqlstate, refused, unavailable, unexpected
from airflow_provider_ai.adapters.sinks.session import Session, Warehouse
from airflow_provider_ai.exceptions import SinkError

if TYPE_CHECKING:
    from sqlalchemy.engine import URL

log = logging.getLogger(__name__)

INDEX_FROM_BYTES = 64 * 1024 * 1024
_CONNECT_TIMEOUT_SECONDS = 10
_UPKEEP_WAIT = "1s"
_KEPT_SECONDS = 5.0

_DESCRIBE = """
SELECT c.relkind::text, a.attname::text, t.typtype::text,
       format_type(CASE t.typtype WHEN 'd' THEN t.typbasetype ELSE a.atttypid END,
                   CASE t.typtype WHEN 'd' THEN t.typtypmod ELSE a.atttypmod END)
FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
LEFT JOIN pg_type t ON t.oid = a.atttypid
WHERE n.nspname = $1::text AND c.relname = $2::text
ORDER BY a.attnum
"""

_INDEX_STATE = """
SELECT pg_table_size(c.oid), pg_has_role(c.relowner, 'USAGE'), EXISTS (
    SELECT FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
    WHERE i.indrelid = c.oid AND i.indpred IS NULL AND a.attname = '_partition')
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = $1::text AND c.relname = $2::text
"""


_SUMMARIZE = """
SELECT brin_summarize_new_values(x.oid)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_index i ON i.indrelid = c.oid
JOIN pg_class x ON x.oid = i.indexrelid JOIN pg_am m ON m.oid = x.relam
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = i.indkey[0]
WHERE n.nspname = $1::text AND c.relname = $2::text AND m.amname = 'brin' AND a.attname = '_partition'
AND i.indpred IS NULL AND pg_has_role(c.relowner, 'USAGE')
"""


class PostgresqlWarehouse(Warehouse):
    """A PostgreSQL database. A connection serves operations that follow each other at once, as when partitions are
    published one after the other: connecting takes as long as 20,000 rows. None goes stale, none idles in a
    transaction, and one that an error came from is not used again."""

    def __init__(self, url: URL, lock_wait_seconds: float) -> None:
        self.where = f"PostgreSQL at {url.host or 'its socket'}:{url.port or 5432}"
        self._uri = libpq_uri(url)
        self._lock_wait_seconds = lock_wait_seconds
        self._kept: Any = None
        self._kept_since = 0.0
        self._keeping = threading.Lock()

    @contextmanager
    def open(self, schema: str | None, *, reading: bool) -> Iterator[Session]:
        connection = self._taken() or self._connect()
        try:
            session = PostgresqlSession(connection, self._lock_wait_seconds)
            session.schema = schema or self._current_schema(session)
            yield session
        except BaseException:
            connection.close()
            raise
        if session.reusable:
            self._keep(connection)
        else:
            connection.close()

    def close(self) -> None:
        self._keep(None)

    def _taken(self) -> Any:
        """The kept connection, for one user; None when there is none or it has been idle."""
        with self._keeping:
            kept, self._kept = self._kept, None
        if kept is not None and time.monotonic() - self._kept_since > _KEPT_SECONDS:
            kept.close()
            return None
        return kept

    def _keep(self, connection: Any) -> None:
        with self._keeping:
            before, self._kept, self._kept_since = self._kept, connection, time.monotonic()
        if before is not None:
            before.close()

    def explain(self, error: Exception) -> SinkError:
        if not isinstance(error, _adbc().Error):
            return unexpected(self.where, error)
        state: str | None = getattr(error, "sqlstate", None)
        if not state:
            # Without a state it did not come from the server: the connection broke or the driver gave up.
            if type(error).__name__ in ("OperationalError", "InternalError"):
                return unavailable(self.where, "the connection broke")
            return unexpected(self.where, error)
        details = dict(getattr(error, "details", ()))
        column = _text(details.get("PG_DIAG_COLUMN_NAME", details.get(b"PG_DIAG_COLUMN_NAME")))
        constraint = _text(details.get("PG_DIAG_CONSTRAINT_NAME", details.get(b"PG_DIAG_CONSTRAINT_NAME")))
        return from_sqlstate(self.where, state, column=column, constraint=constraint)

    def _connect(self) -> Any:
        driver = _adbc()
        try:
            # Transactions are opened by statement: autocommit here only keeps the driver from opening its own.
            return driver.connect(self._uri, autocommit=True)
        except driver.Error as error:
            failure = self._connect_failure(str(error))
        raise failure

    def _connect_failure(self, text: str) -> SinkError:
        meaning, passes = no_connection(text)
        return (unavailable if passes else refused)(self.where, meaning)

    def _current_schema(self, session: PostgresqlSession) -> str:
        found = session.query("SELECT current_schema()::text")[0][0]
        if found is None:
            raise refused(self.where, "no schema of the user's search_path exists, and the sink names none")
        return str(found)


def _adbc() -> ModuleType:
    try:
        from adbc_driver_postgresql import dbapi
    except ImportError:
        raise SinkError(
            "publishing to PostgreSQL needs the extra 'postgres': pip install 'airflow-provider-ai[postgres]'"
        ) from None
    module: ModuleType = dbapi
    return module


def _text(value: object) -> str | None:
    return value.decode(errors="replace") if isinstance(value, bytes) else None if value is None else str(value)


def libpq_uri(url: URL) -> str:
    """The URL in libpq's own form: scheme without driver, everything quoted, several hosts as libpq lists them."""
    arguments = {name: list(values) for name, values in url.normalized_query.items()}
    if "ssl" in arguments:  # asyncpg's and pg8000's name for it
        arguments.setdefault("sslmode", arguments["ssl"])
        del arguments["ssl"]
    if not url.host and "host" in arguments:
        hosts, ports = _hosts(arguments.pop("host"), arguments.pop("port", []), url.port)
        arguments |= {"host": [hosts], "port": [ports]}
    arguments.setdefault("connect_timeout", [str(_CONNECT_TIMEOUT_SECONDS)])
    arguments.setdefault("application_name", ["airflow-ai"])
    flat = {name: values[-1] for name, values in arguments.items()}
    return f"postgresql://{_authority(url)}/{quote(url.database or '', safe='')}?{urlencode(flat, quote_via=quote)}"


def _authority(url: URL) -> str:
    user = quote(url.username or "", safe="")
    if url.password is not None:
        user = f"{user}:{quote(str(url.password), safe='')}"
    host = url.host or ""
    place = f"[{host}]" if ":" in host else quote(host, safe="")
    port = f":{url.port}" if url.port and host else ""
    return f"{user}@{place}{port}" if user else f"{place}{port}"


def _hosts(hosts: Sequence[str], ports: Sequence[str], port: int | None) -> tuple[str, str]:
    """SQLAlchemy's ``host=a:1&host=b:2`` and ``host=a,b&port=1,2`` → libpq's two lists."""
    names = [name for item in hosts for name in item.split(",")]
    given = [number for item in ports for number in item.split(",")]
    pairs = [name.rpartition(":")[::2] if re.search(r"[^:/]:\d+$", name) else (name, "") for name in names]
    fallback = (given * len(pairs) if len(given) == 1 else given) or [str(port or 5432)] * len(pairs)
    return ",".join(host for host, _ in pairs), ",".join(
        number or default for (_, number), default in zip(pairs, fallback, strict=False)
    )


class PostgresqlSession(Session):
    """One ADBC connection."""

    schema: str
    index_options: ClassVar[Mapping[str, Any]] = {"postgresql_using": "brin"}

    def __init__(self, connection: Any, lock_wait_seconds: float) -> None:
        self.dialect = postgresql.dialect(paramstyle="numeric_dollar")  # type: ignore[no-untyped-call]
        self._connection = connection
        self.reusable = True
        self._lock_wait = f"{max(1, round(lock_wait_seconds * 1000))}ms"

    # --- statements

    def run(self, statement: Executable) -> list[tuple[Any, ...]]:
        if isinstance(statement, sa.schema.ExecutableDDLElement):
            return self.query(str(statement.compile(dialect=self.dialect)))
        compiled: Any = statement.compile(  # type: ignore[attr-defined]
            dialect=self.dialect, compile_kwargs={"render_postcompile": True}
        )
        return self.query(str(compiled), [compiled.params[name] for name in compiled.positiontup or ()])

    def query(self, text: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Execute a statement with ``$1``… placeholders."""
        with self._connection.cursor() as cursor:
            cursor.execute(text, list(parameters) or None)
            return [tuple(row) for row in cursor.fetchall()]

    def instant(self, moment: datetime) -> sa.ColumnElement[Any]:
        # As text: the driver puts a BEGIN and a COMMIT of its own around a timestamp with a zone, which commits ours.
        return sa.cast(sa.literal(moment.isoformat(), sa.Text()), sql_types.timestamp(zone=True))

    def begin(self, *, reading: bool) -> None:
        self.query(f"BEGIN ISOLATION LEVEL {'REPEATABLE READ READ ONLY' if reading else 'READ COMMITTED READ WRITE'}")
        self.query(f"SET LOCAL lock_timeout = '{self._lock_wait}'")
        if not reading:
            # Of a table that grew since it was last analysed, the planner does not believe that the index is of use.
            self.query("SET LOCAL enable_seqscan = off")

    def commit(self) -> None:
        self.query("COMMIT")

    def rollback(self) -> None:
        self.query("ROLLBACK")

    # --- tables

    def describe(self, table: str) -> Mapping[str, Column] | None:
        found = self.query(_DESCRIBE, [self.schema, table])
        if not found:
            return None
        if found[0][0] not in ("r", "p"):
            raise SinkError(f"{table!r} is a view, a foreign table or an index, not a table; a retry cannot help")
        return {name: _column(name, kind, spelled) for _, name, kind, spelled in found if name is not None}

    def column_types(self, fields: Sequence[Any]) -> list[TypeEngine[Any]]:
        return [_native_type(field) or sql_types.for_field(field) for field in fields]

    def index_wanted(self, table: str, *, created: bool) -> bool:
        if created:
            return False
        size, owned, there = self.query(_INDEX_STATE, [self.schema, table])[0]
        if there or size < INDEX_FROM_BYTES:
            return False
        if not owned:
            log.warning("table %r has no index on _partition and is not ours to index: every publish scans it", table)
        return bool(owned)

    def published(self, target: str) -> None:
        """Tell the index of what was loaded: until then, or until the next vacuum, it has to be scanned."""
        try:
            self.query(f"SET lock_timeout = '{_UPKEEP_WAIT}'")  # who has the lock is a vacuum, and does the same
            self.query(_SUMMARIZE, [self.schema, target])
            self.query("RESET lock_timeout")
        except Exception as error:  # noqa: BLE001 - the rows are committed, and the next vacuum makes up for it
            log.debug("the index on _partition of %r was not brought up to date: %s", target, type(error).__name__)
            self.reusable = False

    def load(self, table: sa.TableClause, columns: Sequence[Column], reader: Any, *, temporary: bool) -> None:
        place = {} if temporary else {"db_schema_name": self.schema}
        with self._connection.cursor() as cursor:
            cursor.adbc_ingest(str(table.name), reader, mode="append", temporary=temporary, **place)

    # --- locks

    def lock_tables(self, target: str) -> None:
        # One key for all targets of a schema: they share the marker table.
        self._lock("tables")

    def lock_publish(self, target: str, scope: str, partition: str) -> None:
        self._lock("scope", target, scope, shared=True)
        self._lock("partition", target, partition)

    def lock_commit(self, target: str, scope: str) -> bool:
        self._lock("commit", target, scope)
        return True

    def lock_prune(self, target: str, scope: str) -> None:
        self._lock("scope", target, scope)

    def _lock(self, *names: str, shared: bool = False) -> None:
        key = blake2b(json.dumps(["airflow-ai", self.schema, *names]).encode(), digest_size=8).digest()
        function = "pg_advisory_xact_lock_shared" if shared else "pg_advisory_xact_lock"
        self.query(f"SELECT 1 FROM {function}($1)", [int.from_bytes(key, signed=True)])  # noqa: S608 - one of two names


def _native_type(field: Any) -> TypeEngine[Any] | None:
    """Lists of floats are arrays, other lists and structs JSONB; ``None`` for all the rest."""
    kind = plain(field.type)
    family = family_of(kind)
    if family == "list" and str(kind.value_type) in ("float", "double"):
        return postgresql.ARRAY(sa.REAL() if str(kind.value_type) == "float" else sa.Double())
    return postgresql.JSONB() if family in ("list", "struct", "map") else None


_ACCEPTS: Mapping[str, Any] = {
    "boolean": pa.bool_(),
    "smallint": pa.int16(),
    "integer": pa.int32(),
    "bigint": pa.int64(),
    "real": pa.float32(),
    "double precision": pa.float64(),
    "text": pa.string(),
    "character varying": pa.string(),
    "character": pa.string(),
    "citext": pa.string(),
    "name": pa.string(),
    "json": pa.string(),
    "jsonb": pa.string(),
    "uuid": pa.string(),
    "bytea": pa.binary(),
    "date": pa.date32(),
    "time without time zone": pa.time64("us"),
    "timestamp without time zone": NAIVE,
    "timestamp with time zone": UTC,
}
_IN_ARRAYS = {"boolean", "smallint", "integer", "bigint", "real", "double precision", "text", "character varying"}
_NUMERIC = re.compile(r"numeric\((\d+),(-?\d+)\)")


def _column(name: str, kind: str, spelled: str) -> Column:
    base = re.sub(r"\(\d+\)", "", spelled)
    accepts = pa.string() if kind == "e" else _accepts(spelled, base)
    return Column(
        name=name,
        type_name=spelled,
        accepts=accepts,
        json=base in ("json", "jsonb"),
        open_scale=spelled == "numeric",
        encode=_encoding(name, base, accepts),
    )


def _accepts(spelled: str, base: str) -> Any:
    if base.endswith("[]"):
        return pa.list_(_ACCEPTS[base[:-2]]) if base[:-2] in _IN_ARRAYS else None
    if spelled == "numeric":
        return pa.decimal128(38, 0)
    if number := _NUMERIC.fullmatch(spelled):
        digits, scale = (int(part) for part in number.groups())
        return pa.decimal128(min(digits, 38), scale)
    return _ACCEPTS.get(base)


def _encoding(name: str, base: str, accepts: Any) -> Convert | None:
    """COPY takes each value in its type's binary form, which for these is not what the driver would write."""
    if base == "uuid":
        return uuid_bytes
    if base == "jsonb":
        return lambda array: _jsonb(without_json_nul(array))
    if base == "json":
        return without_json_nul
    return without_nul(name) if accepts is not None and pa.types.is_string(accepts) else None


def _jsonb(array: Any) -> Any:
    """jsonb's binary form is a version byte and the text."""
    values = [None if value is None else b"\x01" + value.encode() for value in array.to_pylist()]
    return pa.array(values, pa.binary())
