"""The answer of a synchronous call → rows of a warehouse table that say what they are.

One row per record, with the output's columns, ``_degraded``, ``_reason`` and ``_source`` of the answer, and the lineage
columns of a batch. The rows of one call belong together: publishing again under the same key replaces them, so a retry
leaves one copy. ``_record_key`` is made from the key, never from the record.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import orjson
import pyarrow as pa

from airflow_provider_ai.adapters.sinks import open_sink
from airflow_provider_ai.core.config import SinkSettings
from airflow_provider_ai.core.identity import digest, record_key
from airflow_provider_ai.core.ports import PublishUnit

_SCALARS = (bool, int, float, str)


def publish_answer(answer: Mapping[str, Any], output: Any, sink: SinkSettings, *, key: str, run_id: str) -> int:
    """Publish one answer in one transaction; rows written, 0 when they stand there already.

    :param answer: :meth:`Answer.to_dict`
    :param output: its output: a record's columns, or a list of them; anything else goes into a column ``output``
    :param key: names the call, the same in every try: DAG, run and task
    :param run_id: for the lineage
    :raises SinkError: when the table cannot take the rows
    """
    unit, table = _rows(answer, output, key, run_id)
    opened = open_sink(sink)
    try:
        return opened.publish(unit, table.schema, table.to_batches())
    finally:
        opened.close()


def _rows(answer: Mapping[str, Any], output: Any, key: str, run_id: str) -> tuple[PublishUnit, pa.Table]:
    scope = f"call-{digest('call', key, length=16)}"
    records = [_columns(record) for record in (output if _is_list(output) else [output])]
    names = sorted({name for record in records for name in record})
    columns: dict[str, pa.Array] = {name: pa.array([record.get(name) for record in records]) for name in names}
    columns |= _provenance(answer, scope, key, run_id, len(records))
    content = digest(answer.get("degraded"), answer.get("reason"), answer.get("source"), answer.get("model"), records)
    unit = PublishUnit(scope=scope, partition=scope, plan="call", content=content, rows=len(records), run_id=run_id)
    return unit, pa.table(columns)


def _provenance(answer: Mapping[str, Any], scope: str, key: str, run_id: str, rows: int) -> dict[str, pa.Array]:
    def text(value: str | None) -> pa.Array:
        return pa.array([value] * rows, pa.string())

    return {
        "_degraded": pa.array([answer["degraded"]] * rows, pa.bool_()),
        "_reason": text(answer["reason"]),
        "_source": text(answer["source"]),
        "_run_id": text(run_id),
        "_partition": text(scope),
        "_model": text(answer["model"]),
        "_record_key": pa.array([record_key(f"{key}/{number}") for number in range(rows)], pa.string()),
        "_inferred_at": pa.array([datetime.now(UTC)] * rows, pa.timestamp("us", tz="UTC")),
    }


def _columns(record: Any) -> dict[str, Any]:
    """Scalars as they are, the rest as JSON text; a null is left out, for it has no type."""
    given = record if isinstance(record, Mapping) else {"output": record}
    return {
        name: value if isinstance(value, _SCALARS) else orjson.dumps(value).decode()
        for name, value in given.items()
        if value is not None
    }


def _is_list(output: Any) -> bool:
    return isinstance(output, Sequence) and not isinstance(output, str | bytes)
