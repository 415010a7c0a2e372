"""A model server that throttles, dies or hangs for ten seconds: nothing is quarantined, and the pace comes back."""

from __future__ import annotations

import time

from tests.faults.conftest import MakeBatch
from tests.faults.support.batch import Batch, Run
from tests.faults.support.invariants import verify
from tests.faults.support.pace import Pace

OUTAGE_SECONDS = 10.0
BACK_WITHIN_SECONDS = 10.0
ROWS = 6000
WARM = 1200


def wait_out(run: Run, seconds: float = OUTAGE_SECONDS) -> None:
    """The outage itself: its length is what the tests are about."""
    time.sleep(seconds)
    assert run.alive, f"the run gave up:\n{run.stderr}"


def comes_back(batch: Batch, run: Run, pace: Pace, *, usual: float, healed: float) -> None:
    """At half the usual pace within seconds after the end of the outage, and everything succeeds."""
    report = run.expect(0).report
    assert report is not None
    assert report["quarantined"] == 0
    back = pace.back_at(usual / 2, healed)
    print(f"{usual:.0f} records/s before; back at half of that {back} s after the outage")
    assert back is not None
    assert back < BACK_WITHIN_SECONDS


def usual_pace(run: Run, batch: Batch, pace: Pace) -> float:
    """Records a second before the outage, after start-up."""
    run.until_records(batch.stub, WARM // 3)
    start = time.monotonic()
    run.until_records(batch.stub, WARM)
    return pace.rate(start, time.monotonic())


def test_429_for_ten_seconds(make_batch: MakeBatch) -> None:
    """Retry-After in seconds, then as a date: no attempt is used up, and nothing is paid for twice."""
    batch = make_batch(rows=ROWS, latency_ms=20, limits={"max_attempts": 2})
    throttle = {"do": "status", "status": 429, "for_seconds": OUTAGE_SECONDS / 2}
    with Pace(batch.stub) as pace:
        run = batch.start()
        usual = usual_pace(run, batch, pace)
        batch.stub.set_faults(
            {**throttle, "retry_after": 1},
            {**throttle, "retry_after": 2, "retry_after_form": "date", "after_seconds": OUTAGE_SECONDS / 2},
        )
        healed = time.monotonic() + OUTAGE_SECONDS
        comes_back(batch, run, pace, usual=usual, healed=healed)
    stats = batch.stub.stats()
    assert stats["statuses"]["429"] > 0
    verify(batch, repeated=0, stage="paid")


def test_503_for_ten_seconds(make_batch: MakeBatch) -> None:
    """Without Retry-After: the run pauses and probes instead of using up attempts, and nothing is paid for twice."""
    batch = make_batch(rows=ROWS, latency_ms=20, limits={"max_attempts": 2})
    with Pace(batch.stub) as pace:
        run = batch.start()
        usual = usual_pace(run, batch, pace)
        batch.stub.set_faults({"do": "status", "status": 503, "for_seconds": OUTAGE_SECONDS})
        comes_back(batch, run, pace, usual=usual, healed=time.monotonic() + OUTAGE_SECONDS)
    assert 0 < batch.stub.stats()["statuses"]["503"] < 10 * batch.in_flight
    verify(batch, repeated=0, stage="paid")


def test_dripping_for_ten_seconds(make_batch: MakeBatch) -> None:
    """Answers of one byte in 0.2 s never end before their deadline: cut off there, paid for again when it is over."""
    batch = make_batch(rows=ROWS, latency_ms=20, limits={"max_attempts": 4, "request_deadline_seconds": 2.0})
    with Pace(batch.stub) as pace:
        run = batch.start()
        usual = usual_pace(run, batch, pace)
        batch.stub.set_faults({"do": "drip", "seconds_per_byte": 0.2, "for_seconds": OUTAGE_SECONDS})
        comes_back(batch, run, pace, usual=usual, healed=time.monotonic() + OUTAGE_SECONDS)
    verify(batch, repeated=int(batch.in_flight * OUTAGE_SECONDS / 2.0) + batch.in_flight, stage="paid")


def test_dead_for_ten_seconds(make_batch: MakeBatch) -> None:
    """SIGKILL of the server and a restart on its port: what it was working on is paid for twice, nothing else."""
    batch = make_batch(rows=ROWS, latency_ms=20, numbers=True, limits={"max_attempts": 2})
    with Pace(batch.stub) as pace:
        run = batch.start()
        usual = usual_pace(run, batch, pace)
        batch.stub.kill()
        wait_out(run)
        batch.stub.start()
        comes_back(batch, run, pace, usual=usual, healed=time.monotonic())
    verify(batch, repeated=batch.in_flight, stage="paid")


def test_hanging_for_ten_seconds(make_batch: MakeBatch) -> None:
    """SIGSTOP of the server: calls run into their deadline and are sent again when it goes on, a few of them twice."""
    batch = make_batch(rows=ROWS, latency_ms=20, limits={"max_attempts": 2, "request_deadline_seconds": 2.0})
    with Pace(batch.stub) as pace:
        run = batch.start()
        usual = usual_pace(run, batch, pace)
        batch.stub.pause()
        try:
            wait_out(run)
        finally:
            batch.stub.resume()
        comes_back(batch, run, pace, usual=usual, healed=time.monotonic())
    verify(batch, repeated=3 * batch.in_flight, stage="paid")
