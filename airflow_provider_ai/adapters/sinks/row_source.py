"""The stream of rows on its way into a driver: counted, checked, converted, sliced, and honest about who failed.

Drivers pull Arrow batches through a C interface that turns a Python error into text. The source remembers the original,
so that what went wrong upstream (a corrupt checkpoint, a SIGTERM) is raised as itself and not as a database error.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from airflow_provider_ai.adapters.sinks.arrow_types import Fit
from airflow_provider_ai.adapters.sinks.failures import NO_RETRY
from airflow_provider_ai.core.arrow_arrays import text_array
from airflow_provider_ai.core.ports import PublishUnit
from airflow_provider_ai.exceptions import SinkError

SLICE_ROWS = 64 * 1024
"""Most rows handed to a driver at once: what is converted is held twice."""


class RowSource:
    """The rows of one partition. Can be read once."""

    def __init__(self, unit: PublishUnit, schema: Any, batches: Iterable[Any]) -> None:
        self.unit = unit
        self.schema = schema
        self.error: BaseException | None = None
        self.rows = 0
        self._batches = batches

    def reader(self, fits: Sequence[Fit]) -> Any:
        """A pyarrow.RecordBatchReader of the table's columns; fails when more or fewer rows come than announced."""
        schema = pa.schema([pa.field(fit.column.name, fit.wire_type) for fit in fits])
        return pa.RecordBatchReader.from_batches(schema, self._remembering(fits, schema))

    def _remembering(self, fits: Sequence[Fit], schema: Any) -> Iterator[Any]:
        try:
            yield from self._converted(fits, schema)
        except GeneratorExit:
            raise
        except BaseException as error:
            self.error = error
            raise

    def _converted(self, fits: Sequence[Fit], schema: Any) -> Iterator[Any]:
        for batch in self._batches:
            self._check(batch)
            for start in range(0, batch.num_rows, SLICE_ROWS):
                piece = batch.slice(start, SLICE_ROWS)
                columns = [fit.convert(column) for fit, column in zip(fits, piece.columns, strict=True)]
                yield pa.RecordBatch.from_arrays(columns, schema=schema)
        if self.rows != self.unit.rows:
            raise self._wrong(f"{self.unit.rows} rows were announced, {self.rows} came")

    def _check(self, batch: Any) -> None:
        if batch.schema.names != self.schema.names or batch.schema.types != self.schema.types:
            raise self._wrong("a batch has another schema than was announced")
        self.rows += batch.num_rows
        if self.rows > self.unit.rows:
            raise self._wrong(f"{self.unit.rows} rows were announced, {self.rows} or more came")
        # Rows under another name would never be replaced again.
        own = text_array([self.unit.partition])[0]
        same = pc.all(pc.equal(batch.column("_partition"), own), skip_nulls=False).as_py()
        if batch.num_rows and same is not True:
            raise self._wrong("rows of another partition came")

    def _wrong(self, what: str) -> SinkError:
        return SinkError(f"partition {self.unit.partition!r}: {what}; the table is as it was, {NO_RETRY}")
