"""Parquet: footers for planning, bounded column streams for ids and rows.

Memory does not follow the row group: a column chunk is read through a small buffer (``pre_buffer=False``,
``buffer_size``), page by page, and only the columns asked for. Row groups without a pending row are never read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import accumulate, pairwise
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import types as pt

from airflow_provider_ai.adapters.datasets.formats import (
    BlockBounds,
    DataFile,
    FileFacts,
    IdBatch,
    Rows,
    Window,
    blocks_of,
    row_range,
    steps,
    unreadable,
)
from airflow_provider_ai.adapters.filesystems import is_local
from airflow_provider_ai.core.arrow_arrays import int64_array
from airflow_provider_ai.core.ports import RowBlock
from airflow_provider_ai.exceptions import InputError, UnreadableFileError

ID_BATCH = BlockBounds(rows=1 << 16, bytes=4 << 20)
LOCAL_BUFFER_BYTES = 128 << 10
REMOTE_BUFFER_BYTES = 1 << 20  # each fill is a request
NOT_PARQUET = "not a Parquet file, or truncated or damaged"


class ParquetFormat:
    """Kinds are Arrow types."""

    def scan(self, file: DataFile, id_column: str, take: Callable[[IdBatch], None]) -> FileFacts:
        """Read the footer, and of the data the id column only."""
        with _opened(file) as parquet:
            schema, metadata = parquet.schema_arrow, parquet.metadata
            if len(set(schema.names)) < len(schema.names):
                raise UnreadableFileError(f"{file.path}: two columns have the same name")
            groups = tuple(metadata.row_group(i).num_rows for i in range(metadata.num_row_groups))
            if id_column in schema.names:
                for start, values in _column(parquet, id_column):
                    take(IdBatch(row_range(start, len(values)), values))
        columns = dict(zip(schema.names, schema.types, strict=True))
        return FileFacts(rows=metadata.num_rows, row_groups=groups, columns=columns)

    def widen(self, one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
        """Null → any, narrower → wider number, integer → float, text and binary of any layout, nested alike."""
        one, other = _plain(one), _plain(other)
        if one == other or pt.is_null(other):
            return one
        if pt.is_null(one):
            return other
        for family in (_is_text, _is_binary):
            if family(one) and family(other):
                return max(one, other, key=lambda kind: str(kind).startswith("large"))
        if not _same_family(one, other):
            return None
        return _promoted(one, other)

    def describe(self, kind: pa.DataType) -> str:
        """Arrow's name of the type."""
        return str(kind)

    def holds(self, file: DataFile, column: str, own: pa.DataType, planned: pa.DataType) -> bool:
        """Only 64-bit integers as floats are in doubt: beyond 2^53 they would be rounded."""
        if not (pt.is_integer(own) and own.bit_width == 64 and pt.is_floating(planned)):
            return True
        with _opened(file) as parquet:
            return all(_fits_float(values) for _, values in _column(parquet, column))

    def read(
        self, file: DataFile, columns: Sequence[str], kinds: Mapping[str, str], window: Window, bounds: BlockBounds
    ) -> Iterator[RowBlock]:
        """Row groups with pending rows only; within them, batches up to the window's end."""
        with _opened(file) as parquet:
            present = [name for name in columns if name in parquet.schema_arrow.names]
            for start, batch in _batches(parquet, present, window, bounds):
                pending = window.pending(start, start + batch.num_rows)
                if len(pending):
                    yield from _row_blocks(file, batch, start, pending, columns, kinds, window, bounds)


def _row_blocks(
    file: DataFile,
    batch: pa.RecordBatch,
    start: int,
    pending: Rows,
    columns: Sequence[str],
    kinds: Mapping[str, str],
    window: Window,
    bounds: BlockBounds,
) -> Iterator[RowBlock]:
    """Done rows go before anything becomes a Python object."""
    if len(pending) < batch.num_rows:
        batch = batch.take(int64_array(pending - start))
    for a, b in steps(batch.num_rows, batch.nbytes, bounds):
        part = batch.slice(a, b - a)
        values = {
            name: _values(file, name, part.column(name), kinds[name]) if name in part.schema.names else [None] * (b - a)
            for name in columns
        }
        yield blocks_of(window.numbers(pending[a:b]), values)


@contextmanager
def _opened(file: DataFile) -> Iterator[pq.ParquetFile]:
    size = LOCAL_BUFFER_BYTES if is_local(file.filesystem) else REMOTE_BUFFER_BYTES
    with unreadable(file.path, NOT_PARQUET), file.filesystem.open_input_file(file.path) as source:
        if source.size() == 0:
            raise UnreadableFileError(f"{file.path}: empty (0 bytes), not a Parquet file")
        with pq.ParquetFile(source, pre_buffer=False, buffer_size=size) as parquet:
            yield parquet


