"""Warehouse tables: one publish protocol over PostgreSQL, DuckDB, SQLite and whatever else SQLAlchemy speaks.

Importing this package loads no database client: a worker that only infers pays nothing for the warehouse.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_provider_ai.core.config import SinkSettings
from airflow_provider_ai.exceptions import SinkError

if TYPE_CHECKING:
    from sqlalchemy.engine import URL

    from airflow_provider_ai.adapters.sinks.session import Warehouse
    from airflow_provider_ai.core.ports import Sink


def open_sink(settings: SinkSettings, *, lock_wait_seconds: float = 60.0) -> Sink:
    """The sink behind a SQLAlchemy URL. Connects on first use.

    :param lock_wait_seconds: how long one operation waits for another publisher before SinkUnavailableError
    :raises SinkError: for a URL that cannot be used, an in-memory database or a driver that is not installed
    """
    from airflow_provider_ai.adapters.sinks.table_sink import TableSink

    return TableSink(settings, _warehouse(_parsed(settings.url), lock_wait_seconds))


def _parsed(url: str) -> URL:
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        return make_url(url)
    except (ArgumentError, ValueError):
        raise SinkError("the sink's url cannot be parsed as a SQLAlchemy URL; a retry cannot help") from None


def _warehouse(url: URL, lock_wait_seconds: float) -> Warehouse:
    backend, _, driver = url.drivername.partition("+")
    if backend in ("postgresql", "postgres"):
        from airflow_provider_ai.adapters.sinks.postgresql_warehouse import PostgresqlWarehouse

        return PostgresqlWarehouse(url, lock_wait_seconds)
    if backend == "duckdb":
        from airflow_provider_ai.adapters.sinks.duckdb_warehouse import DuckdbWarehouse

        return DuckdbWarehouse(url, lock_wait_seconds)
    # Encrypted SQLite files need the driver that can read them.
    if backend == "sqlite" and driver in ("", "pysqlite", "aiosqlite"):
        from airflow_provider_ai.adapters.sinks.sqlite_warehouse import SqliteWarehouse

        return SqliteWarehouse(url, lock_wait_seconds)
    from airflow_provider_ai.adapters.sinks.sqlalchemy_warehouse import SqlalchemyWarehouse

    return SqlalchemyWarehouse(url)
