"""Reading gives every pending row once, in order, of the planned kind, from the planned files only."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from airflow_provider_ai.adapters.datasets import DatasetReader
from airflow_provider_ai.adapters.datasets import parquet as parquet_module
from airflow_provider_ai.adapters.datasets import reader as reader_module
from airflow_provider_ai.core.manifest import Manifest
from airflow_provider_ai.core.ports import PartitionReader
from airflow_provider_ai.core.rowset import RowSet
from airflow_provider_ai.exceptions import InputChangedError, MissingColumnError, SpecError, UnreadableFileError
from tests.adapters.datasets.counting import CountingHandler, counting_filesystem
from tests.adapters.datasets.data import plan, records, touch_later, write_parquet, write_text

FORMATS = ("parquet", "csv", "jsonl")


def write_rows(path: Path, ids: list[int], row_group_size: int = 7) -> None:
    """A file with the columns ``id`` and ``v`` (twice the id)."""
    if path.suffix == ".parquet":
        write_parquet(path, {"id": ids, "v": [2 * n for n in ids]}, row_group_size=row_group_size)
    elif path.suffix == ".csv":
        write_text(path, "".join(["id,v\n", *(f"{n},{2 * n}\n" for n in ids)]))
    else:
        write_text(path, "".join(f'{{"id":{n},"v":{2 * n}}}\n' for n in ids))


def test_it_is_a_partition_reader() -> None:
    reader: PartitionReader = DatasetReader()
    assert reader


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("target", [1, 5, 30, 1_000])
def test_any_rows_done_the_others_come(tmp_path: Path, kind: str, target: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    for number in range(4):
        write_rows(tmp_path / f"{number}.{kind}", list(range(number * 40, number * 40 + int(random.integers(1, 40)))))
    manifest = plan(tmp_path, rows_per_partition=target)
    every = records(manifest)
    assert [record["v"] for record in every] == [2 * record["id"] for record in every]
    assert len(every) == manifest.rows
    for share in (0.0, 0.3, 0.9, 1.0):
        done = {p.index: np.flatnonzero(random.random(p.rows) < share).tolist() for p in manifest.partitions}
        gone = {sum(q.rows for q in manifest.partitions[:index]) + row for index, rows in done.items() for row in rows}
        assert records(manifest, done=done) == [record for n, record in enumerate(every) if n not in gone]


@pytest.mark.parametrize("kind", FORMATS)
def test_columns_asked_for_and_the_id(tmp_path: Path, kind: str) -> None:
    write_rows(tmp_path / "x=1" / f"a.{kind}", [1, 2])
    manifest = plan(tmp_path)
    assert records(manifest, columns=["v"]) == [{"id": 1, "v": 2}, {"id": 2, "v": 4}]
    assert records(manifest, columns=["x", "id"]) == [{"id": 1, "x": "1"}, {"id": 2, "x": "1"}]
    assert records(manifest, columns=[]) == [{"id": 1}, {"id": 2}]
    with pytest.raises(MissingColumnError, match=r"the plan of .* has no column 'w' \(asked for\)"):
        records(manifest, columns=["w"])


@pytest.mark.parametrize("kind", FORMATS)
def test_blocks_are_bounded_in_rows(tmp_path: Path, kind: str) -> None:
    write_rows(tmp_path / f"a.{kind}", list(range(1_000)), row_group_size=1_000)
    manifest = plan(tmp_path)
    part = manifest.partitions[0]
    sizes = [len(block.rows) for block in DatasetReader(block_rows=64).blocks(manifest, part, done=RowSet(1_000))]
    assert sum(sizes) == 1_000
    assert max(sizes) <= 64


@pytest.mark.parametrize("kind", FORMATS)
def test_blocks_of_wide_rows_are_small(tmp_path: Path, kind: str) -> None:
    texts = [f"{n:06d}" * 10_000 for n in range(100)]  # 60 KB each
    if kind == "parquet":
        write_parquet(tmp_path / "a.parquet", {"id": range(100), "note": texts}, use_dictionary=False)
    elif kind == "csv":
        write_text(tmp_path / "a.csv", "".join(["id,note\n", *(f"{n},x{text}\n" for n, text in enumerate(texts))]))
    else:
        write_text(tmp_path / "a.jsonl", "".join(f'{{"id":{n},"note":"{text}"}}\n' for n, text in enumerate(texts)))
    manifest = plan(tmp_path)
    reader = DatasetReader(block_bytes=300_000)
    blocks = list(reader.blocks(manifest, manifest.partitions[0], done=RowSet(100)))
    assert sum(len(block.rows) for block in blocks) == 100
    assert max(len(block.rows) for block in blocks) <= 5
    single = DatasetReader(block_bytes=1).blocks(manifest, manifest.partitions[0], done=RowSet(100))
    assert {len(block.rows) for block in single} == {1}


def test_a_set_of_another_size_is_refused(tmp_path: Path) -> None:
    write_rows(tmp_path / "a.parquet", [1, 2])
    manifest = plan(tmp_path)
    with pytest.raises(ValueError, match="2 rows, got one over 3"):
        next(DatasetReader().blocks(manifest, manifest.partitions[0], done=RowSet(3)))


@pytest.mark.parametrize("changes", [{"block_rows": 0}, {"block_bytes": 0}])
def test_bounds_below_one_are_refused(changes: dict[str, int]) -> None:
    with pytest.raises(SpecError, match="must be an integer ≥ 1, got 0"):
        DatasetReader(**changes)


class TestWhatIsRead:
    """Bytes are counted by the file object that gives them."""

    @pytest.fixture
    def handler(self, monkeypatch: pytest.MonkeyPatch) -> CountingHandler:
        filesystem, handler = counting_filesystem()
        monkeypatch.setattr(reader_module, "open_filesystem", lambda *_: (filesystem, ""))
        monkeypatch.setattr(reader_module, "_require_unchanged", lambda *_: None)
        monkeypatch.setattr(parquet_module, "REMOTE_BUFFER_BYTES", 4_096)
        return handler

    @pytest.fixture
    def manifest(self, tmp_path: Path) -> Manifest:
        random = np.random.default_rng(1)
        columns = {"id": range(20_000), "v": random.random(20_000), "wide": random.bytes(400_000).hex(" ", 20).split()}
        write_parquet(tmp_path / "a.parquet", columns, row_group_size=5_000, compression="none", use_dictionary=False)
        return plan(tmp_path)

    def group_range(self, manifest: Manifest, group: int) -> tuple[int, int]:
        metadata = pq.ParquetFile(manifest.files[0].path).metadata
        starts = [metadata.row_group(i).column(0).data_page_offset for i in range(metadata.num_row_groups)]
        edges = [*starts, manifest.files[0].size - 8 - metadata.serialized_size]
        return list(pairwise(edges))[group]

    def rows_read(self, manifest: Manifest, done: RowSet, columns: list[str] | None = None) -> list[int]:
        blocks = DatasetReader(columns=columns).blocks(manifest, manifest.partitions[0], done=done)
        return [row for block in blocks for row in block.rows]

    def test_finished_row_groups_are_not(self, manifest: Manifest, handler: CountingHandler) -> None:
        done = RowSet(20_000)
        done.add_range(0, 5_000)
        done.add_range(10_000, 15_000)
        assert self.rows_read(manifest, done) == [*range(5_000, 10_000), *range(15_000, 20_000)]
        for group, finished in enumerate([True, False, True, False]):
            start, end = self.group_range(manifest, group)
            assert handler.touched(start, end) == 0 if finished else handler.touched(start, end) >= 0.99 * (end - start)

    def test_other_columns_are_not(self, manifest: Manifest, handler: CountingHandler) -> None:
        assert len(self.rows_read(manifest, RowSet(20_000), ["v"])) == 20_000
        metadata = pq.ParquetFile(manifest.files[0].path).metadata
        for group in range(3):  # the end of the last one is read with the footer
            wide = metadata.row_group(group).column(2)
            start = wide.data_page_offset
            assert handler.touched(start, start + wide.total_compressed_size) <= 4_096  # what a buffer overshoots

    def test_nothing_is_when_all_is_done(self, manifest: Manifest, handler: CountingHandler) -> None:
        done = RowSet(20_000)
        done.add_range(0, 20_000)
        assert self.rows_read(manifest, done) == []
        assert handler.opened == 0

    def test_the_rest_of_a_group_is_not(self, manifest: Manifest, handler: CountingHandler) -> None:
        done = RowSet(20_000)
        done.add_range(0, 20_000)
        done.discard(np.array([5_000]))
        assert self.rows_read(manifest, done) == [5_000]
        start, end = self.group_range(manifest, 1)
        assert handler.touched(start, end) > 0
        assert handler.bytes_read - handler.touched(start, end) <= 1 << 16  # what Arrow reads to find the footer

    def test_csv_and_json_lines_end_with_the_last_pending_row(self, tmp_path: Path, handler: CountingHandler) -> None:
        write_rows(tmp_path / "x" / "a.jsonl", list(range(200_000)))
        manifest = plan(tmp_path / "x", rows_per_partition=200_000)
        done = RowSet(200_000)
        done.add_range(10, 200_000)
        assert self.rows_read(manifest, done) == list(range(10))
        assert handler.bytes_read < 0.5 * manifest.files[0].size


NOON_LOCAL = dt.datetime.fromisoformat("2024-01-01T12:00:00")

VALUES: dict[str, tuple[Any, list[Any]]] = {
    "integers": (pa.array([1, None, -3]), [1, None, -3]),
    "small": (pa.array([1, None, 255], pa.uint8()), [1, None, 255]),
    "floats": (pa.array([0.5, None, 1e300]), [0.5, None, 1e300]),
    "text": (pa.array(["a", None, "ü"]), ["a", None, "ü"]),
    "large": (pa.array(["a", None, "ü"], pa.large_string()), ["a", None, "ü"]),
    "words": (pa.array(["a", None, "a"]).dictionary_encode(), ["a", None, "a"]),
    "flags": (pa.array([True, None, False]), [True, None, False]),
    "bytes": (pa.array([b"a", None, b"\xff"]), [b"a", None, b"\xff"]),
    "days": (
        pa.array([dt.date(2024, 2, 29), None, dt.date(1900, 1, 1)]),
        [dt.date(2024, 2, 29), None, dt.date(1900, 1, 1)],
    ),
    "times": (
        pa.array([NOON_LOCAL, None, None], pa.timestamp("ns")),
        [NOON_LOCAL, None, None],
    ),
    "zoned": (
        pa.array([dt.datetime(2024, 1, 1, 12, tzinfo=dt.UTC), None, None], pa.timestamp("us", "UTC")),
        [dt.datetime(2024, 1, 1, 12, tzinfo=dt.UTC), None, None],
    ),
    "decimals": (pa.array([Decimal("1.50"), None, Decimal("-0.01")]), [Decimal("1.50"), None, Decimal("-0.01")]),
    "lists": (pa.array([[1, None], None, []]), [[1, None], None, []]),
    "structs": (
        pa.array([{"a": 1, "b": ["x"]}, None, {"a": None, "b": None}]),
        [{"a": 1, "b": ["x"]}, None, {"a": None, "b": None}],
    ),
    "nothing": (pa.nulls(3), [None, None, None]),
}


@pytest.mark.parametrize("name", VALUES)
def test_parquet_values_as_python_objects(tmp_path: Path, name: str) -> None:
    array, expected = VALUES[name]
    write_parquet(tmp_path / "a.parquet", {"id": ["a", "b", "c"], name: array})
    found = [record[name] for record in records(plan(tmp_path))]
    assert found == expected
    assert [type(value) for value in found] == [type(value) for value in expected]


def test_nanoseconds_are_kept_where_there_are_some(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", {"id": [1], "t": pa.array([1_700_000_000_000_000_001], pa.timestamp("ns"))})
    assert records(plan(tmp_path))[0]["t"].isoformat() == "2023-11-14T22:13:20.000000001"


@pytest.mark.parametrize("name", ["a.b", "a", "", "ü x"])
def test_odd_column_names(tmp_path: Path, name: str) -> None:
    table = pa.table({"id": [1], name: ["x"], "a.c": [3], "s": [{"b": 1}]})
    pq.write_table(table, tmp_path / "a.parquet")
    assert records(plan(tmp_path), columns=[name, "s"]) == [{"id": 1, name: "x", "s": {"b": 1}}]


def test_text_that_is_not_utf8_is_named_and_not_shown(tmp_path: Path) -> None:
    bad = pa.array([b"canary\xff"]).view(pa.string())
    write_parquet(tmp_path / "a.parquet", {"id": [1], "v": bad})
    with pytest.raises(UnreadableFileError, match=r"a\.parquet") as caught:
        records(plan(tmp_path))
    assert "canary" not in str(caught.value)


class TestChangedFiles:
    """A file is compared with the plan when it is opened."""

    @pytest.fixture(params=FORMATS)
    def path(self, tmp_path: Path, request: pytest.FixtureRequest) -> Path:
        path = tmp_path / f"a.{request.param}"
        write_rows(path, [1, 2, 3])
        return path

    def refused(self, manifest: Manifest, what: str) -> None:
        with pytest.raises(InputChangedError, match=rf"{what} after it was planned.*run with verb recompute"):
            records(manifest)

    def test_removed(self, path: Path) -> None:
        manifest = plan(path)
        path.unlink()
        self.refused(manifest, "was removed")

    def test_grown(self, path: Path) -> None:
        manifest = plan(path)
        write_rows(path, [1, 2, 3, 4])
        self.refused(manifest, "was modified")

    def test_replaced_by_the_same_size(self, path: Path) -> None:
        manifest = plan(path)
        size = path.stat().st_size
        write_rows(path.with_suffix(".new" + path.suffix), [3, 2, 1])
        path.with_suffix(".new" + path.suffix).replace(path)
        touch_later(path)
        assert path.stat().st_size == size
        self.refused(manifest, "was modified")

    def test_a_file_that_is_not_needed_does_not_matter(self, tmp_path: Path) -> None:
        write_rows(tmp_path / "x" / "a.csv", [1])
        write_rows(tmp_path / "x" / "b.csv", [2])
        manifest = plan(tmp_path / "x")
        touch_later(tmp_path / "x" / "b.csv")
        assert records(manifest, done={0: [1]}) == [{"id": 1, "v": 2}]

    def test_damaged_while_it_is_read(self, tmp_path: Path) -> None:
        path = tmp_path / "a.parquet"
        write_parquet(path, {"id": [f"{n}" for n in range(300_000)]}, use_dictionary=False, compression="snappy")
        manifest = plan(path, rows_per_partition=300_000)
        blocks = DatasetReader(block_rows=1_000).blocks(manifest, manifest.partitions[0], done=RowSet(300_000))
        next(blocks)
        with path.open("r+b") as file:
            file.write(bytes(path.stat().st_size))
        touch_later(path)
        with pytest.raises(InputChangedError, match="was modified"):
            list(blocks)
