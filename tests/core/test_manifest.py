"""A manifest survives its file unchanged, and its fingerprint moves with everything that gives a row its meaning."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from airflow_provider_ai.core.manifest import FileSlice, Manifest, Partition, SourceFile

FILES = (
    SourceFile(path="lake/dt=1/ä b.parquet", size=10, version="17", rows=5, row_groups=(3, 2)),
    SourceFile(path="lake/dt=2/c.parquet", size=7, version="18", rows=2, partition_values=(("dt", "2"), ("x", "a/b"))),
)
PARTITIONS = (
    Partition(index=0, slices=(FileSlice(file=0, start=0, end=5),)),
    Partition(index=1, slices=(FileSlice(file=1, start=0, end=2),)),
)
MANIFEST = Manifest(
    input_uri="lake",
    format="parquet",
    id_column="visit_id",
    schema=(("visit_id", "int64"), ("dt", "string")),
    files=FILES,
    partitions=PARTITIONS,
    listing="abc",
)


def test_what_is_written_is_read() -> None:
    again = Manifest.from_json(MANIFEST.to_json())
    assert again == MANIFEST
    assert again.fingerprint == MANIFEST.fingerprint
    assert again.to_json() == MANIFEST.to_json()


def test_rows_are_counted_over_partitions() -> None:
    assert [part.rows for part in MANIFEST.partitions] == [5, 2]
    assert MANIFEST.rows == 7


@pytest.mark.parametrize(
    "change",
    [
        {"input_uri": "other"},
        {"format": "csv"},
        {"id_column": "other"},
        {"schema": MANIFEST.schema[:1]},
        {"files": (FILES[0], replace(FILES[1], version="19"))},
        {"files": (FILES[0], replace(FILES[1], size=8))},
        {"partitions": PARTITIONS[:1]},
        {"listing": "abd"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_the_fingerprint_covers(change: dict[str, Any]) -> None:
    assert replace(MANIFEST, **change).fingerprint != MANIFEST.fingerprint


def test_the_fingerprint_is_short_and_stable() -> None:
    """A change of this value makes every checkpoint in the field start fresh."""
    assert MANIFEST.fingerprint == "09bc6f5db4fd369f5e75fce468fff272"


def damaged(**changes: Any) -> bytes:
    body = json.loads(MANIFEST.to_json()) | changes
    return json.dumps({key: value for key, value in body.items() if value is not None}).encode()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[]",
        MANIFEST.to_json()[:-9],
        damaged(manifest_version=2),
        damaged(files=None),
        damaged(files=[{"path": "a"}]),
        damaged(unknown=1),
    ],
    ids=["empty", "torn", "list", "cut", "version", "no files", "file without size", "unknown field"],
)
def test_anything_else_is_a_value_error(data: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the reader of a manifest names the file
        Manifest.from_json(data)
