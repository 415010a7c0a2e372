"""What a sink cannot beat: loading an Arrow table with nothing around it. No transaction of ours, no marker, no keys.

    python -m benchmarks.baselines.bare_copy --input rows.parquet --target duckdb:///out.duckdb

prints {"loads": [{"method", "rows", "seconds"}]} with one load per method. Timed is the load until the rows are where
they stay: PostgreSQL's commit, DuckDB's commit and the checkpoint when the file is closed. Connecting and creating the
table are not timed.
"""

from __future__ import annotations

import argparse
import io
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.csv as pc
import pyarrow.parquet as pq

_CSV_BLOCK = 1 << 20


def duckdb_insert(rows: pa.Table, path: str, table: str = "bare_duckdb") -> float:
    """Seconds of `INSERT … SELECT` from Arrow into an empty DuckDB table."""
    with duckdb.connect(path) as connection:
        connection.register("arrived", rows)
        connection.execute(f"CREATE TABLE {table} AS SELECT * FROM arrived LIMIT 0")  # noqa: S608 - our own name
        started = time.perf_counter()
        connection.execute(f"INSERT INTO {table} SELECT * FROM arrived")  # noqa: S608 - our own name
    return time.perf_counter() - started


def postgres_adbc(rows: pa.Table, uri: str, table: str = "bare_adbc") -> float:
    """Seconds of an ADBC ingest (binary COPY) into an empty PostgreSQL table."""
    from adbc_driver_postgresql import dbapi

    with dbapi.connect(uri) as connection, connection.cursor() as cursor:
        cursor.adbc_ingest(table, rows.slice(0, 0), mode="create")
        connection.commit()
        started = time.perf_counter()
        cursor.adbc_ingest(table, rows, mode="append")
        connection.commit()
        return time.perf_counter() - started


def postgres_copy(rows: pa.Table, uri: str, table: str = "bare_copy") -> float:
    """Seconds of psycopg's COPY of CSV made by pyarrow, into an empty PostgreSQL table."""
    import psycopg
    from adbc_driver_postgresql import dbapi

    with dbapi.connect(uri) as connection, connection.cursor() as cursor:
        cursor.adbc_ingest(table, rows.slice(0, 0), mode="create")
        connection.commit()
    with psycopg.connect(uri) as session, session.cursor() as writer:
        started = time.perf_counter()
        with writer.copy(f"COPY {table} FROM STDIN (FORMAT csv)".encode()) as copy:
            for batch in rows.to_batches(max_chunksize=50_000):
                copy.write(_csv(batch))
        session.commit()
        return time.perf_counter() - started


def loads(rows: pa.Table, target: str) -> list[dict[str, Any]]:
    """Every method for a target URL, `duckdb:///path` or `postgresql://…`, each timed once."""
    methods: dict[str, Callable[[], float]]
    if target.startswith("duckdb:///"):
        methods = {"insert": lambda: duckdb_insert(rows, target.removeprefix("duckdb:///"))}
    else:
        methods = {"adbc": lambda: postgres_adbc(rows, target), "copy": lambda: postgres_copy(rows, target)}
    return [{"method": name, "rows": rows.num_rows, "seconds": load()} for name, load in methods.items()]


def _csv(batch: pa.RecordBatch) -> bytes:
    buffer = io.BytesIO()
    pc.write_csv(batch, buffer, pc.WriteOptions(include_header=False, batch_size=_CSV_BLOCK))
    return buffer.getvalue()


def main(arguments: list[str] | None = None) -> None:
    """Load a parquet file and print the times."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.baselines.bare_copy")
    parser.add_argument("--input", type=Path, required=True)
    parser.add_argument("--target", required=True)
    options = parser.parse_args(arguments)
    print(json.dumps({"loads": loads(pq.read_table(options.input), options.target)}))


if __name__ == "__main__":
    main()
