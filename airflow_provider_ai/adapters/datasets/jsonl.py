"""JSON Lines: one object a line, UTF-8, blank lines ignored, compressed files by their suffix.

A column is a key; its kind is that of all its values (``int64`` and ``double`` together are ``double``), and ``json``
where they are lists, objects or a mix. Values are handed on as parsed, whatever the kind: JSON to JSON loses nothing.

JSON Lines has no index: the rows of a partition are reached by counting lines; only pending ones are parsed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
import pyarrow as pa

from airflow_provider_ai.adapters.datasets.formats import (
    BlockBounds,
    DataFile,
    FileFacts,
    IdBatch,
    Rows,
    Window,
    row_range,
    steps,
    unreadable,
)
from airflow_provider_ai.core.arrow_arrays import int64_array, text_array
from airflow_provider_ai.core.ports import RowBlock
from airflow_provider_ai.exceptions import InputError, UnreadableFileError

READ_BYTES = 1 << 20
LONGEST_LINE_BYTES = 64 << 20
MOST_KEYS = 5_000
BOM = b"\xef\xbb\xbf"

_BITS = {type(None): 0, bool: 1, int: 2, float: 4, str: 8, list: 16, dict: 16}
_SORTS = {
    type(None): "null",
    str: "string",
    int: "int64",
    float: "double",
    bool: "a boolean",
    list: "a list",
    dict: "an object",
}
_NAMES = {0: "null", 1: "bool", 2: "int64", 4: "double", 6: "double", 8: "string"}


@dataclass(frozen=True, slots=True)
class _Lines:
    """Lines that are not blank: ``texts[i]`` is line ``numbers[i]`` of the file (from 1) and row ``first + i``."""

    first: int
    numbers: Sequence[int]
    texts: Sequence[bytes]


class JsonLinesFormat:
    """Kinds are sets of JSON types, as bits."""

    def scan(self, file: DataFile, id_column: str, take: Callable[[IdBatch], None]) -> FileFacts:
        """Parse every line."""
        kinds: dict[str, int] = {}
        rows = 0
        for lines in _lines(file):
            objects = [_parsed(file, *line) for line in zip(lines.numbers, lines.texts, strict=True)]
            for item in objects:
                for key, value in item.items():
                    kinds[key] = kinds.get(key, 0) | _BITS[type(value)]
            if len(kinds) > MOST_KEYS:
                raise UnreadableFileError(
                    f"{file.path}: more than {MOST_KEYS} different keys; records must share theirs"
                )
            for batch in _id_batches(file, rows, [item.get(id_column) for item in objects]):
                take(batch)
            rows += len(objects)
        return FileFacts(rows=rows, columns=kinds)

    def widen(self, one: int, other: int) -> int:
        """Never impossible."""
        return one | other

    def describe(self, kind: int) -> str:
        """A name of one type, or ``json``."""
        return _NAMES.get(kind, "json")

    def holds(self, file: DataFile, column: str, own: int, planned: int) -> bool:
        """Values are not converted."""
        return True

    def read(
        self, file: DataFile, columns: Sequence[str], kinds: Mapping[str, str], window: Window, bounds: BlockBounds
    ) -> Iterator[RowBlock]:
        """Count lines from the top; parse only pending ones."""
        for lines in _lines(file):
            pending = window.pending(lines.first, lines.first + len(lines.texts))
            size = sum(map(len, lines.texts)) * len(pending) // max(len(lines.texts), 1)
            for a, b in steps(len(pending), size, bounds):
                rows = pending[a:b]
                wanted = (rows - lines.first).tolist()
                objects = [_parsed(file, lines.numbers[i], lines.texts[i]) for i in wanted]
                records = [{name: item.get(name) for name in columns} for item in objects]
                yield RowBlock(window.numbers(rows), records)
            if lines.first + len(lines.texts) >= window.end:
                return


def _parsed(file: DataFile, number: int, text: bytes) -> dict[str, Any]:
    try:
        item = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise UnreadableFileError(f"{file.path}: line {number} is not valid JSON (at column {error.colno})") from None
    if not isinstance(item, dict):
        raise UnreadableFileError(f"{file.path}: line {number} is not a JSON object")
    return item


def _lines(file: DataFile) -> Iterator[_Lines]:
    """The file in pieces of about a MiB; a longer line makes a longer piece."""
    first, number = 0, 1
    for texts in _whole_lines(file):
        kept = [(i, text) for i, text in enumerate(texts, number) if not text.isspace() and text]
        yield _Lines(first, [i for i, _ in kept], [text for _, text in kept])
        first += len(kept)
        number += len(texts)


def _whole_lines(file: DataFile) -> Iterator[list[bytes]]:
    number = 1
    with unreadable(file.path, "damaged"), file.filesystem.open_input_stream(file.path) as stream:
        rest = bytes(stream.read(len(BOM))).removeprefix(BOM)
        while data := stream.read(READ_BYTES):
            *texts, rest = (rest + data).split(b"\n")
            if len(rest) > LONGEST_LINE_BYTES:
                line = number + len(texts)
                raise UnreadableFileError(f"{file.path}: line {line} is longer than {LONGEST_LINE_BYTES >> 20} MiB")
            number += len(texts)
            yield texts
        yield [rest]


def _id_batches(file: DataFile, first: int, ids: list[Any]) -> Iterator[IdBatch]:
    """Ids by type, so that each type has its Arrow array; the usual case is one batch."""
    sorts = [_sort(value) for value in ids]
    for sort in dict.fromkeys(sorts):
        rows = row_range(first, len(ids))[np.array([each == sort for each in sorts])]
        values = [value for value, each in zip(ids, sorts, strict=True) if each == sort]
        yield IdBatch(rows, _id_array(file, rows, values, sort))


def _sort(value: Any) -> str:
    kind = type(value)
    if kind is int and value >= 1 << 63:
        return "uint64"
    if kind is float and abs(value) >= 1 << 63:
        return "a number of more than 64 bits (write it as text)"
    return _SORTS[kind]


def _id_array(file: DataFile, rows: Rows, values: list[Any], sort: str) -> pa.Array:
    if sort == "string":
        return text_array(values)
    if sort == "null":
        return pa.nulls(len(values))
    if sort == "int64":
        return int64_array(np.array(values, dtype=np.int64))
    if sort in ("uint64", "double"):
        kind = pa.type_for_alias(sort)
        numbers = np.array(values, dtype=kind.to_pandas_dtype())
        return pa.Array.from_buffers(kind, len(values), [None, pa.py_buffer(numbers)])
    raise InputError(f"{file.path}: row {rows[0]} (rows count from 0): an id must be text or a number, not {sort}")
