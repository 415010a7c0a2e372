"""The breaker pauses for an endpoint that is down, and is not fooled by records that are bad."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from airflow_provider_ai.core.circuit_breaker import BreakerState, CircuitBreaker


@dataclass
class Line:
    """A breaker with a clock, and what became of the calls."""

    breaker: CircuitBreaker = field(default_factory=lambda: CircuitBreaker(max_outage_seconds=300.0))
    now: float = 1000.0
    calls: int = 0
    counted: int = 0

    def send(self) -> bool:
        """Send a call; whether it is the probe."""
        assert self.breaker.wait(self.now) == 0.0
        self.calls += 1
        return self.breaker.sent()

    def fail(self, *, first_try: bool = True, unreachable: bool = False, probe: bool = False) -> bool:
        """A call fails; whether that counts."""
        counts = self.breaker.failed(self.now, first_try=first_try, unreachable=unreachable, probe=probe, random=0.5)
        self.counted += counts
        return counts

    def call_until_paused(self, *, unreachable: bool = False) -> None:
        """Fail calls until the breaker opens."""
        while self.breaker.state is BreakerState.CLOSED:
            assert not self.send()
            self.fail(unreachable=unreachable)

    def wait_for_probe(self) -> None:
        """Let time pass until a call may go out."""
        wait = self.breaker.wait(self.now)
        assert wait is not None
        self.now += wait


def test_it_lets_calls_through_while_all_is_well() -> None:
    """Closed: no wait, and no call is a probe."""
    line = Line()
    assert [line.send() for _ in range(3)] == [False, False, False]
    assert line.breaker.outage_seconds(line.now) == 0.0


@pytest.mark.parametrize("unreachable", [True, False], ids=["refused connections", "HTTP 500"])
def test_it_opens_after_five_failures_in_a_row(unreachable: bool) -> None:
    """Four may be chance. From the fifth on no failure counts against a record."""
    line = Line()
    line.call_until_paused(unreachable=unreachable)
    assert (line.calls, line.counted) == (5, 4)
    assert line.breaker.state is BreakerState.OPEN
    assert 0 < (line.breaker.wait(line.now) or 0) <= 0.25
    assert not line.fail(), "a call that was in flight when the breaker opened burns no attempt either"


def test_a_success_between_failures_keeps_it_closed() -> None:
    """Nine failures in ten are an endpoint with bad records, not one that is down."""
    line = Line()
    for _ in range(50):
        for _ in range(4):
            line.send()
            assert line.fail()
        line.breaker.alive(probe=line.send())
    assert line.breaker.state is BreakerState.CLOSED


def test_poison_records_at_the_end_of_a_run_do_not_open_it() -> None:
    """The last records left are those that failed before: their failing again proves nothing of the endpoint."""
    line = Line()
    for _ in range(100):
        line.send()
        assert line.fail(first_try=False), "each must count, or the run would never end"
    assert line.breaker.state is BreakerState.CLOSED


def test_refused_connections_count_whoever_makes_them() -> None:
    """No record can make a connection fail."""
    line = Line()
    for _ in range(5):
        line.send()
        line.fail(first_try=False, unreachable=True)
    assert line.breaker.state is BreakerState.OPEN


def test_half_open_exactly_one_probe_goes_out() -> None:
    """Whatever else comes back meanwhile, nothing more is sent before the probe has."""
    line = Line()
    line.call_until_paused()
    line.wait_for_probe()
    assert line.send(), "this is the probe"
    for seconds in (0.0, 1.0, 30.0):
        assert line.breaker.wait(line.now + seconds) is None
    assert not line.fail(probe=False), "a call sent before the outage"
    assert line.breaker.state is BreakerState.HALF_OPEN
    assert line.breaker.wait(line.now + 60.0) is None, "it is not the probe that failed"
    assert not line.fail(probe=True)
    assert line.breaker.state is BreakerState.OPEN


def test_an_old_call_that_succeeds_earns_a_trial_but_closes_nothing() -> None:
    """It tells how the endpoint was when the call was sent: one new call may find out how it is, at nobody's cost."""
    line = Line()
    line.call_until_paused()
    for _ in range(3):
        line.breaker.alive(probe=False)
    assert [line.send() for _ in range(3)] == [True, True, True]
    assert line.breaker.wait(line.now), "the trials are used up"
    assert [line.fail(probe=True) for _ in range(3)] == [False] * 3
    assert line.breaker.state is BreakerState.OPEN
    line.breaker.alive(probe=False)
    assert line.send()
    line.breaker.alive(probe=True)
    assert line.breaker.state is BreakerState.CLOSED


