"""A warehouse table in memory."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from airflow_provider_ai.core.ports import Publication, PublishUnit
from airflow_provider_ai.exceptions import SinkError, SinkUnavailableError

if TYPE_CHECKING:
    import pyarrow as pa


class InMemorySink:
    """A warehouse table in memory. ``available = False`` makes it raise SinkUnavailableError until it is True again."""

    def __init__(self) -> None:
        self.available = True
        self.publishes = 0
        self._scopes: dict[str, dict[str, tuple[PublishUnit, list[dict[str, Any]]]]] = {}

    @property
    def rows(self) -> list[dict[str, Any]]:
        """Every row of the table."""
        units = (unit for partitions in self._scopes.values() for unit in partitions.values())
        return [row for _, rows in units for row in rows]

    def publish(self, unit: PublishUnit, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> int:
        """Replace the partition's rows and marker; when a batch fails to come, nothing has changed."""
        self._require_available()
        rows: list[dict[str, Any]] = []
        for batch in batches:
            if batch.schema != schema:
                raise SinkError("a batch does not have the schema that was announced")
            rows += batch.to_pylist()
        self._require_available()
        if len(rows) != unit.rows:
            raise SinkError(f"{unit.rows} rows were announced for partition {unit.partition}, {len(rows)} came")
        self._scopes.setdefault(unit.scope, {})[unit.partition] = (unit, rows)
        self.publishes += 1
        return len(rows)

    def publications(self, scope: str) -> dict[str, Publication]:
        """What stands in the table for a scope."""
        self._require_available()
        return {
            name: Publication(
                partition=name, plan=unit.plan, content=unit.content, rows=unit.rows, rows_present=len(rows)
            )
            for name, (unit, rows) in self._scopes.get(scope, {}).items()
        }

    def prune(self, scope: str, *, plan: str) -> int:
        """Remove the partitions of other plans; rows removed."""
        self._require_available()
        partitions = self._scopes.get(scope, {})
        old = [name for name, (unit, _) in partitions.items() if unit.plan != plan]
        return sum(len(partitions.pop(name)[1]) for name in old)

    def close(self) -> None:
        """Nothing to release."""

    def _require_available(self) -> None:
        if not self.available:
            raise SinkUnavailableError("the warehouse is down")
