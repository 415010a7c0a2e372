"""Checkpoints on an object store: an answer is safe after the next upload, and a dead runner's claim has to run out."""

from __future__ import annotations

import random
import signal
import time

import pytest

from tests.faults.conftest import MakeBatch
from tests.faults.support.batch import Batch, Run
from tests.faults.support.invariants import verify
from tests.support.ministack import MiniStack

LATENCY_MS = 60.0  # long enough for a second runner to start while the first one works
LEASE = {"lease_seconds": 1.5}


@pytest.fixture
def batch(make_batch: MakeBatch, ministack_server: MiniStack, bucket: str) -> Batch:
    """A batch with checkpoints in a bucket."""
    return make_batch(
        rows=1200,
        latency_ms=LATENCY_MS,
        checkpoint_uri=f"s3://{bucket}/checkpoints",
        environment=ministack_server.environment(),
    )


def one_kill(batch: Batch) -> int:
    """What a kill may cost: calls in flight, and those of an interval and the upload after it."""
    an_interval = batch.in_flight / (LATENCY_MS / 1000) * 2 * batch.interval_seconds
    return batch.in_flight + int(an_interval)


def waits(run: Run) -> bool:
    return "another runner is working" in run.stderr


def test_killed_over_and_over(batch: Batch, seed: int) -> None:
    """Three kills at seeded counts cost at most what was in flight and one interval each."""
    chosen = random.Random(seed)
    for kill in range(3):
        answered = batch.stub.progress()["answered"]
        run = batch.start(faults=LEASE).until_records(batch.stub, answered + chosen.randint(150, 300))
        print(f"kill {kill} at {batch.stub.progress()['answered']}")
        run.kill()
    batch.run(faults=LEASE)
    verify(batch, repeated=3 * one_kill(batch))


def test_started_together(batch: Batch, seed: int) -> None:
    """Claims are as good as a lock: no record is called twice."""
    first = batch.start(faults=LEASE)
    time.sleep(random.Random(seed).uniform(0.0, 0.5))  # the offset is what is random here
    second = batch.start(faults=LEASE)
    reports = [run.expect(0).report for run in (first, second)]
    assert [report["succeeded"] for report in reports if report] == [1200, 1200]
    verify(batch, repeated=0)


def test_the_one_that_works_is_killed(batch: Batch) -> None:
    """The one that waits takes over when the claim has not changed for the length of the lease."""
    worker = batch.start(faults=LEASE).until_records(batch.stub, 100)
    waiter = batch.start(faults=LEASE)
    waiter.until(lambda: waits(waiter), "it waits")
    worker.kill()
    waiter.expect(0)
    verify(batch, repeated=one_kill(batch))


def test_the_one_that_works_freezes_and_wakes_up(batch: Batch) -> None:
    """Frozen past the lease it is taken over; awake again it stops, and has damaged nothing."""
    frozen = batch.start(faults=LEASE).until_records(batch.stub, 200)
    frozen.send(signal.SIGSTOP)
    heir = batch.start(faults=LEASE).until_records(batch.stub, 500)
    frozen.send(signal.SIGCONT)
    frozen.wait()
    heir.expect(0)
    verify(batch, repeated=3 * one_kill(batch))