def _column(parquet: pq.ParquetFile, name: str) -> Iterator[tuple[int, pa.Array]]:
    """One column in small pieces, each with its first row."""
    start = 0
    groups = range(parquet.metadata.num_row_groups)
    rows = _batch_rows(parquet.metadata, groups, [name], ID_BATCH)
    for batch in parquet.iter_batches(rows, row_groups=list(groups), columns=[name], use_threads=False):
        yield start, batch.column(name)
        start += batch.num_rows


def _batches(
    parquet: pq.ParquetFile, columns: list[str], window: Window, bounds: BlockBounds
) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Batches of the row groups that have pending rows, each with its first row; ends with the window."""
    metadata = parquet.metadata
    edges = list(accumulate((metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)), initial=0))
    for groups in _runs(i for i, (a, b) in enumerate(pairwise(edges)) if not window.finished(a, b)):
        start = edges[groups[0]]
        rows = _batch_rows(metadata, groups, columns, bounds)
        for batch in parquet.iter_batches(rows, row_groups=groups, columns=columns, use_threads=False):
            yield start, batch
            start += batch.num_rows
            if start >= window.end:
                return


def _runs(numbers: Iterable[int]) -> list[list[int]]:
    """Ascending numbers as runs of neighbours."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and runs[-1][-1] == number - 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return runs


def _batch_rows(metadata: pq.FileMetaData, groups: Sequence[int], columns: Sequence[str], bounds: BlockBounds) -> int:
    """Rows per batch within the bounds, judged by the row group whose rows are widest."""
    if not groups:
        return bounds.rows
    wanted = set(columns)
    first = metadata.row_group(groups[0])
    leaves = [i for i in range(first.num_columns) if _top_level(first.column(i).path_in_schema, wanted)]
    rows = bounds.rows
    for group in map(metadata.row_group, groups):
        size = sum(group.column(i).total_uncompressed_size for i in leaves)
        rows = min(rows, max(1, group.num_rows * bounds.bytes // max(size, 1)))
    return int(rows)


def _top_level(path: str, wanted: set[str]) -> bool:
    return path in wanted or path.partition(".")[0] in wanted


def _values(file: DataFile, name: str, column: pa.Array, kind: str) -> list[Any]:
    """A column as Python objects, of the planned kind."""
    if pt.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pt.is_integer(column.type) and kind in ("halffloat", "float", "double"):
        column = _as_float(file, name, column, kind)
    elif pt.is_timestamp(column.type) and column.type.unit == "ns":
        column = _in_microseconds(column)
    return list(column.to_pylist())


def _as_float(file: DataFile, name: str, column: pa.Array, kind: str) -> pa.Array:
    try:
        return column.cast(pa.float64())
    except pa.ArrowInvalid:
        raise InputError(f"{file.path}: column {name!r} is {column.type} and does not fit {kind} unchanged") from None


def _in_microseconds(column: pa.Array) -> pa.Array:
    """Plain ``datetime`` where that loses nothing; otherwise pandas' timestamps, which keep the nanoseconds."""
    try:
        return column.cast(pa.timestamp("us", column.type.tz))
    except pa.ArrowInvalid:
        return column


def _fits_float(values: pa.Array) -> bool:
    try:
        values.cast(pa.float64())
    except pa.ArrowInvalid:
        return False
    return True


def _plain(kind: pa.DataType) -> pa.DataType:
    """A dictionary is a way to store its values."""
    return kind.value_type if pt.is_dictionary(kind) else kind


def _is_text(kind: pa.DataType) -> bool:
    return bool(pt.is_string(kind) or pt.is_large_string(kind) or pt.is_string_view(kind))


def _is_binary(kind: pa.DataType) -> bool:
    return bool(pt.is_binary(kind) or pt.is_large_binary(kind) or pt.is_binary_view(kind))


def _same_family(one: pa.DataType, other: pa.DataType) -> bool:
    """Whether Arrow's promotion of the two loses nothing."""
    if pt.is_integer(one) and pt.is_integer(other):
        unsigned, signed = sorted((one, other), key=pt.is_signed_integer)
        return bool(pt.is_unsigned_integer(signed) or pt.is_signed_integer(unsigned) or unsigned.bit_width < 64)
    exact = (pt.is_integer, pt.is_decimal)
    numbers = (pt.is_integer, pt.is_floating)
    alike = (pt.is_timestamp, pt.is_date, pt.is_time, pt.is_duration, pt.is_nested)
    families = (*((test,) for test in alike), exact, numbers)
    return any(all(any(test(kind) for test in family) for kind in (one, other)) for family in families)


def _promoted(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    fields = [pa.schema([("column", kind)]) for kind in (one, other)]
    try:
        return pa.unify_schemas(fields, promote_options="permissive").field("column").type
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        return None
