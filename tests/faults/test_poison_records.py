"""Records that a model server cannot digest: exactly those are quarantined, whatever becomes of calls they are in."""

from __future__ import annotations

import random
from typing import Any

import pytest

from tests.faults.conftest import MakeBatch
from tests.faults.support.batch import Batch
from tests.faults.support.invariants import verify

ATTEMPTS = 3
DEADLINE_SECONDS = 1.0
POISONS: list[tuple[str, dict[str, Any], str]] = [  # what the server does, and how a record is then reported
    ("400", {"do": "status", "status": 400}, "rejected"),
    ("422", {"do": "status", "status": 422}, "rejected"),
    ("500", {"do": "status", "status": 500}, "server_error"),
    ("connection dropped before the answer", {"do": "drop_before"}, "connection"),
    ("connection dropped after the work", {"do": "drop_after"}, "connection"),
    ("half an answer", {"do": "drop_half"}, "connection"),
    ("malformed JSON", {"do": "malformed"}, "invalid_answer"),
    ("no output", {"do": "missing"}, "invalid_output"),
    ("an output under an unknown id", {"do": "unknown"}, "invalid_output"),
    ("two outputs", {"do": "duplicate"}, "invalid_output"),
    ("text for a number", {"do": "wrong_type"}, "invalid_output"),
    ("an answer that drips without end", {"do": "drip", "seconds_per_byte": 0.4}, "timeout"),
]


def poison(batch: Batch, seed: int) -> list[str]:
    """Poison one seeded record of each kind, no two in a request; their ids, in the order of POISONS."""
    chosen, apart = random.Random(seed), batch.dataset.rows // len(POISONS)
    rows = [at * apart + chosen.randrange(apart // 2) for at in range(len(POISONS))]
    chosen.shuffle(rows)
    ids = [str(batch.dataset.ids[row]) for row in rows]
    batch.stub.set_faults(*({**rule, "ids": [key]} for key, (_, rule, _) in zip(ids, POISONS, strict=True)))
    return ids


def calls(batch: Batch) -> dict[str, int]:
    return batch.stub.counts("called")


def reported(batch: Batch) -> list[str]:
    """The error class of each quarantined record, sorted; what stands behind a colon left out."""
    reasons = batch.status()["quarantine"]
    return sorted(reason["error_class"].split(":")[0] for reason in reasons for _ in range(reason["count"]))


@pytest.mark.parametrize("records_per_request", [1, 16])
def test_quarantined_published_without_them_and_healed(
    make_batch: MakeBatch, seed: int, records_per_request: int
) -> None:
    """Exit 0 within the allowed fraction; once the server is healed, only they are called again, and all is there."""
    limits = {
        "records_per_request": records_per_request,
        "max_attempts": ATTEMPTS,
        "request_deadline_seconds": DEADLINE_SECONDS,
        "max_quarantined_fraction": 0.05,
    }
    batch = make_batch(rows=640, latency_ms=5, limits=limits)
    ids = poison(batch, seed)
    report = batch.run().report
    assert report is not None
    assert (report["succeeded"], report["quarantined"], report["published"]) == (628, 12, 628)
    assert reported(batch) == sorted(error_class for _, _, error_class in POISONS)
    neighbours = 0 if records_per_request == 1 else len(POISONS) * _called_along(records_per_request)
    verify(batch, repeated=neighbours, quarantined=ids)
    batch.stub.set_faults()
    before = calls(batch)
    batch.run("--retry-failed")
    again = {key: count - before.get(key, 0) for key, count in calls(batch).items() if count != before.get(key, 0)}
    assert again == dict.fromkeys(ids, 1)
    verify(batch, repeated=sum(before.values()) + len(ids) - 640)


def _called_along(size: int) -> int:
    """Calls that one poisoned record may cost the others of its request: two tries of each group it is halved to."""
    return 2 * size + (_called_along(size // 2) if size > 2 else 0)


def test_more_than_allowed(make_batch: MakeBatch, seed: int) -> None:
    """Exit 3 and nothing published; healed, --retry-failed calls what is missing and nothing that has an answer."""
    limits = {"max_attempts": ATTEMPTS, "request_deadline_seconds": DEADLINE_SECONDS, "concurrency": 8}
    batch = make_batch(rows=640, latency_ms=5, limits={**limits, "max_quarantined_fraction": 0.009})
    ids = poison(batch, seed)
    end = batch.run(code=3)
    assert "5 are allowed" in end.stderr
    assert batch.rows() == []
    requests = batch.stub.progress()["requests"]
    again = batch.run(code=3)
    assert batch.stub.progress()["requests"] == requests
    assert "5 are allowed" in again.stderr
    before = calls(batch)
    batch.stub.set_faults()
    batch.run("--retry-failed")
    answered_before = set(before) - set(ids)
    assert all(calls(batch)[key] == before[key] for key in answered_before)
    verify(batch, repeated=sum(before.values()) - len(before) + len(ids))
