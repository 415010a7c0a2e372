"""The adaptive limit in a simulated server: it finds the capacity, stays near it, and comes back after an outage."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_ai.core.aimd import AdaptiveLimit

REFUSAL_SECONDS = 0.002


@dataclass
class Simulation:
    """A closed loop: as many calls as the limit allows against a server that answers ``capacity(now)`` at once."""

    limit: AdaptiveLimit
    capacity: Callable[[float], float]
    latency_seconds: float
    seed: int
    now: float = 0.0
    busy_seconds: float = 0.0
    round_trip: float = 0.25
    served: int = 0
    calls: list[tuple[float, int, bool]] = field(default_factory=list)

    def run(self, until: float, *, stop: Callable[[], bool] = lambda: False) -> None:
        numbers, count = random.Random(self.seed), 0
        while self.now < until and not stop():
            while len(self.calls) < self.limit.value:
                well = self.served < self.capacity(self.now)
                self.served += well
                seconds = self.latency_seconds * numbers.uniform(0.9, 1.1) if well else REFUSAL_SECONDS
                heapq.heappush(self.calls, (self.now + seconds, count, well))
                count += 1
            self._next_answer()

    def _next_answer(self) -> None:
        at, _, well = heapq.heappop(self.calls)
        self.busy_seconds += self.served * (at - self.now)
        self.now = at
        self.served -= well
        if well:
            self.round_trip += 0.1 * (self.latency_seconds - self.round_trip)
            self.limit.succeeded(at)
        else:
            self.limit.congested(at, round_trip=self.round_trip)


@pytest.mark.parametrize("latency_seconds", [0.05, 0.3, 1.0])
@pytest.mark.parametrize(
    ("ceiling", "capacity"),
    [
        (128, 64),  # asked for twice what the server takes
        (128, 10),  # far too much
        (64, 64),  # just right: the limit must never bite
        (64, 1),  # one at a time
    ],
)
def test_the_long_run_average_is_near_the_capacity(
    ceiling: int, capacity: int, latency_seconds: float, seed: int
) -> None:
    """At least 85 % of what the server can do, whatever was asked for and however long a call takes."""
    world = Simulation(AdaptiveLimit(ceiling), lambda now: capacity, latency_seconds, seed)
    world.run(10.0)  # finding the capacity
    world.busy_seconds = 0.0
    started = world.now
    world.run(started + 30 * max(1.0, latency_seconds))
    assert world.busy_seconds / (world.now - started) >= 0.85 * capacity


@pytest.mark.parametrize("ceiling", [2, 64, 128])
def test_after_a_total_outage_it_is_back_within_five_seconds(ceiling: int, seed: int) -> None:
    """Nothing but 429 for 10 s: down to 1; five seconds of successes later: the ceiling."""
    world = Simulation(AdaptiveLimit(ceiling), lambda now: 0 if 5 <= now < 15 else ceiling, 0.05, seed)
    world.run(5.0)
    assert world.limit.value == ceiling
    world.run(15.0)
    assert world.limit.value == 1
    world.run(20.0)
    assert world.limit.value == ceiling


def test_after_a_trickle_it_is_back_within_eight_seconds(seed: int) -> None:
    """An outage that lets one call in ten through looks like a tiny capacity; it is not believed for long."""
    numbers = random.Random(seed)
    world = Simulation(AdaptiveLimit(64), lambda now: 0 if 5 <= now < 15 and numbers.random() > 0.1 else 64, 0.05, seed)
    world.run(15.0)
    assert world.limit.value < 16
    world.run(23.0)
    assert world.limit.value == 64


def test_a_burst_counts_once() -> None:
    """64 calls in flight refused together are one message, not 64."""
    limit = AdaptiveLimit(64)
    cuts = [limit.congested(10.0 + i / 1000, round_trip=0.25) for i in range(64)]
    assert cuts.count(True) == 1
    assert limit.value == 44  # 64 · 0.7


def test_cuts_are_a_round_trip_apart() -> None:
    """What was sent before the cut says nothing about the limit after it."""
    limit = AdaptiveLimit(64)
    assert limit.congested(10.0, round_trip=2.0)
    assert not limit.congested(11.9, round_trip=2.0)
    assert limit.congested(12.1, round_trip=2.0)


@given(st.integers(1, 1000), st.lists(st.tuples(st.booleans(), st.floats(0, 10)), max_size=60))
def test_the_limit_stays_within_its_bounds(ceiling: int, steps: list[tuple[bool, float]]) -> None:
    """In [1, ceiling] after anything; successes never lower it, congestion never raises it."""
    limit, now = AdaptiveLimit(ceiling), 0.0
    assert limit.value == ceiling
    for well, pause in steps:
        now += pause
        before = limit.value
        if well:
            limit.succeeded(now)
            assert before <= limit.value <= ceiling
        else:
            limit.congested(now, round_trip=0.25)
            assert 1 <= limit.value <= before
