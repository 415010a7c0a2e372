"""The fault tests find what they are for: broken variants of the product fail the very invariants that it keeps.

Each scenario is played by the product as it is and by mutants of it, see :mod:`.support.mutants`.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any

import pytest

from tests.faults.conftest import MakeBatch
from tests.faults.support.batch import Batch
from tests.faults.support.invariants import problems
from tests.faults.support.mutants import MUTANTS
from tests.faults.support.power import lose_power, traced
from tests.faults.support.strace import needs_strace

LEASE = {"lease_seconds": 1.0}
LATENCY_MS = 20.0
Faults = dict[str, Any]


def killed_before_a_sync(batch: Batch, faults: Faults) -> int:
    """What a kill may cost is what is in flight, however long ago the last sync was."""
    batch.interval_seconds = 30.0
    batch.start(faults=faults).until_records(batch.stub, 300).kill()
    batch.start(faults=faults).wait()
    return batch.in_flight


def killed_before_a_segment_is_named(batch: Batch, faults: Faults) -> int:
    rule = {"call": "rename", "path": r"good-.*\.arrow$", "do": "die"}
    end = batch.start(faults={**faults, "rules": [rule]}).wait()
    assert end.code == -signal.SIGKILL
    batch.start(faults=faults).wait()
    return batch.in_flight


def lost_power(batch: Batch, faults: Faults) -> int:
    """It costs at most what was answered in an interval and the sync after it."""
    trace = batch.folder / "trace"
    run = batch.start(faults=faults, under=traced(trace))
    run.until(lambda: bool(batch.files("done-000.json")), "a partition is sealed")
    run.until_records(batch.stub, batch.stub.progress()["answered"] + 300).kill()
    assert lose_power(trace, batch.checkpoints) > 0
    batch.start(faults=faults).wait()
    an_interval = batch.in_flight / (LATENCY_MS / 1000) * 2 * batch.interval_seconds
    return batch.in_flight + int(an_interval)


def published_twice(batch: Batch, faults: Faults) -> int:
    batch.start(faults=faults).wait()
    batch.start("--recompute", faults=faults).wait()
    return batch.dataset.rows


def started_together(batch: Batch, faults: Faults) -> int:
    for run in [batch.start(faults=faults), batch.start(faults=faults)]:
        run.wait()
    return 0


def frozen_and_taken_over(batch: Batch, faults: Faults) -> int:
    frozen = batch.start(faults=faults).until_records(batch.stub, 100)
    frozen.send(signal.SIGSTOP)
    heir = batch.start(faults={**faults, **LEASE}).until_records(batch.stub, 200)
    frozen.send(signal.SIGCONT)
    for run in (frozen, heir):
        run.wait()
    return 2 * batch.in_flight + int(batch.interval_seconds * batch.in_flight / (LATENCY_MS / 1000))


SCENARIOS: list[tuple[Callable[[Batch, Faults], int], dict[str, Any], list[tuple[str, str]]]] = [
    (killed_before_a_sync, {}, [("buffered_log", "calls:"), ("forgetful_resume", "calls:")]),
    (killed_before_a_segment_is_named, {}, [("seal_first", "lost:")]),
    (
        lost_power,
        {"interval_seconds": 0.1, "partitions": 2, "rows": 1600},  # still calling when it is killed, however slow
        [("unsynced_rename", "lost:"), ("unsynced_log", "calls:")],
    ),
    (published_twice, {}, [("plain_insert", "duplicated:")]),
    (started_together, {}, [("no_lock", "calls:")]),
    (frozen_and_taken_over, {"partitions": 1}, [("no_fencing", "calls:")]),
]

# The product itself goes through these in test_kill_anywhere and test_two_runners.
PLAYED_ELSEWHERE = [published_twice, started_together]


def found_after(make_batch: MakeBatch, scenario: Any, settings: dict[str, Any], faults: Faults) -> list[str]:
    """What the invariants find wrong after a scenario."""
    batch = make_batch(**{"rows": 800, "latency_ms": LATENCY_MS, **settings})
    repeated = scenario(batch, faults)
    return problems(batch, repeated=repeated)


@needs_strace
@pytest.mark.parametrize(("scenario", "settings", "mutants"), SCENARIOS)
def test_caught(make_batch: MakeBatch, scenario: Any, settings: dict[str, Any], mutants: list[tuple[str, str]]) -> None:
    """Nothing is wrong with the product, and with each mutant what is expected of it."""
    if scenario not in PLAYED_ELSEWHERE:
        assert found_after(make_batch, scenario, settings, {}) == []
    for mutant, expected in mutants:
        found = found_after(make_batch, scenario, settings, {"mutant": mutant})
        assert any(problem.startswith(expected) for problem in found), f"{mutant} gets away with it: {found}"


def test_every_mutant_is_hunted() -> None:
    """None is left out of the scenarios."""
    assert sorted(name for _, _, mutants in SCENARIOS for name, _ in mutants) == sorted(MUTANTS)
