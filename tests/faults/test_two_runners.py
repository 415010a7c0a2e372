"""Two runners over one batch: each record is called once, the table holds one copy, and both end."""

from __future__ import annotations

import random
import signal
import time

from tests.faults.conftest import MakeBatch
from tests.faults.support.batch import Run
from tests.faults.support.invariants import verify

LEASE = {"lease_seconds": 1.0}


def waits(run: Run) -> bool:
    return "another runner is working" in run.stderr


def test_started_together(make_batch: MakeBatch, seed: int) -> None:
    """Whatever the offset, both say that all is done and no record was called twice."""
    batch = make_batch(rows=1200, latency_ms=10)
    first = batch.start()
    time.sleep(random.Random(seed).uniform(0.0, 1.0))  # the offset is what is random here
    second = batch.start()
    reports = [run.expect(0).report for run in (first, second)]
    assert [report["succeeded"] for report in reports if report] == [1200, 1200]
    verify(batch, repeated=0)


def test_the_one_that_works_is_killed(make_batch: MakeBatch) -> None:
    """The one that waits goes on at once: the kernel drops a dead runner's lock."""
    batch = make_batch(rows=1200, latency_ms=60)
    worker = batch.start().until_records(batch.stub, 100)
    waiter = batch.start()
    waiter.until(lambda: waits(waiter), "it waits")
    worker.kill()
    waiter.expect(0)
    verify(batch, repeated=batch.in_flight)


def test_the_one_that_works_freezes_and_wakes_up(make_batch: MakeBatch) -> None:
    """Frozen past the lease it is taken over; awake again it stops, and has damaged nothing."""
    batch = make_batch(rows=1200, latency_ms=50)
    frozen = batch.start().until_records(batch.stub, 200)
    frozen.send(signal.SIGSTOP)
    heir = batch.start(faults=LEASE).until_records(batch.stub, 600)
    frozen.send(signal.SIGCONT)
    assert "took" in frozen.expect(1).stderr
    heir.expect(0)
    a_sync_interval = int(batch.interval_seconds * batch.in_flight / 0.05)
    verify(batch, repeated=2 * batch.in_flight + a_sync_interval)


def test_it_freezes_with_its_last_calls_in_flight(make_batch: MakeBatch) -> None:
    """Awake again it has every outcome in memory but not in its log, which the heir has sealed and deleted."""
    batch = make_batch(rows=200, latency_ms=500, partitions=1, limits={"concurrency": 100})
    frozen = batch.start().until_records(batch.stub, 200, stage="paid")
    frozen.send(signal.SIGSTOP)
    heir = batch.start(faults=LEASE)
    heir.expect(0)
    frozen.send(signal.SIGCONT)
    frozen.wait()
    verify(batch, repeated=batch.in_flight)


def test_a_long_sync_interval_is_no_sign_of_death(make_batch: MakeBatch) -> None:
    """A runner that syncs more rarely than the lease lasts is alive all the same and is not taken over."""
    batch = make_batch(rows=800, latency_ms=80, partitions=1, interval_seconds=30.0)
    worker = batch.start(faults=LEASE).until_records(batch.stub, 16)
    waiter = batch.start(faults=LEASE)
    for run in (worker, waiter):
        run.expect(0)
    verify(batch, repeated=0)
