"""The fault tests find what they are for: broken variants of the product fail the very invariants that it keeps."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.jobs.support.invariants import problems
from tests.faults.jobs.support.mutants import MUTANTS
from tests.faults.jobs.support.opening import pack
from tests.faults.jobs.support.pack import Pack
from tests.faults.jobs.support.scenarios import doubled, plain, zombie
from tests.support.ministack import MiniStack
from tests.support.processes import ServiceError

Play = Callable[[Pack], None]
CAUGHT: dict[str, tuple[Play, float, str]] = {
    "no_fence": (zombie, 1200, "overwritten"),
    "no_claim": (doubled, 4000, "called more often than claimed"),
    "delete_first": (plain, 5, "deleted before its result was published"),
    "dispatch_later": (plain, 5, "deleted before its outcome was in the inbox"),
    "send_first": (plain, 5, "sent before the job's row was in the store"),
}


def test_every_mutant_is_caught_by_a_scenario() -> None:
    """None is forgotten here."""
    assert CAUGHT.keys() == MUTANTS.keys()


@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_mutant_is_caught(tmp_path: Path, ministack_server: MiniStack, mutant: str) -> None:
    """For the mistake it makes, whatever else that leads to."""
    play, latency_ms, words = CAUGHT[mutant]
    with pack(tmp_path, ministack_server, seed=0, latency_ms=latency_ms) as jobs:
        jobs.faults = {"mutant": mutant}
        try:
            play(jobs)
        except ServiceError:
            pass  # it may also never end
        found = problems(jobs)
        assert any(words in each for each in found), found


@pytest.mark.parametrize(("play", "latency_ms"), [(plain, 5), (doubled, 4000)])
def test_the_product_is_not(tmp_path: Path, ministack_server: MiniStack, play: Play, latency_ms: float) -> None:
    """In the same scenarios; the third one is played in test_zombies."""
    with pack(tmp_path, ministack_server, seed=0, latency_ms=latency_ms) as jobs:
        play(jobs)
        assert problems(jobs) == []
