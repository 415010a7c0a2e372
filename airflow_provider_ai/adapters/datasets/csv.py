"""CSV: comma-separated, UTF-8, a header line, quoted fields may hold line breaks; compressed files by their suffix.

A column's kind comes from every value of every file, never from the first block: ``int64``, ``double`` or ``bool``
where all values are, else ``string`` as written. Numbers with leading zeros are text, because the zeros mean
something; dates are text too. An empty field is null (a quoted one is empty text); in columns of numbers and booleans
so are the usual spellings (``NA``, ``NULL``, ``nan``, …). Planning and reading convert with the same function.

CSV has no index: the rows of a partition are reached by parsing and dropping those before them.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from airflow_provider_ai.adapters.datasets.formats import (
    BlockBounds,
    DataFile,
    FileFacts,
    IdBatch,
    Window,
    blocks_of,
    row_range,
    steps,
    unreadable,
)
from airflow_provider_ai.core.arrow_arrays import int64_array, text_array
from airflow_provider_ai.core.ports import RowBlock
from airflow_provider_ai.exceptions import UnreadableFileError

Kind = Literal["null", "bool", "int53", "int64", "double", "string"]
BLOCK_BYTES = 4 << 20
NULLS = ("", "NA", "N/A", "n/a", "NULL", "null", "NaN", "nan", "None", "#N/A")
BOOLEANS = ("true", "false")
NOT_A_NUMBER = r"[^0-9eE.+-]|^[+-]?0[0-9]"
MANY_DIGITS = r"^[+-]?[0-9]{16,}$"
EXACT_IN_FLOAT = 1 << 53
NOT_CSV = (
    "not readable as CSV: no header line, not UTF-8, damaged, or a row is longer than "
    f"{BLOCK_BYTES >> 20} MiB (is a quote never closed?)"
)


class CsvFormat:
    """``int53``: whole numbers that a float holds exactly, so that they may join a column of floats."""

    def scan(self, file: DataFile, id_column: str, take: Callable[[IdBatch], None]) -> FileFacts:
        """Go through all columns once."""
        names = _header(file)
        kinds: dict[str, Kind] = dict.fromkeys(names, "null")
        rows = 0
        for batch in _batches(file, names):
            for name in names:
                kinds[name] = self._narrowest(batch.column(name), kinds[name], canonical=name == id_column)
            if id_column in kinds:
                take(IdBatch(row_range(rows, batch.num_rows), batch.column(id_column)))
            rows += batch.num_rows
        return FileFacts(rows=rows, columns=kinds)

    def widen(self, one: Kind, other: Kind) -> Kind:
        """Never impossible: everything is text in the end."""
        kinds = {one, other} - {"null"}
        if len(kinds) < 2:
            return kinds.pop() if kinds else "null"
        if kinds == {"int53", "int64"}:
            return "int64"
        return "double" if kinds == {"int53", "double"} else "string"

    def describe(self, kind: Kind) -> str:
        """The Arrow name."""
        return "int64" if kind == "int53" else kind

    def holds(self, file: DataFile, column: str, own: Any, planned: Any) -> bool:
        """Kinds are chosen so that they do."""
        return True

    def read(
        self, file: DataFile, columns: Sequence[str], kinds: Mapping[str, str], window: Window, bounds: BlockBounds
    ) -> Iterator[RowBlock]:
        """Parse from the top; convert only pending rows."""
        start = 0
        for batch in _batches(file, columns):
            pending = window.pending(start, start + batch.num_rows)
            if len(pending):
                wanted = batch if len(pending) == batch.num_rows else batch.take(int64_array(pending - start))
                for a, b in steps(wanted.num_rows, wanted.nbytes, bounds):
                    part = wanted.slice(a, b - a)
                    values = {name: convert(part.column(name), kinds[name]).to_pylist() for name in columns}
                    yield blocks_of(window.numbers(pending[a:b]), values)
            start += batch.num_rows
            if start >= window.end:
                return

    def _narrowest(self, values: pa.Array, known: Kind, *, canonical: bool) -> Kind:
        return known if known == "string" else self.widen(known, _kind(values, canonical=canonical))


def convert(values: pa.Array, kind: str) -> pa.Array:
    """Text as values of a kind; ArrowInvalid when a value is not of that kind."""
    if kind == "string":
        return values
    known = _known(values)
    if kind == "null":
        return pa.nulls(len(values))
    if kind == "bool":
        return pc.ascii_lower(known).cast(pa.bool_())
    return known.cast(kind)


def _known(values: pa.Array) -> pa.Array:
    """Text without surrounding blanks, and null where it is a spelling of null."""
    trimmed = pc.ascii_trim_whitespace(values)
    return pc.if_else(pc.is_in(trimmed, value_set=_words(NULLS)), pa.nulls(len(trimmed), pa.string()), trimmed)


@cache
def _words(words: tuple[str, ...]) -> pa.Array:
    return text_array(words)


def _kind(values: pa.Array, *, canonical: bool) -> Kind:
    """The narrowest kind of some values. ``canonical``: whole numbers only if written in their one shortest form."""
    known = values.drop_null() if canonical else _known(values).drop_null()
    if not len(known):
        return "null"
    if canonical:
        plain = pc.all(pc.match_substring_regex(known, r"^(0|-?[1-9][0-9]*)$")).as_py()
        return "int64" if plain and _cast(known, pa.int64()) is not None else "string"
    if not pc.any(pc.match_substring_regex(known, NOT_A_NUMBER)).as_py():
        return _number_kind(known)
    return "bool" if pc.all(pc.is_in(pc.ascii_lower(known), value_set=_words(BOOLEANS))).as_py() else "string"


def _number_kind(text: pa.Array) -> Kind:
    if _cast(text, pa.int64()) is not None:
        return "int53" if _exact_in_float(text) else "int64"
    numbers = _cast(text, pa.float64())
    if numbers is None or not pc.all(pc.is_finite(numbers)).as_py():
        return "string"
    return "double" if _exact_in_float(text.filter(pc.match_substring_regex(text, MANY_DIGITS))) else "string"


def _exact_in_float(text: pa.Array) -> bool:
    """Whether all these whole numbers are at most 2^53 in size."""
    whole = _cast(text, pa.int64())
    return whole is not None and (pc.max(pc.abs(whole)).as_py() or 0) <= EXACT_IN_FLOAT


def _cast(text: pa.Array, kind: pa.DataType) -> pa.Array | None:
    try:
        return text.cast(kind)
    except pa.ArrowInvalid:
        return None


def _header(file: DataFile) -> list[str]:
    with _opened(file, None) as (reader, _):
        names = list(reader.schema.names)
    if len(set(names)) < len(names):
        raise UnreadableFileError(f"{file.path}: its first line must name every column once (is it a header?)")
    return names


def _batches(file: DataFile, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """The file as text columns, block by block; columns it lacks are null."""
    last = None
    with _opened(file, columns) as (reader, source):
        for last in reader:
            yield last
    if last and source.quotes % 2 and (last.column(-1)[-1].as_py() or "").endswith("\n"):
        raise UnreadableFileError(
            f"{file.path}: ends inside a quoted field; it is truncated, or a quote is never closed"
        )


@contextmanager
def _opened(file: DataFile, columns: Sequence[str] | None) -> Iterator[tuple[csv.CSVStreamingReader, _CountedSource]]:
    ragged = _RaggedRow()
    convert_options = csv.ConvertOptions(
        column_types=dict.fromkeys(columns or (), pa.string()),
        include_columns=list(columns or ()),
        include_missing_columns=True,
        null_values=[""],
        strings_can_be_null=True,
        quoted_strings_can_be_null=False,
    )
    try:
        with unreadable(file.path, NOT_CSV), file.filesystem.open_input_stream(file.path) as stream:
            source = _CountedSource(stream)
            with csv.open_csv(
                pa.PythonFile(source, mode="r"),
                read_options=csv.ReadOptions(use_threads=False, block_size=BLOCK_BYTES),
                parse_options=csv.ParseOptions(newlines_in_values=True, invalid_row_handler=ragged),
                convert_options=convert_options,
            ) as reader:
                yield reader, source
    except UnreadableFileError:
        if ragged.found:
            raise UnreadableFileError(f"{file.path}: {ragged.found}") from None
        raise


class _CountedSource(io.RawIOBase):
    """The file's text, its last line ended, its quotes counted.

    The parser takes a file of one unended line for an empty one, and a file that ends inside a quoted field for a good
    one. Quotes come in pairs where every quoted field is closed.
    """

    def __init__(self, stream: pa.NativeFile) -> None:
        super().__init__()
        self.quotes = 0
        self._stream = stream
        self._last = b"\n"

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        data = bytes(self._stream.read(size))
        while 0 < len(data) < size and (more := self._stream.read(size - len(data))):
            data += more
        if len(data) < size and (data[-1:] or self._last) != b"\n":
            data += b"\n"
        self.quotes += data.count(b'"')
        self._last = data[-1:] or self._last
        return data


class _RaggedRow:
    """Remembers where a row had too many or too few fields; its text is dropped."""

    def __init__(self) -> None:
        self.found = ""

    def __call__(self, row: csv.InvalidRow) -> str:
        self.found = (
            f"row {row.number} (the header is row 1) has {row.actual_columns} fields, not {row.expected_columns}"
        )
        return "error"
