"""The store: what all processes share, in SQLite or PostgreSQL, as SQLAlchemy Core tables.

Importing this package loads no database client.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_provider_ai.exceptions import SpecError

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy.engine import URL

    from airflow_provider_ai.adapters.store.database import Database
    from airflow_provider_ai.adapters.store.store import Store
    from airflow_provider_ai.core.ports import Codec


def open_store(
    url: str,
    *,
    timeout_seconds: float = 1.0,
    clock: Callable[[], float] | None = None,
    codec: Codec | None = None,
) -> Store:
    """The store behind a SQLAlchemy URL, ``sqlite:///path`` or ``postgresql://…``. Connects on first use.

    :param timeout_seconds: of one statement, or of the wait for another writer; a connection gets 2 s at least
    :param clock: epoch seconds, for tests; ``None`` for the server's (PostgreSQL) or this machine's (SQLite)
    :param codec: between data and the database; ``None``: answers and dead letters are kept as they are
    :raises SpecError: for a URL that cannot be used
    """
    from airflow_provider_ai.adapters.store.store import Store

    return Store(_database(_parsed(url), timeout_seconds, clock), codec)


def _parsed(url: str) -> URL:
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        return make_url(url)
    except (ArgumentError, ValueError):
        raise SpecError("the store's url cannot be parsed as a SQLAlchemy URL") from None


def _database(url: URL, timeout_seconds: float, clock: Callable[[], float] | None) -> Database:
    backend = url.drivername.partition("+")[0]
    if backend == "sqlite":
        from airflow_provider_ai.adapters.store.sqlite import SqliteDatabase

        return SqliteDatabase(url, timeout_seconds=timeout_seconds, clock=clock)
    if backend in ("postgresql", "postgres"):
        try:
            from airflow_provider_ai.adapters.store.postgresql import PostgresqlDatabase
        except ImportError:
            raise SpecError("a PostgreSQL store needs psycopg 3: install airflow-provider-ai[postgres]") from None
        return PostgresqlDatabase(url, timeout_seconds=timeout_seconds, clock=clock)
    raise SpecError(f"the store's url must begin with sqlite: or postgresql:, got {backend!r}")
