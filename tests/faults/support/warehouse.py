"""What stands in the target table, read with the database's own driver and none of the product's code."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import psycopg

Row = dict[str, Any]
TABLE = "predictions"


def read_rows(url: str, table: str = TABLE) -> list[Row]:
    """Every row of a table; empty when there is no such table or no such database."""
    scheme, _, rest = url.partition("://")
    return _READERS[scheme.split("+")[0]](rest, table)


def _read_duckdb(rest: str, table: str) -> list[Row]:
    if not Path(rest[1:]).exists():
        return []
    with duckdb.connect(rest[1:], read_only=True) as connection:
        if (table,) not in connection.execute("SELECT table_name FROM information_schema.tables").fetchall():
            return []
        return list(connection.sql(f"SELECT * FROM {table}").to_arrow_table().to_pylist())


def _read_sqlite(rest: str, table: str) -> list[Row]:
    if not Path(rest[1:]).exists():
        return []
    with sqlite3.connect(rest[1:]) as connection:
        connection.row_factory = sqlite3.Row
        if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (table,)).fetchone():
            return []
        return [dict(row) for row in connection.execute(f"SELECT * FROM {table}")]


def _read_postgres(rest: str, table: str) -> list[Row]:
    with psycopg.connect(f"postgresql://{rest}", row_factory=psycopg.rows.dict_row) as connection:
        there = connection.execute("SELECT to_regclass(%s) IS NOT NULL AS there", (table,)).fetchone()
        return list(connection.execute(f"SELECT * FROM {table}")) if there and there["there"] else []


_READERS: dict[str, Callable[[str, str], list[Row]]] = {
    "duckdb": _read_duckdb,
    "sqlite": _read_sqlite,
    "postgresql": _read_postgres,
}
