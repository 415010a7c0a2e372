"""``kill -9`` at seeded moments, again and again, over the whole life of a run: plan, inference, seal, publish."""

from __future__ import annotations

import random
import time

from tests.faults.conftest import MakeBatch
from tests.faults.support.batch import Batch
from tests.faults.support.invariants import verify

KILLS = 8


def test_killed_over_and_over(make_batch: MakeBatch, seed: int) -> None:
    """Eight kills cost at most what was in flight eight times; afterwards everything is there once."""
    chosen = random.Random(seed)
    batch = make_batch(rows=1200, latency_ms=10)
    for _ in range(KILLS):
        _kill_somewhere(batch, chosen)
    batch.run()
    verify(batch, repeated=KILLS * batch.in_flight)


def _kill_somewhere(batch: Batch, chosen: random.Random) -> None:
    """Start a run and kill it: mostly at a count of answers, sometimes at a time."""
    run = batch.start()
    if chosen.random() < 0.75:
        answered = batch.stub.progress()["answered"]
        wanted = answered + chosen.randint(1, batch.dataset.rows // KILLS)
        print(f"kill at {wanted} records answered")
        run.until_records(batch.stub, min(wanted, batch.dataset.rows))
    else:
        seconds = chosen.uniform(0.0, 2.0)
        print(f"kill after {seconds:.3f} s")
        deadline = time.monotonic() + seconds
        while run.alive and time.monotonic() < deadline:
            time.sleep(0.005)
    run.kill()
