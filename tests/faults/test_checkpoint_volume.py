"""A checkpoint volume that is full or failing: no answer is paid for that cannot be kept, and the message says why."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.faults.conftest import MakeBatch
from tests.faults.support.batch import Batch, Finished
from tests.faults.support.invariants import verify
from tests.faults.support.strace import Tampering, injected, needs_strace

ROTATE = {"rotate_records": 40}


@contextmanager
def small_volume(folder: Path, size: str) -> Iterator[None]:
    """A tmpfs of this size, mounted on the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", folder], check=True)


def fails_and_says_what_to_do(batch: Batch, **how: Any) -> Finished:
    """A run that ends with 1 because of the volume; it has called nothing it had no reason to."""
    end = batch.run(code=1, **how)
    assert "checkpoint" in end.stderr
    assert "a retry resumes" in end.stderr
    assert "unexpected" not in end.stderr
    return end


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small volume needs root")
def test_the_volume_is_full(make_batch: MakeBatch) -> None:
    """ENOSPC while appending stops the calls; with room made, what was paid for is there."""
    batch = make_batch(rows=1200, latency_ms=5)
    with small_volume(batch.checkpoints, "48k"):
        end = fails_and_says_what_to_do(batch)
        assert "Make room" in end.stderr
        called = batch.stub.progress()["records"]
        assert 0 < called < 1200
        fails_and_says_what_to_do(batch)
        assert batch.stub.progress()["records"] <= called + 2 * batch.in_flight
        subprocess.run(["mount", "-o", "remount,size=16m", batch.checkpoints], check=True)
        batch.run()
        verify(batch, repeated=3 * batch.in_flight)


VOLUME_FAILS = [
    ("appending", {"call": "write", "path": r"\.wal$", "nth": 30, "do": "EIO"}),
    ("appending, no room", {"call": "write", "path": r"\.wal$", "nth": 30, "do": "ENOSPC"}),
    ("syncing the log", {"call": "fsync", "path": r"\.wal$", "do": "EIO"}),
    ("writing a segment", {"call": "fsync", "path": r"good-.*\.tmp$", "do": "EIO"}),
    ("naming a segment", {"call": "rename", "path": r"good-.*\.arrow$", "nth": 2, "do": "EIO"}),
    ("sealing a partition", {"call": "rename", "path": r"done-000\.json$", "do": "ENOSPC"}),
    ("deleting a log", {"call": "unlink", "path": r"\.wal$", "do": "EIO"}),
]


@pytest.mark.parametrize(("rule"), [pytest.param(rule, id=name) for name, rule in VOLUME_FAILS])
def test_the_volume_fails_while(make_batch: MakeBatch, rule: dict[str, Any]) -> None:
    """The run ends with 1 and says so; a run on a mended volume completes it."""
    batch = make_batch(rows=600, latency_ms=20, interval_seconds=0.05)
    fails_and_says_what_to_do(batch, faults={"rules": [rule]})
    batch.run()
    verify(batch, repeated=batch.in_flight)


HICCUPS = [
    ("syncing the log", {"call": "fsync", "path": r"\.wal$", "nth": 2, "times": 1, "do": "EIO"}),
    ("syncing the log and writing it anew", {"call": "fsync", "path": r"\.wal$", "nth": 2, "times": 2, "do": "EIO"}),
    ("creating a new log", {"call": "fsync", "path": r"/p00000$", "nth": 2, "times": 1, "do": "EIO"}),
    ("writing the segment of a log", {"call": "fsync", "path": r"good-.*\.tmp$", "times": 1, "do": "ENOSPC"}),
    ("naming the segment of a log", {"call": "rename", "path": r"good-.*\.arrow$", "times": 1, "do": "EIO"}),
    ("deleting a log", {"call": "unlink", "path": r"\.wal$", "times": 1, "do": "EIO"}),
]


@pytest.mark.parametrize(("rule"), [pytest.param(rule, id=name) for name, rule in HICCUPS])
def test_the_volume_fails_for_a_moment_while(make_batch: MakeBatch, rule: dict[str, Any]) -> None:
    """Whether the run bears it or ends with 1, nothing is lost, and a resume pays for no record twice."""
    batch = make_batch(rows=600, latency_ms=40, partitions=2, interval_seconds=0.05)
    end = batch.start(faults={**ROTATE, "rules": [rule]}).wait()
    assert end.code in (0, 1)
    print(f"it ended with {end.code}")
    batch.run()
    verify(batch, repeated=0 if end.code == 0 else batch.in_flight)


@needs_strace
def test_the_kernel_reports_eio_to_the_command_itself(make_batch: MakeBatch) -> None:
    """fsync(2) fails from the sixth of each thread on: after the plan is written, before the logs are safe."""
    batch = make_batch(rows=600, latency_ms=20, interval_seconds=0.05)
    trace = batch.folder / "trace"
    under = Tampering(calls="fsync", fault="error=EIO", when="6+").command(trace)
    fails_and_says_what_to_do(batch, under=under)
    assert injected(trace) > 0
    batch.run()
    verify(batch, repeated=batch.in_flight)
