"""The circuit breaker that all processes share, decided step by step."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from airflow_provider_ai.core.call_ports import Evidence
from airflow_provider_ai.core.call_settings import BreakerSettings
from airflow_provider_ai.core.circuit_breaker import BreakerState
from airflow_provider_ai.core.shared_breaker import Breaker, Window, after_call, after_probe, ask, bucket_start

SETTINGS = BreakerSettings(minimum_calls=4, failure_fraction=0.5, open_seconds=5.0, longest_open_seconds=15.0)
CLOSED, OPEN, HALF_OPEN = BreakerState.CLOSED, BreakerState.OPEN, BreakerState.HALF_OPEN
NOW = 1_000_000.0
OPENED = Breaker(version=3, state=OPEN, probe_at=NOW + 5)
PROBED = Breaker(version=4, state=HALF_OPEN, lease="mine", lease_until=NOW + 10)


@pytest.mark.parametrize(
    ("alive", "failing", "opens"),
    [
        (0, 3, False),  # too few calls
        (0, 4, True),
        (3, 1, False),
        (3, 2, False),
        (2, 2, True),  # as many as the fraction
        (1000, 999, False),
    ],
)
def test_it_opens_on_enough_failures_among_enough_calls(alive: int, failing: int, opens: bool) -> None:
    """Minimum volume and failure fraction, both."""
    after = after_call(Breaker(version=7), Window(alive=alive, failing=failing), SETTINGS, now=NOW, version=7)
    assert after == (Breaker(version=8, state=OPEN, probe_at=NOW + 5) if opens else Breaker(version=7))


@pytest.mark.parametrize(
    ("breaker", "version"), [(Breaker(version=7), 6), (replace(OPENED, version=7), 7), (replace(PROBED, version=7), 7)]
)
def test_a_late_failure_opens_nothing(breaker: Breaker, version: int) -> None:
    """A call that an older version let out, or one that ends when it is open already, changes nothing."""
    assert after_call(breaker, Window(failing=100), SETTINGS, now=NOW, version=version) is breaker


def test_closed_lets_everyone_through_and_does_not_change() -> None:
    """So nothing has to be written for a call."""
    closed = Breaker(version=2)
    assert ask(closed, SETTINGS, now=NOW, lease="a") is closed
    assert not closed.refuses("a")


def test_open_refuses_until_its_time_and_then_lets_one_through() -> None:
    """That one holds the lease; a second one is refused."""
    early = ask(OPENED, SETTINGS, now=NOW + 4.9, lease="a")
    assert early is OPENED
    assert early.refuses("a")
    probing = ask(OPENED, SETTINGS, now=NOW + 5, lease="a")
    assert probing == Breaker(version=4, state=HALF_OPEN, probe_at=NOW + 5, lease="a", lease_until=NOW + 15)
    assert not probing.refuses("a")
    assert ask(probing, SETTINGS, now=NOW + 6, lease="b") is probing
    assert probing.refuses("b")


def test_a_probe_that_never_ends_is_given_up_for_one_other() -> None:
    """After its lease, which the other one takes over."""
    assert ask(PROBED, SETTINGS, now=NOW + 9.9, lease="other") is PROBED
    taken = ask(PROBED, SETTINGS, now=NOW + 10, lease="other")
    assert (taken.lease, taken.lease_until, taken.version) == ("other", NOW + 20, 5)
    assert after_probe(taken, Evidence.ALIVE, SETTINGS, now=NOW + 11, lease="mine") is taken


def test_a_good_probe_closes() -> None:
    """With a new version, whose window is empty."""
    assert after_probe(PROBED, Evidence.ALIVE, SETTINGS, now=NOW, lease="mine") == Breaker(version=5)


def test_failing_probes_wait_longer_and_longer() -> None:
    """Twice as long each time, up to the longest; a good probe starts over."""
    breaker, now, pauses = OPENED, NOW + 5, []
    for _ in range(5):
        breaker = ask(breaker, SETTINGS, now=now, lease="mine")
        breaker = after_probe(breaker, Evidence.FAILING, SETTINGS, now=now, lease="mine")
        assert breaker.state is OPEN
        pauses.append(breaker.probe_at - now)
        now = breaker.probe_at
    assert pauses == [10, 15, 15, 15, 15]
    closed = after_probe(ask(breaker, SETTINGS, now=now, lease="x"), Evidence.ALIVE, SETTINGS, now=now, lease="x")
    again = after_call(closed, Window(failing=4), SETTINGS, now=now, version=closed.version)
    assert again.probe_at == now + 5


def test_a_probe_that_was_never_sent_gives_its_lease_back() -> None:
    """The next call is the probe, at once."""
    back = after_probe(PROBED, Evidence.NONE, SETTINGS, now=NOW, lease="mine")
    assert (back.state, back.lease) == (HALF_OPEN, "")
    assert not ask(back, SETTINGS, now=NOW, lease="next").refuses("next")


@pytest.mark.parametrize("evidence", list(Evidence))
def test_a_late_probe_changes_nothing(evidence: Evidence) -> None:
    """Neither after its lease nor with another's."""
    assert after_probe(PROBED, evidence, SETTINGS, now=NOW + 10, lease="mine") is PROBED
    assert after_probe(PROBED, evidence, SETTINGS, now=NOW, lease="other") is PROBED
    assert after_probe(OPENED, evidence, SETTINGS, now=NOW, lease="") is OPENED


def test_a_clock_that_was_set_back_does_not_keep_it_open() -> None:
    """A time that no setting can have put there is over."""
    assert not ask(OPENED, SETTINGS, now=NOW - 86_400, lease="a").refuses("a")
    assert not ask(PROBED, SETTINGS, now=NOW - 86_400, lease="a").refuses("a")


def test_a_clock_read_a_moment_ago_takes_no_lease_away() -> None:
    """Whoever read the clock just before another one got the lease sees it end later than any lease can."""
    assert ask(PROBED, SETTINGS, now=NOW - 0.5, lease="a").refuses("a")
    assert ask(replace(OPENED, probe_at=NOW + 15), SETTINGS, now=NOW - 0.5, lease="a").refuses("a")


def test_buckets_are_a_tenth_of_the_window() -> None:
    """A bucket begins at a multiple of its length, whoever asks."""
    settings = BreakerSettings(window_seconds=30)
    assert {bucket_start(NOW + offset, settings) for offset in (2.0, 3.5, 4.9)} == {NOW + 2.0}
    assert bucket_start(NOW + 5.0, settings) == NOW + 5.0


def test_no_history_lets_two_probes_out_at_once(seed: int) -> None:
    """Random calls, ends and pauses: at any time at most one lease is in force, and versions only rise."""
    chance = random.Random(seed)
    breaker, now, probes = Breaker(), NOW, dict[str, float]()
    for step in range(5_000):
        now += chance.choice((0.0, 0.1, 1.0, 4.0, 11.0))
        before, lease = breaker, str(step)
        if chance.random() < 0.5:
            breaker = ask(breaker, SETTINGS, now=now, lease=lease)
            if breaker.lease == lease:
                assert all(until <= now for until in probes.values())
                probes = {lease: breaker.lease_until}
        elif probes and chance.random() < 0.7:
            ending = chance.choice(list(probes))
            breaker = after_probe(breaker, chance.choice(list(Evidence)), SETTINGS, now=now, lease=ending)
            del probes[ending]
        else:
            window = Window(alive=chance.randrange(8), failing=chance.randrange(8))
            breaker = after_call(breaker, window, SETTINGS, now=now, version=breaker.version)
        assert breaker is before or breaker.version == before.version + 1
