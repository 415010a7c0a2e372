"""Checkpoints and inputs that are not what a run left behind: torn, flipped, stale. Refused by name, or healed."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_ai.core.frames import scan_frames
from tests.faults.conftest import MakeBatch
from tests.faults.support.batch import OUTPUT_SCHEMA, Batch, Finished
from tests.faults.support.dataset import Dataset
from tests.faults.support.invariants import problems, verify

ROWS = 800


@pytest.fixture
def half_done(make_batch: MakeBatch) -> Batch:
    """Killed with at least one partition sealed, and another one in a log of some size."""
    batch = make_batch(rows=ROWS, latency_ms=40)
    run = batch.start()
    run.until(lambda: bool(batch.files("done-000.json")) and _log_sizes(batch) > 10_000, "a seal and a log").kill()
    return batch


def _log_sizes(batch: Batch) -> int:
    sizes = 0
    for path in batch.files("*.wal"):
        with contextlib.suppress(FileNotFoundError):  # sealed meanwhile
            sizes += path.stat().st_size
    return sizes


def largest_log(batch: Batch) -> Path:
    return max(batch.files("*.wal"), key=lambda path: path.stat().st_size)


def flip_a_bit(path: Path, chosen: random.Random, *, share: float = 1.0) -> None:
    """Flip one seeded bit in the first ``share`` of a file."""
    data = bytearray(path.read_bytes())
    at, bit = chosen.randrange(int(len(data) * share)), chosen.randrange(8)
    print(f"bit {bit} of byte {at} of {len(data)} of {path.name}")
    data[at] ^= 1 << bit
    path.write_bytes(data)


def refused(batch: Batch, path: Path) -> Finished:
    """A run that ends with 1, names the file, publishes nothing and calls nothing more than it must."""
    end = batch.run(code=1)
    assert path.name in end.stderr
    assert "unexpected" not in end.stderr
    return end


def test_a_log_that_is_cut_short(half_done: Batch, seed: int) -> None:
    """A torn tail costs the records in it and no others."""
    chosen = random.Random(seed)
    log = largest_log(half_done)
    before = scan_frames(log.read_bytes())
    cut = chosen.randint(1, log.stat().st_size // 2)
    print(f"{cut} of {log.stat().st_size} bytes cut")
    os.truncate(log, log.stat().st_size - cut)
    torn = len(before.payloads) - len(scan_frames(log.read_bytes()).payloads)
    half_done.run()
    verify(half_done, repeated=half_done.in_flight + torn)


def test_a_flipped_bit_in_a_log(half_done: Batch, seed: int) -> None:
    """Refused by name; deleting the file, as the message says, costs its records and no others."""
    log = largest_log(half_done)
    records = len(scan_frames(log.read_bytes()).payloads)
    flip_a_bit(log, random.Random(seed), share=0.8)
    assert "delete it" in refused(half_done, log).stderr
    log.unlink()
    half_done.run()
    verify(half_done, repeated=half_done.in_flight + records)


def test_a_flipped_bit_in_a_segment(half_done: Batch, seed: int) -> None:
    """Refused by name, at the latest before its partition is published; deleting it costs its records and no others."""
    segment = half_done.files("good-*.arrow")[0]
    flip_a_bit(segment, random.Random(seed))
    assert "delete it" in refused(half_done, segment).stderr
    assert not problems_but_lost(half_done)
    segment.unlink()
    half_done.run()
    verify(half_done, repeated=half_done.in_flight + ROWS // 4)


def problems_but_lost(batch: Batch) -> list[str]:
    """What is wrong besides that not everything is in the table yet."""
    found = problems(batch, repeated=batch.in_flight + ROWS // 4)
    return [problem for problem in found if not problem.startswith(("lost", "never called"))]


@pytest.mark.parametrize("name", ["done-000.json", "manifest.json", "plans/*.json"])
def test_a_flipped_bit_in_a_small_file(half_done: Batch, seed: int, name: str) -> None:
    """Refused by name, whichever bit it is; deleting it, as the message says, costs nothing."""
    path = half_done.files(name)[0]
    flip_a_bit(path, random.Random(seed))
    assert "elete it" in refused(half_done, path).stderr
    path.unlink()
    half_done.run()
    verify(half_done, repeated=half_done.in_flight)


def test_leftover_temporary_files(half_done: Batch) -> None:
    """What a killed writer was writing is not read, whatever is in it; a partition that is opened again loses it."""
    for there in [*half_done.files("*.arrow"), *half_done.files("*.json"), *half_done.files("lock")]:
        there.with_name(f"{there.name}.7.tmp").write_bytes(b"half of something")
    resumed = {path.parent for path in half_done.files("p0*/*") if not (path.parent / "done-000.json").exists()}
    for folder in resumed:
        (folder / "good-dead-00001.arrow.0123456789ab.tmp").write_bytes(b"half of something")
    assert resumed
    half_done.run()
    verify(half_done, repeated=half_done.in_flight)
    left = [path for folder in resumed for path in folder.glob("*.tmp") if not path.name.startswith("lock.")]
    assert left == []


def test_an_input_file_rewritten_under_an_unfinished_run(half_done: Batch) -> None:
    """An error that names the file and calls nothing; with the file back as it was, the run resumes."""
    path = half_done.dataset.paths[1]
    original, facts = path.read_bytes(), path.stat()
    requests = half_done.stub.progress()["requests"]
    shutil.copy(half_done.dataset.paths[0], path)
    end = refused(half_done, path)
    assert "recompute" in end.stderr
    assert half_done.stub.progress()["requests"] == requests
    path.write_bytes(original)
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    half_done.run()
    verify(half_done, repeated=half_done.in_flight)


def test_an_input_that_is_gone_under_an_unfinished_run(half_done: Batch) -> None:
    """The status shows what the plan knows; a run names what is missing and calls nothing; put back, it resumes."""
    away = half_done.dataset.folder.with_name("away")
    half_done.dataset.folder.rename(away)
    requests = half_done.stub.progress()["requests"]
    status = half_done.status()
    assert (status["plan"], status["input_changed"], status["records"]) == ("unfinished", True, ROWS)
    assert 0 < status["would_call"] < ROWS
    path = half_done.dataset.paths[0]
    assert f"removed {path}" in half_done.runs[-1].stderr
    assert f"removed {path}" in refused(half_done, path).stderr
    assert half_done.stub.progress()["requests"] == requests
    away.rename(half_done.dataset.folder)
    half_done.run()
    verify(half_done, repeated=half_done.in_flight)


def test_a_finished_run_whose_input_changed(make_batch: MakeBatch) -> None:
    """It plans anew, and the table holds the new data and nothing of the old."""
    batch = make_batch(rows=400, latency_ms=1)
    batch.run()
    verify(batch)
    batch.dataset = Dataset(folder=batch.dataset.folder, rows=300, files=1, version=1).write()
    (batch.dataset.folder / "visits-01.parquet").unlink()
    batch.run()
    verify(batch)


@pytest.mark.parametrize("change", [{"model": "m2"}, {"path": "/other"}, {"output_schema": "other.json"}])
def test_a_finished_run_that_asks_something_else(make_batch: MakeBatch, change: dict[str, Any]) -> None:
    """Another model, endpoint or schema starts fresh: everything is called anew, and its rows replace the old ones."""
    batch = make_batch(rows=200, latency_ms=1)
    (batch.folder / "other.json").write_text(json.dumps({**OUTPUT_SCHEMA, "required": ["label"]}))
    batch.run()
    batch.endpoint = change
    batch.run()
    verify(batch, repeated=200)
    assert set(batch.stub.counts("called").values()) == {2}
    assert {row["_model"] for row in batch.rows()} == {change.get("model", "m")}
