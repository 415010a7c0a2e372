"""SIGTERM to ``airflow-ai batch run``: it ends with 1 within its grace and says how to go on; nothing is paid twice."""

from __future__ import annotations

import random
import signal
import time
from pathlib import Path
from typing import Any

from tests.faults.conftest import MakeBatch
from tests.faults.support.batch import Batch, Finished, Run
from tests.faults.support.invariants import verify

ROWS = 1200
GRACE_SECONDS = 5.0
ENDING_SECONDS = 10.0  # to flush, to close and to end the interpreter, on a busy machine
RESUME = "run the same command again to resume"


def stopped(run: Run, since: float, *, grace_seconds: float = GRACE_SECONDS) -> Finished:
    """Its end, which must say what to do and come in time."""
    end = run.expect(1)
    assert "stopped (SIGTERM)" in end.stderr
    assert RESUME in end.stderr
    assert time.monotonic() - since < grace_seconds + ENDING_SECONDS
    return end


def terminate(run: Run) -> Finished:
    since = time.monotonic()
    run.send(signal.SIGTERM)
    return stopped(run, since)


def catches_sigterm(run: Run) -> bool:
    """Whether the process has a handler yet: before that it is no more than an interpreter that starts."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{run.process.pid}/status").read_text().splitlines())
    return bool(int(status["SigCgt"], 16) & 1 << (signal.SIGTERM - 1))


def test_while_it_starts(make_batch: MakeBatch, seed: int) -> None:
    """From the first moment at which it can, up to and beyond its first calls."""
    chosen = random.Random(seed)
    batch = make_batch(rows=ROWS, latency_ms=80)  # five starts that resume must not be enough to finish it
    for seconds in (0.0, *(chosen.uniform(0.0, 1.0) for _ in range(4))):
        print(f"SIGTERM {seconds:.3f} s after it can be caught")
        run = batch.start()
        run.until(lambda run=run: catches_sigterm(run), "it catches SIGTERM")  # type: ignore[misc]
        time.sleep(seconds)  # the moment is what is random here
        terminate(run)
    batch.run()
    verify(batch, repeated=0)


def test_while_it_calls(make_batch: MakeBatch, seed: int) -> None:
    """Calls in flight are waited for and kept: not one is made again."""
    chosen = random.Random(seed)
    batch = make_batch(rows=ROWS, latency_ms=50)
    for _ in range(4):
        wanted = batch.stub.progress()["answered"] + chosen.randint(1, ROWS // 6)
        print(f"SIGTERM at {wanted} records answered")
        terminate(batch.start().until_records(batch.stub, wanted))
    batch.run()
    verify(batch, repeated=0)


def test_calls_that_outlast_the_grace(make_batch: MakeBatch) -> None:
    """They are given up, and are all that is called again."""
    batch = make_batch(rows=200, latency_ms=20, limits={"stop_grace_seconds": 0.5})
    slow = batch.dataset.ids[50:60]
    batch.stub.set_faults({"do": "delay", "delay_ms": 20_000, "ids": [str(key) for key in slow]})
    run = batch.start().until_records(batch.stub, 190)
    since = time.monotonic()
    run.send(signal.SIGTERM)
    stopped(run, since, grace_seconds=0.5)
    batch.stub.set_faults()
    batch.run()
    verify(batch, repeated=len(slow))


MOMENTS: list[tuple[str, dict[str, Any]]] = [
    ("the manifest is named", {"call": "rename", "path": r"manifest\.json$"}),
    ("an outcome is appended", {"call": "write", "path": r"p00000/.*\.wal$", "nth": 7}),
    ("a log is synced", {"call": "fsync", "path": r"\.wal$"}),
    ("a segment is named", {"call": "rename", "path": r"good-.*\.arrow$"}),
    ("a log is deleted", {"call": "unlink", "path": r"\.wal$"}),
    ("a partition's seal is named", {"call": "rename", "path": r"done-000\.json$"}),
    ("the last partition's seal is named", {"call": "rename", "path": r"p00003/done-000\.json$"}),
    ("the first partition is committed", {"call": "commit", "path": ""}),
    ("the second partition is committed", {"call": "commit", "path": ""}),
]


def test_at_exact_moments_of_a_run(make_batch: MakeBatch) -> None:
    """Planning, logging, sealing and publishing; each run goes on where the one before was stopped."""
    batch = make_batch(rows=ROWS, latency_ms=20, interval_seconds=0.1)
    for name, rule in MOMENTS:
        print(name)
        _stop_at(batch, rule)
    assert batch.rows(), "the first partitions are published"
    requests = batch.stub.progress()["requests"]
    batch.run()
    assert batch.stub.progress()["requests"] == requests
    verify(batch, repeated=0)


def _stop_at(batch: Batch, rule: dict[str, Any]) -> None:
    stopped(batch.start(faults={"rules": [{**rule, "do": "term", "times": 1}]}), float("inf"))


def test_while_it_waits_for_another_runner(make_batch: MakeBatch) -> None:
    """The one that waits ends at once; the one that works is not disturbed."""
    batch = make_batch(rows=ROWS, latency_ms=100)
    worker = batch.start().until_records(batch.stub, 16)
    waiter = batch.start()
    waiter.until(lambda: "another runner is working" in waiter.stderr, "it waits")
    terminate(waiter)
    worker.expect(0)
    verify(batch, repeated=0)
