"""The token bucket: never more than the limit and one burst, whatever the caller does; and no less than the limit."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_ai.core.rate_limit import TokenBucket

START = 1000.0


def spend_greedily(bucket: TokenBucket, amounts: list[float], *, until: float) -> list[tuple[float, float]]:
    """Spend as fast as the bucket allows; ``(time, amount)`` of everything spent."""
    now, spent, remaining = START, [], list(reversed(amounts))
    while remaining and now < until:
        if wait := bucket.wait(remaining[-1], now=now):
            assert now + wait > now, "the bucket asks for a wait that no clock can measure"
            now += wait
            continue
        amount = remaining.pop()
        bucket.spend(amount, now=now)
        spent.append((now, amount))
    return spent


@pytest.mark.parametrize("per_minute", [1, 30, 60, 600, 3_000, 250_000])
def test_a_minute_never_exceeds_the_limit_and_one_burst(per_minute: float) -> None:
    """In every window of a minute: at most the limit plus what the bucket holds; and the limit is used."""
    bucket = TokenBucket(per_minute, now=START)
    amount = max(1.0, per_minute / 600)
    spent = spend_greedily(bucket, [amount] * 1500, until=START + 120)
    burst = max(1.0, per_minute / 60)
    times = [at for at, _ in spent]
    for first in range(0, len(times), max(1, len(times) // 200)):
        window = sum(amount for at, amount in spent[first:] if at < times[first] + 60)
        assert window <= per_minute + burst + amount + 1e-6
    if times[-1] - START >= 60:
        assert sum(amount for at, amount in spent if at < START + 60) >= per_minute - amount


@given(st.floats(0.5, 1e7), st.lists(st.floats(0, 20), min_size=1, max_size=30))
def test_any_amounts_stay_within_the_rate(per_minute: float, loads: list[float]) -> None:
    """Also calls larger than the bucket: they go out when it is full, and what they overdrew is waited for."""
    capacity = max(1.0, per_minute / 60)
    amounts = [load * capacity for load in loads]
    bucket = TokenBucket(per_minute, now=START)
    spent = spend_greedily(bucket, amounts, until=float("inf"))
    assert len(spent) == len(amounts)
    for index, (at, _) in enumerate(spent):
        before = sum(amount for _, amount in spent[:index])
        assert before <= capacity + (at - START) * per_minute / 60 + 1e-6 * max(1.0, before, per_minute)


def test_a_wait_is_long_enough(seed: int) -> None:
    """After the seconds it names the amount may be spent: no caller spins in steps of nothing."""
    numbers = random.Random(seed)
    bucket, now = TokenBucket(600, now=START), START
    for _ in range(2000):
        amount = numbers.choice([0.0, 1.0, 3.3, 10.0, 55.5])
        now += bucket.wait(amount, now=now)
        assert bucket.wait(amount, now=now) == 0.0
        bucket.spend(amount, now=now)
        now += numbers.random() * 0.01


def test_what_an_estimate_took_too_much_is_given_back() -> None:
    """A call estimated at 10 that used 4 leaves 6; giving back never fills the bucket beyond its size."""
    bucket = TokenBucket(600, now=START)
    bucket.spend(10, now=START)
    assert bucket.wait(6, now=START) > 0
    bucket.spend(-6, now=START)
    assert bucket.wait(6, now=START) == 0
    bucket.spend(-100, now=START)
    bucket.spend(10, now=START)
    assert bucket.wait(1, now=START) == pytest.approx(0.1)


def test_a_use_above_the_estimate_is_waited_for() -> None:
    """The bucket owes what the call used beyond its estimate."""
    bucket = TokenBucket(60, now=START)
    bucket.spend(1, now=START)
    bucket.spend(29, now=START)
    assert bucket.wait(1, now=START) == pytest.approx(30.0)
