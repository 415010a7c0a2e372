"""From segments to warehouse rows: one schema for all of them, and where every row comes from."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_ai.adapters.checkpoints.segments import from_bytes, good_table, metadata, to_bytes
from airflow_provider_ai.core.manifest import FileSlice, Manifest, Partition, SourceFile
from airflow_provider_ai.core.outcomes import Succeeded, decode_outcome, encode_outcome
from airflow_provider_ai.patterns.lineage import Lineage, output_types, row_schema, rows_of

LINEAGE = Lineage(run_id="run", partition="part", model="m", prompt_hash="ph", schema_version="sv")
AT = 1_700_000_000_000_000


def manifest_of(*slices: FileSlice, id_type: str = "string") -> tuple[Manifest, Partition]:
    files = tuple(SourceFile(path=f"dir/f{i}.parquet", size=1, version="1", rows=100) for i in range(3))
    part = Partition(index=0, slices=slices)
    manifest = Manifest(
        input_uri="in",
        format="parquet",
        id_column="id",
        schema=(("id", id_type),),
        files=files,
        partitions=(part,),
        listing="l",
    )
    return manifest, part


def segment(ids: list[Any], outputs: list[dict[str, Any]], *, first: int = 0) -> tuple[pa.Table, list[list[str]]]:
    """A segment as it comes back from storage, after the way through a log."""
    rows = list(range(first, first + len(ids)))
    outcome = Succeeded(rows=rows, keys=[f"k{row}" for row in rows], ids=ids, outputs=outputs, inferred_at=AT)
    kept = decode_outcome(encode_outcome(outcome))
    assert isinstance(kept, Succeeded)
    data = to_bytes(good_table([kept]), replaces=[])
    return from_bytes(data), metadata(data)["columns"]


def published(
    *segments_: tuple[list[Any], list[dict[str, Any]]], id_type: str = "string"
) -> tuple[pa.Schema, list[dict[str, Any]]]:
    """Schema and rows in the warehouse of segments given as ``(ids, outputs)``."""
    manifest, part = manifest_of(FileSlice(file=0, start=0, end=100), id_type=id_type)
    made, first = [], 0
    for ids, outputs in segments_:
        made.append(segment(ids, outputs, first=first))
        first += len(ids)
    columns = [(name, kind) for _, found in made for name, kind in found]
    schema = row_schema(manifest, output_types(columns, reserved="id"))
    batches = list(rows_of([table for table, _ in made], schema, manifest, part, LINEAGE))
    assert all(batch.schema == schema for batch in batches)
    return schema, pa.Table.from_batches(batches, schema=schema).to_pylist()


def column(*values_of_segments: list[Any]) -> tuple[pa.DataType, list[Any]]:
    """Type and values in the warehouse of one output column over some segments."""
    parts = [
        ([f"s{n}r{i}" for i in range(len(v))], [{"x": value} for value in v]) for n, v in enumerate(values_of_segments)
    ]
    schema, rows = published(*parts)
    return schema.field("x").type, [row["x"] for row in rows]


@pytest.mark.parametrize(
    ("segments_", "kind", "values"),
    [
        ([[1, 2]], pa.int64(), [1, 2]),
        ([[1, 0.5]], pa.float64(), [1.0, 0.5]),
        ([[1], [0.5]], pa.float64(), [1.0, 0.5]),  # two segments that disagree
        ([[None], [3]], pa.int64(), [None, 3]),  # a segment that knows nothing
        ([[None], [None]], pa.string(), [None, None]),
        ([[True, None]], pa.bool_(), [True, None]),
        ([["a", None]], pa.string(), ["a", None]),
        ([["a"], [1]], pa.string(), ["a", "1"]),
        ([[True], [1]], pa.string(), ["true", "1"]),
        ([["a", 1]], pa.string(), ['"a"', "1"]),  # mixed within a segment: JSON text
        ([[{"a": 1}], [{"b": None}]], pa.string(), ['{"a":1}', '{"b":null}']),
        ([[{"a": 1}], [None]], pa.string(), ['{"a":1}', None]),
        ([[[1, 2]], [[0.5]]], pa.list_(pa.float64()), [[1.0, 2.0], [0.5]]),
        ([[[1]], [[]]], pa.list_(pa.int64()), [[1], []]),  # a segment whose lists are all empty
        ([[[1]], [None]], pa.list_(pa.int64()), [[1], None]),
        ([[["a"]], [[1]]], pa.string(), ['["a"]', "[1]"]),
        ([[[1]], [1]], pa.string(), ["[1]", "1"]),
        ([[[{"a": 1}]]], pa.string(), ['[{"a":1}]']),
        ([[[[1]], [[2, 3]]]], pa.list_(pa.list_(pa.int64())), [[[1]], [[2, 3]]]),
        ([[2**63 - 1], [-(2**63)]], pa.int64(), [2**63 - 1, -(2**63)]),
        ([[2**60, 0.5]], pa.string(), [str(2**60), "0.5"]),  # no double holds both
        ([[2**60 + 1], [0.5]], pa.float64(), [2.0**60, 0.5]),  # found out too late for text: the nearest double
        ([[[2**60 + 1]], [[0.5]]], pa.list_(pa.float64()), [[2.0**60], [0.5]]),
        ([[[]], [False]], pa.string(), ["[]", "false"]),  # lists and something else
        ([[[]], [1]], pa.string(), ["[]", "1"]),
        ([[[]], [[]]], pa.list_(pa.string()), [[], []]),
        ([["süß 🦆"]], pa.string(), ["süß 🦆"]),
    ],
)
def test_a_column_has_the_narrowest_type_that_holds_all_its_values(
    segments_: list[list[Any]], kind: pa.DataType, values: list[Any]
) -> None:
    """Over all segments of the run, whatever each of them thought."""
    assert column(*segments_) == (kind, values)


SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab", max_size=2), inner, max_size=2),
    max_leaves=6,
)


@settings(deadline=None)
@given(st.lists(st.lists(VALUES, min_size=1, max_size=4), min_size=1, max_size=3))
def test_no_answer_of_a_model_keeps_a_run_out_of_the_warehouse(segments_: list[list[Any]]) -> None:
    """Whatever JSON it answers in whatever mixture: a row for each, null where it said null."""
    _, values = column(*segments_)
    sent = [value for segment_ in segments_ for value in segment_]
    assert len(values) == len(sent)
    assert [value is None for value in values] == [value is None for value in sent]


def test_columns_of_all_segments_stand_beside_each_other() -> None:
    """A column one segment does not have is null there; the id column is not doubled by an output of its name."""
    schema, rows = published((["a"], [{"x": 1, "id": 9}]), (["b"], [{"y": 2}]))
    assert schema.names[:3] == ["id", "x", "y"]
    assert [(row["id"], row["x"], row["y"]) for row in rows] == [("a", 1, None), ("b", None, 2)]


@pytest.mark.parametrize(
    ("id_type", "ids", "kind", "values"),
    [
        ("string", ["a"], pa.string(), ["a"]),
        ("large_string", ["a"], pa.string(), ["a"]),
        ("dictionary<values=string, indices=int32, ordered=0>", ["a"], pa.string(), ["a"]),
        ("int64", [7], pa.int64(), [7]),
        ("uint32", [2**32 - 1], pa.int64(), [2**32 - 1]),
        ("uint64", [2**64 - 1, 1], pa.string(), [str(2**64 - 1), "1"]),  # no BIGINT holds it
        ("date32[day]", [date(2024, 2, 29)], pa.date32(), [date(2024, 2, 29)]),
        ("timestamp[us, tz=UTC]", [datetime(2024, 2, 29, tzinfo=UTC)], pa.string(), ["2024-02-29T00:00:00+00:00"]),
        ("double", [1.5], pa.string(), ["1.5"]),
        ("bool", [True], pa.string(), ["true"]),
        ("binary", [b"\xff"], pa.string(), ["ff"]),
    ],
)
def test_the_id_keeps_its_type_where_json_can_carry_it(
    id_type: str, ids: list[Any], kind: pa.DataType, values: list[Any]
) -> None:
    """So that the warehouse can join on it; text otherwise."""
    schema, rows = published((ids, [{"x": 1}] * len(ids)), id_type=id_type)
    assert schema.field("id").type == kind
    assert [row["id"] for row in rows] == values


def test_every_row_says_where_it_comes_from() -> None:
    """File and row in that file, through any slices; run, model, prompt, schema, key and time."""
    manifest, part = manifest_of(
        FileSlice(file=2, start=98, end=100), FileSlice(file=0, start=0, end=1), FileSlice(file=1, start=10, end=13)
    )
    outcome = Succeeded(rows=[0, 1, 2, 3, 5], keys=list("abcde"), ids=list("vwxyz"), outputs=[{}] * 5, inferred_at=AT)
    schema = row_schema(manifest, {})
    (batch,) = rows_of([good_table([outcome])], schema, manifest, part, LINEAGE)
    rows = batch.to_pylist()
    assert [(row["_source_file"], row["_source_row"]) for row in rows] == [
        ("dir/f2.parquet", 98),
        ("dir/f2.parquet", 99),
        ("dir/f0.parquet", 0),
        ("dir/f1.parquet", 10),
        ("dir/f1.parquet", 12),
    ]
    assert rows[0] == {
        "id": "v",
        "_run_id": "run",
        "_partition": "part",
        "_model": "m",
        "_prompt_hash": "ph",
        "_schema_version": "sv",
        "_source_file": "dir/f2.parquet",
        "_source_row": 98,
        "_record_key": "a",
        "_inferred_at": datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC),
    }
