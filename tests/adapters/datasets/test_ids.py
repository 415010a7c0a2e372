"""Duplicates are found exactly, whether the hashes fit in memory or not, and a collision is not a duplicate."""

from __future__ import annotations

import errno
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from airflow_provider_ai.adapters.datasets import ids
from airflow_provider_ai.adapters.datasets.formats import DataFile, IdBatch
from airflow_provider_ai.adapters.datasets.ids import Confirmation, HashSet, IdIntake, split_missing


def fed(hashes: list[int] | Any, *, spill_rows: int, step: int) -> HashSet:
    """A finished set; its temporary file is closed."""
    values = np.array(hashes, dtype=np.uint64)
    with HashSet(spill_rows) as found:
        for at in range(0, len(values), step):
            found.add(values[at : at + step])
        found.finish()
    return found


@pytest.mark.parametrize("spill_rows", [10_000, 1_000, 100, 7])
def test_repeats_are_counted_exactly(spill_rows: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    hashes = random.integers(0, 2**64, 3_000, dtype=np.uint64)
    hashes[random.integers(0, 3_000, 40)] = hashes[random.integers(0, 3_000, 40)]
    values, counts = np.unique(hashes, return_counts=True)
    found = fed(hashes, spill_rows=spill_rows, step=130)
    assert found.repeats == 3_000 - len(values)
    assert found.candidates.tolist() == values[counts > 1].tolist()
    assert found.complete
    assert found.spilled is (spill_rows < 3_000)


@pytest.mark.parametrize("rows", [0, 1, 8, 9, 16, 17])  # around the size of the buffer
def test_edges_of_the_buffer(rows: int) -> None:
    found = fed(list(range(rows)), spill_rows=8, step=8)
    assert (found.repeats, len(found.candidates)) == (0, 0)
    assert found.spilled is (rows > 8)
    assert fed([*range(rows), 0][: rows + 1], spill_rows=8, step=3).repeats == (1 if rows else 0)


def test_extreme_hashes_are_compared() -> None:
    found = fed([0, 2**64 - 1, *range(5, 40), 2**64 - 1, 0], spill_rows=10, step=4)
    assert found.candidates.tolist() == [0, 2**64 - 1]


def test_one_id_everywhere_takes_no_more_memory() -> None:
    """A constant column: every run holds one hash, not a slice of all rows."""
    found = fed(np.full(100_000, 42), spill_rows=1_000, step=999)
    assert (found.repeats, found.candidates.tolist()) == (99_999, [42])
    assert all(run.length == 1 for run in found._runs)


def test_candidates_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ids, "CANDIDATES", 10)
    found = fed([*range(100), *range(100)], spill_rows=30, step=50)
    assert (found.repeats, len(found.candidates), found.complete) == (100, 10, False)


def test_the_temporary_file_has_no_name_and_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with HashSet(8) as found:
        found.add(np.arange(20, dtype=np.uint64))
        assert found.spilled
        assert list(tmp_path.iterdir()) == []
        assert found._file is not None
    assert found._file.closed


def test_a_full_temporary_folder_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(**_: Any) -> Any:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    with pytest.raises(OSError, match="free space there or set TMPDIR") as caught, HashSet(8) as found:
        found.add(np.arange(20, dtype=np.uint64))
    assert caught.value.errno == errno.ENOSPC


def batch(values: list[Any] | pa.Array, first: int = 0) -> IdBatch:
    array = values if isinstance(values, pa.Array) else pa.array(values)
    return IdBatch(np.arange(first, first + len(array)), array)


def confirmed(weak: bool, *batches: tuple[str, IdBatch], monkeypatch: pytest.MonkeyPatch) -> Confirmation:
    """Both passes over the batches; with ``weak`` every hash is one of four."""
    if weak:
        strong = ids.hash_ids
        monkeypatch.setattr(ids, "hash_ids", lambda values, key: strong(values, key) % np.uint64(4))
    with HashSet() as hashes:
        for path, each in batches:
            IdIntake(DataFile(None, path), hashes)(each)  # type: ignore[arg-type]
        hashes.finish()
    found = Confirmation(hashes.candidates, hashes.key)
    for path, each in batches:
        found.take(path, each)
    return found


@pytest.mark.parametrize("weak", [False, True])
def test_collisions_are_not_duplicates(weak: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [f"id {n}" for n in range(500)]
    unique = confirmed(weak, ("a", batch(texts)), monkeypatch=monkeypatch) if weak else None
    assert unique is None or (len(unique.candidates), unique.repeats) == (4, 0)
    found = confirmed(weak, ("a", batch(texts)), ("b", batch(["x", "id 7", "id 7"], first=10)), monkeypatch=monkeypatch)
    assert found.repeats == 2
    assert found.examples == ["b row 11 repeats a row 7", "b row 12 repeats a row 7"]


def test_ids_of_different_width_repeat_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    narrow, wide = batch(pa.array([1, 2], pa.int32())), batch(pa.array([3.0, 2.0]))
    found = confirmed(False, ("a", narrow), ("b", wide), monkeypatch=monkeypatch)
    assert found.examples == ["b row 1 repeats a row 1"]


def test_missing_ids_are_told_apart() -> None:
    present, absent = split_missing(batch(pa.array([1.0, None, float("nan"), 2.0]), first=100))
    assert (present.values.to_pylist(), present.rows.tolist(), absent.tolist()) == ([1.0, 2.0], [100, 103], [101, 102])


def test_the_intake_keeps_the_first_rows_without_id() -> None:
    with HashSet() as hashes:
        intake = IdIntake(DataFile(None, "a"), hashes)  # type: ignore[arg-type]
        intake(batch([None, "a", None], first=50))
        intake(batch([None] * 1_000, first=10))
    assert (intake.missing, intake.missing_rows) == (1_002, [10, 11, 12])
