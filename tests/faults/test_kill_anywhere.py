"""``kill -9`` at seeded moments, again and again, over the whole life of a run: plan, inference, seal, publish."""

from __future__ import annotations

import random
import time

from tests.faults.conftest import MakeBatch
from tests.faults.support.batch import Batch
from tests.faults.support.invariants import verify

KILLS = 20


def test_killed_over_and_over(make_batch: MakeBatch, seed: int) -> None:
    """Twenty kills cost at most what was in flight twenty times; afterwards everything is there once."""
    chosen = random.Random(seed)
    batch = make_batch(rows=2400, latency_ms=10)
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


def test_killed_while_it_recomputes(make_batch: MakeBatch, seed: int) -> None:
    """The old rows stand until new ones replace them; a resume goes on with the new epoch and pays for each once."""
    chosen = random.Random(seed)
    batch = make_batch(rows=600, latency_ms=10)
    batch.run()
    before = batch.rows()
    wanted = 600 + chosen.randint(1, 500)
    print(f"kill at {wanted} records answered")
    batch.start("--recompute").until_records(batch.stub, wanted).kill()
    assert batch.rows() == before
    batch.run()
    assert {row["_inferred_at"] for row in batch.rows()}.isdisjoint(row["_inferred_at"] for row in before)
    verify(batch, repeated=600 + batch.in_flight)


def test_killed_while_it_retries_what_failed(make_batch: MakeBatch, seed: int) -> None:
    """Quarantined records that have an answer now keep it; the others are called by the resume, all in one round."""
    chosen = random.Random(seed)
    batch = make_batch(rows=600, latency_ms=20, limits={"max_quarantined_fraction": 0.5})
    failing = chosen.sample(batch.dataset.ids, 200)
    batch.stub.set_faults({"do": "status", "status": 400, "ids": [str(key) for key in failing]})
    batch.run()
    assert len(batch.rows()) == 400
    batch.stub.set_faults()
    wanted = batch.stub.progress()["answered"] + chosen.randint(1, 150)
    print(f"kill at {wanted} records answered")
    batch.start("--retry-failed").until_records(batch.stub, wanted).kill()
    batch.run()
    verify(batch, repeated=len(failing) + batch.in_flight)
