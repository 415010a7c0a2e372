"""From checkpoint segments to warehouse rows: one Arrow schema for the whole run, truthful provenance on every row.

Segments are typed by their own values, so two of them may disagree (``1`` here, ``0.5`` there). The schema of the run
is the narrowest that holds them all: int64 and double give double, anything with null gives the other, everything else
gives text (JSON text for objects).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from airflow_provider_ai.core.arrow_arrays import array_of, int64_array, numbers_of, repeated_text, text_array
from airflow_provider_ai.core.manifest import Manifest, Partition
from airflow_provider_ai.core.outcomes import OUTPUT_PREFIX

_CONSTANT = ("_run_id", "_partition", "_model", "_prompt_hash", "_schema_version")
_STORED = {"_record_key": "key", "_inferred_at": "inferred_at"}
MODEL = "model"  # of a table: what gave each row, where that is not the same for all of a run
_EMPTY_LISTS = "list<item: null>"
TIMESTAMP = pa.timestamp("us", tz="UTC")


@dataclass(frozen=True, slots=True, kw_only=True)
class Lineage:
    """What is the same on every row of a partition; ``model`` unless a table has its own (``MODEL``)."""

    run_id: str
    partition: str
    model: str
    prompt_hash: str
    schema_version: str


def output_types(columns: Iterable[tuple[str, str]], *, reserved: str) -> dict[str, pa.DataType]:
    """The type of every output column over all segments, in name order; ``reserved`` (the id column) is left out."""
    kinds: dict[str, set[str]] = {}
    for name, kind in columns:
        kinds.setdefault(name, set()).add(kind)
    kinds.pop(reserved, None)
    return {name: _common_type(kinds[name]) for name in sorted(kinds)}


def row_schema(manifest: Manifest, outputs: Mapping[str, pa.DataType]) -> pa.Schema:
    """The id, the outputs, the lineage."""
    return pa.schema(
        [
            pa.field(manifest.id_column, id_type(manifest)),
            *(pa.field(name, kind) for name, kind in outputs.items()),
            *(pa.field(name, pa.string()) for name in (*_CONSTANT, "_source_file")),
            pa.field("_source_row", pa.int64()),
            pa.field("_record_key", pa.string()),
            pa.field("_inferred_at", TIMESTAMP),
        ]
    )


def rows_of(
    tables: Iterable[pa.Table], schema: pa.Schema, manifest: Manifest, partition: Partition, lineage: Lineage
) -> Iterator[pa.RecordBatch]:
    """Warehouse rows of the segments' tables, in the schema of :func:`row_schema`."""
    sources = _Sources(manifest, partition)
    for table in tables:
        columns = [_row_column(field, table, sources, lineage, manifest.id_column) for field in schema]
        yield from pa.Table.from_arrays(columns, schema=schema).to_batches()


def id_type(manifest: Manifest) -> pa.DataType:
    """The id column's type in the warehouse: the dataset's where JSON can carry it, text otherwise."""
    text = dict(manifest.schema)[manifest.id_column]
    if text in ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32"):
        return pa.int64()
    return pa.date32() if text.startswith("date32") else pa.string()


class _Sources:
    """Row numbers of a partition → file and row in that file."""

    def __init__(self, manifest: Manifest, partition: Partition) -> None:
        sizes = [piece.rows for piece in partition.slices]
        self._ends = np.cumsum(np.array(sizes, dtype=np.int64))
        self._shift = np.array([piece.start for piece in partition.slices]) - (self._ends - np.array(sizes))
        self._paths = text_array([manifest.files[piece.file].path for piece in partition.slices])

    def file(self, rows: np.ndarray) -> pa.Array:
        return self._paths.take(int64_array(self._slices(rows)))

    def row(self, rows: np.ndarray) -> pa.Array:
        return int64_array(rows + self._shift[self._slices(rows)])

    def _slices(self, rows: np.ndarray) -> np.ndarray:
        return np.searchsorted(self._ends, rows, side="right")


def _row_column(
    field: pa.Field, table: pa.Table, sources: _Sources, lineage: Lineage, id_column: str
) -> pa.Array | pa.ChunkedArray:
    name, rows = field.name, numbers_of(table["row"])
    if name == id_column:
        return _cast(table["id"], field.type)
    if name == "_source_file":
        return sources.file(rows)
    if name == "_source_row":
        return sources.row(rows)
    if name in _STORED:
        return table[_STORED[name]]
    if name == "_model" and MODEL in table.column_names:
        return table[MODEL]
    if name in _CONSTANT:
        return repeated_text(getattr(lineage, name[1:]), len(table))
    column = OUTPUT_PREFIX + name
    return _cast(table[column], field.type) if column in table.column_names else pa.nulls(len(table), field.type)


def _cast(column: pa.ChunkedArray, target: pa.DataType) -> pa.ChunkedArray:
    if column.type == target:
        return column
    if pa.types.is_string(target) and (pa.types.is_nested(column.type) or pa.types.is_boolean(column.type)):
        return pa.chunked_array([_json_text(column.to_pylist())])
    return pc.cast(column, target, safe=not _floating(target))  # integers beyond 2^53: the nearest double


def _floating(kind: pa.DataType) -> bool:
    return bool(pa.types.is_floating(kind.value_type if pa.types.is_list(kind) else kind))


def _json_text(values: Sequence[object]) -> pa.Array:
    return array_of([None if value is None else orjson.dumps(value).decode() for value in values]).cast(pa.string())


def _common_type(kinds: set[str]) -> pa.DataType:
    known = kinds - {"null"}
    if any(kind != _EMPTY_LISTS and kind.startswith("list<") for kind in known):
        known.discard(_EMPTY_LISTS)
    if len(known) == 1:
        return _type(next(iter(known)))
    if not known:
        return pa.string()
    for numbers, result in (
        ({"int64", "double"}, pa.float64()),
        ({"list<item: int64>", "list<item: double>"}, pa.list_(pa.float64())),
    ):
        if known <= numbers:
            return result
    return pa.string()


def _type(text: str) -> pa.DataType:
    if text.startswith("list<item: ") and text.endswith(">"):
        return pa.list_(_type(text[len("list<item: ") : -1]))
    return {"int64": pa.int64(), "double": pa.float64(), "bool": pa.bool_()}.get(text, pa.string())