def test_answers_from_before_the_outage_let_no_attempt_be_burnt() -> None:
    """A service that drains: what it had accepted succeeds, one by one, while everything new is refused."""
    line = Line()
    line.call_until_paused()
    for _ in range(64):
        line.breaker.alive(probe=False)
        while line.breaker.wait(line.now) == 0.0:
            line.fail(probe=line.send())
    assert line.counted == 4


def test_a_success_of_a_probe_ends_the_trials() -> None:
    """They are not left over for the next outage."""
    line = Line()
    line.call_until_paused()
    line.breaker.alive(probe=False)
    line.breaker.alive(probe=True)
    line.call_until_paused()
    assert line.breaker.wait(line.now)


def test_doubtful_from_the_first_failure_to_the_next_success_or_until_errors_are_believed() -> None:
    """Meanwhile calls that failed before are held back; for ever, they would be left over."""
    line = Line()
    seen = [line.breaker.doubtful]
    line.send()
    line.fail()
    seen.append(line.breaker.doubtful)
    line.breaker.alive(probe=False)
    seen.append(line.breaker.doubtful)
    line.call_until_paused()
    seen.append(line.breaker.doubtful)
    while line.counted == 5:
        line.wait_for_probe()
        line.fail(probe=line.send())
    seen.append(line.breaker.doubtful)
    assert seen == [False, True, False, True, False]


def test_pauses_grow_and_are_bounded() -> None:
    """A probe about every two seconds at most and at least: quick to notice, cheap to wait."""
    line = Line()
    line.call_until_paused(unreachable=True)
    pauses = []
    for _ in range(20):
        before = line.now
        line.wait_for_probe()
        pauses.append(line.now - before)
        line.send()
        line.fail(unreachable=True, probe=True)
    assert pauses == sorted(pauses)
    assert pauses[0] <= 0.25
    assert 1.0 <= pauses[-1] <= 2.0


@pytest.mark.parametrize("unreachable", [True, False], ids=["refused connections", "HTTP 500"])
def test_ten_seconds_down_cost_four_attempts_and_few_calls(unreachable: bool) -> None:
    """Then one success, and everything is as before."""
    line = Line()
    line.call_until_paused(unreachable=unreachable)
    while line.now < 1010.0:
        line.wait_for_probe()
        line.send()
        line.fail(unreachable=unreachable, probe=True)
    assert line.counted == 4
    assert line.calls <= 5 + 12
    line.wait_for_probe()
    line.breaker.alive(probe=line.send())
    assert line.breaker.state is BreakerState.CLOSED
    assert line.breaker.outage_seconds(line.now) == 0.0
    line.send()
    assert line.fail(), "the next failure is the first of its kind"


def test_an_endpoint_that_only_answers_errors_is_believed_in_the_end() -> None:
    """After 30 s of errors they count: what keeps failing is quarantined, and the run ends."""
    line = Line()
    line.call_until_paused()
    while line.counted == 4:
        line.wait_for_probe()
        probe = line.send()
        line.fail(probe=probe)
    assert 1030.0 < line.now < 1033.0
    assert line.breaker.state is BreakerState.CLOSED
    for _ in range(20):
        line.send()
        assert line.fail(), "no more pauses until something succeeds"


def test_patience_ends_with_the_longest_outage_allowed() -> None:
    """A run that will not wait 30 s is not made to."""
    line = Line(CircuitBreaker(max_outage_seconds=3.0))
    line.call_until_paused()
    while line.counted == 4:
        line.wait_for_probe()
        line.fail(probe=line.send())
    assert line.now < 1006.0


def test_it_is_hopeless_only_when_unreachable_for_too_long() -> None:
    """Refused connections beyond max_outage_seconds end the run; errors never do (they are believed instead)."""
    line = Line(CircuitBreaker(max_outage_seconds=20.0))
    line.call_until_paused(unreachable=True)
    while not line.breaker.hopeless(line.now):
        assert line.now < 1023.0
        line.wait_for_probe()
        line.fail(unreachable=True, probe=line.send())
    assert line.now > 1020.0
    assert line.counted == 4
    line.breaker.alive(probe=True)
    assert not line.breaker.hopeless(line.now)
