"""What the tests of all warehouses share: rows to publish, and a table read with none of the product's code."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import duckdb
import pyarrow as pa
import sqlalchemy as sa
from sqlalchemy.engine import URL

from airflow_provider_ai.adapters.sinks import open_sink
from airflow_provider_ai.adapters.sinks.sqlalchemy_warehouse import SqlalchemyWarehouse
from airflow_provider_ai.adapters.sinks.table_sink import TableSink
from airflow_provider_ai.core.config import SinkSettings
from airflow_provider_ai.core.ports import PublishUnit, Sink
from airflow_provider_ai.patterns.lineage import TIMESTAMP

SCOPE = "visits-1"
TABLE = "scores"
FIRST, SECOND, ROWS = "a/0", "a/1", 100
"""Two partitions of so many rows."""
_TEXT_LINEAGE = ("_run_id", "_partition", "_model", "_prompt_hash", "_schema_version", "_source_file")


def rows(ids: Iterable[int], partition: str, **columns: pa.Array) -> pa.Table:
    """Rows as a run brings them; ``columns`` come behind the id, or replace ``score``."""
    numbers = list(ids)
    given = {"score": pa.array([float(number) for number in numbers], pa.float64()), **columns}
    return pa.table(
        {
            "visit_id": pa.array(numbers, pa.int64()),
            **given,
            **{name: _repeated(partition if name == "_partition" else name, numbers) for name in _TEXT_LINEAGE},
            "_source_row": pa.array(numbers, pa.int64()),
            "_record_key": pa.array([f"key-{number}" for number in numbers], pa.string()),
            "_inferred_at": pa.array([datetime(2026, 1, 1, tzinfo=UTC)] * len(numbers), TIMESTAMP),
        }
    )


def _repeated(value: str, numbers: list[int]) -> pa.Array:
    return pa.array([value] * len(numbers), pa.string())


def unit(partition: str, count: int, *, content: str = "c1", plan: str = "p1") -> PublishUnit:
    """What a publisher says of a partition."""
    return PublishUnit(scope=SCOPE, partition=partition, plan=plan, content=content, rows=count, run_id="r")


def publish(sink: Sink, table: pa.Table, *, partition: str | None = None, **names: str) -> int:
    """Publish the rows of :func:`rows` as the partition they name; ``names`` as for :func:`unit`."""
    name = partition or table["_partition"][0].as_py()
    return sink.publish(unit(name, len(table), **names), table.schema, table.to_batches(max_chunksize=100))


def publish_both(url: str) -> list[int]:
    """Publish the partitions :data:`FIRST` and :data:`SECOND` with the product's sink; rows written of each."""
    sink = TestWarehouse(url=url).sink()
    return [publish(sink, rows(range(start, start + ROWS), name)) for name, start in ((FIRST, 0), (SECOND, ROWS))]


@dataclass(frozen=True, slots=True, kw_only=True)
class TestWarehouse:
    """A warehouse under test.

    :param generic: publish through SQLAlchemy alone, as into a database that has no sink of its own
    """

    __test__ = False

    url: str
    generic: bool = False

    def sink(self, table: str = TABLE, *, schema: str | None = None, **options: float) -> Sink:
        """The product's sink; ``options`` as for :func:`open_sink`."""
        settings = SinkSettings(url=self.url, table=table, schema=schema)
        if self.generic:
            return TableSink(settings, SqlalchemyWarehouse(self._through_psycopg))
        return open_sink(settings, **options)

    def with_url(self, change: Callable[[URL], URL]) -> TestWarehouse:
        """The same warehouse under a changed URL."""
        url = change(sa.make_url(self.url)).render_as_string(hide_password=False)
        return TestWarehouse(url=url, generic=self.generic)

    def execute(self, statements: str) -> None:
        """Run statements as somebody else, and commit."""
        self._sql(statements)

    def read(self, query: str) -> list[tuple[Any, ...]]:
        """Rows of a query."""
        return self._sql(query)

    def ids(self) -> list[int]:
        """What is in the table."""
        return [row[0] for row in self.read(f"SELECT visit_id FROM {TABLE} ORDER BY visit_id")]

    @property
    def _through_psycopg(self) -> URL:
        url = sa.make_url(self.url)
        return url.set(drivername="postgresql+psycopg") if url.get_backend_name() == "postgresql" else url

    def _sql(self, text: str) -> list[tuple[Any, ...]]:
        if self.url.startswith("duckdb:///"):
            self.sink().close()  # the file stays open for a while after a publish
            with duckdb.connect(self.url.removeprefix("duckdb:///")) as connection:
                return connection.execute(text).fetchall()
        engine = sa.create_engine(self._through_psycopg)
        try:
            with engine.begin() as connection:
                result = connection.exec_driver_sql(text)
                return [tuple(row) for row in result] if result.returns_rows else []
        finally:
            engine.dispose()
