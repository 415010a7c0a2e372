"""One contract for the call gate of every store, and for its fake: breaker, then bulkhead, and leases that end."""

from __future__ import annotations

import pytest

from airflow_provider_ai.adapters.store.store import Store
from airflow_provider_ai.core.call_ports import Admission, CallGate, Evidence
from airflow_provider_ai.core.call_settings import BreakerSettings, CallSettings
from airflow_provider_ai.core.circuit_breaker import BreakerState
from airflow_provider_ai.core.shared_breaker import SLOT_LEASE_SECONDS
from airflow_provider_ai.testing import InMemoryStore
from tests.adapters.store.conftest import TestClock

AnyStore = Store | InMemoryStore
BREAKER = BreakerSettings(
    window_seconds=30, minimum_calls=4, failure_fraction=0.5, open_seconds=5, longest_open_seconds=8
)
SETTINGS = CallSettings(max_concurrent_calls=3, breaker=BREAKER)
CLOSED, OPEN, HALF_OPEN = BreakerState.CLOSED, BreakerState.OPEN, BreakerState.HALF_OPEN


@pytest.fixture
def gate(store: AnyStore) -> CallGate:
    return store.gate(SETTINGS)


def call(gate: CallGate, evidence: Evidence, endpoint: str = "e") -> BreakerState:
    admission = gate.admit(endpoint)
    assert admission.refused is None
    return gate.settle(admission, evidence)


def break_it(gate: CallGate, endpoint: str = "e") -> None:
    states = [call(gate, Evidence.FAILING, endpoint) for _ in range(BREAKER.minimum_calls)]
    assert states == [CLOSED] * (BREAKER.minimum_calls - 1) + [OPEN]


def half_open(gate: CallGate, clock: TestClock) -> Admission:
    """The probe."""
    break_it(gate)
    clock.now += BREAKER.open_seconds
    probe = gate.admit("e")
    assert probe.probe
    assert probe.state is HALF_OPEN
    return probe


# --- breaker


def test_an_endpoint_nobody_knows_is_closed(gate: CallGate) -> None:
    """The first call goes out."""
    first = gate.admit("e")
    assert (first.state, first.refused, first.probe) == (CLOSED, None, False)
    assert gate.settle(first, Evidence.ALIVE) is CLOSED


def test_failures_open_it_for_everyone(store: AnyStore, gate: CallGate) -> None:
    """Another gate on the same store refuses too, and says why; other endpoints go on."""
    break_it(gate)
    for each in (gate, store.gate(SETTINGS)):
        refused = each.admit("e")
        assert (refused.state, refused.refused, refused.slot) == (OPEN, "breaker_open", None)
    assert gate.admit("other").refused is None


def test_good_calls_and_unsent_ones_open_nothing(gate: CallGate) -> None:
    """Only failures do, as a fraction of what was counted."""
    states = {call(gate, evidence) for evidence in (Evidence.ALIVE, Evidence.NONE) * 10}
    states |= {call(gate, Evidence.FAILING) for _ in range(9)}
    assert states == {CLOSED}
    assert call(gate, Evidence.FAILING) is OPEN


def test_the_window_slides(gate: CallGate, clock: TestClock) -> None:
    """What is older than the window does not count."""
    for _ in range(3):
        call(gate, Evidence.FAILING)
    clock.now += BREAKER.window_seconds
    assert [call(gate, Evidence.FAILING) for _ in range(3)] == [CLOSED] * 3
    clock.now += BREAKER.window_seconds / 2
    assert call(gate, Evidence.FAILING) is OPEN


def test_half_open_lets_one_probe_through(gate: CallGate, clock: TestClock) -> None:
    """Everyone else is refused until it has ended well."""
    probe = half_open(gate, clock)
    for _ in range(3):
        assert (gate.admit("e").refused, gate.admit("e").state) == ("breaker_open", HALF_OPEN)
    assert gate.settle(probe, Evidence.ALIVE) is CLOSED
    assert gate.admit("e").state is CLOSED


def test_a_good_probe_clears_the_window(gate: CallGate, clock: TestClock) -> None:
    """The failures from before do not count again."""
    gate.settle(half_open(gate, clock), Evidence.ALIVE)
    break_it(gate)


def test_a_failing_probe_opens_it_for_longer(gate: CallGate, clock: TestClock) -> None:
    """Twice as long, but no longer than the longest."""
    assert gate.settle(half_open(gate, clock), Evidence.FAILING) is OPEN
    for pause in (8, 8):
        clock.now += pause - 0.5
        assert gate.admit("e").refused == "breaker_open"
        clock.now += 0.5
        assert gate.settle(gate.admit("e"), Evidence.FAILING) is OPEN


def test_a_probe_that_was_not_sent_lets_the_next_one_through(gate: CallGate, clock: TestClock) -> None:
    """At once: nothing is known of the endpoint."""
    assert gate.settle(half_open(gate, clock), Evidence.NONE) is HALF_OPEN
    assert gate.admit("e").probe


def test_a_probe_that_never_ends_is_taken_over_by_one(gate: CallGate, clock: TestClock) -> None:
    """After its lease; what it says later changes nothing."""
    lost = half_open(gate, clock)
    clock.now += BREAKER.probe_lease_seconds - 0.1
    assert gate.admit("e").refused == "breaker_open"
    clock.now += 0.1
    heir = gate.admit("e")
    assert heir.probe
    assert gate.admit("e").refused == "breaker_open"
    assert gate.settle(lost, Evidence.ALIVE) is HALF_OPEN
    assert gate.settle(heir, Evidence.FAILING) is OPEN
    assert gate.settle(lost, Evidence.ALIVE) is OPEN


def test_an_expired_probe_changes_nothing_before_it_is_taken_over_either(gate: CallGate, clock: TestClock) -> None:
    """Its lease is over, whoever holds it now."""
    lost = half_open(gate, clock)
    clock.now += BREAKER.probe_lease_seconds
    assert gate.settle(lost, Evidence.ALIVE) is HALF_OPEN
    assert gate.admit("e").probe


def test_calls_from_before_the_outage_do_not_count_after_it(gate: CallGate, clock: TestClock) -> None:
    """They say how the endpoint was when they were sent."""
    late = [gate.admit("e") for _ in range(2)]
    for _ in range(4):
        call(gate, Evidence.FAILING)
    clock.now += BREAKER.open_seconds
    gate.settle(gate.admit("e"), Evidence.ALIVE)
    assert [gate.settle(admission, Evidence.FAILING) for admission in late] == [CLOSED] * 2
    break_it(gate)


def test_settling_twice_counts_once(gate: CallGate) -> None:
    """A repeated settle finds its lease gone."""
    once = gate.admit("e")
    for _ in range(BREAKER.minimum_calls + 1):
        assert gate.settle(once, Evidence.FAILING) is CLOSED


def test_a_clock_set_back_does_not_keep_it_open(gate: CallGate, clock: TestClock) -> None:
    """Nor does it keep slots taken."""
    held = [gate.admit("e") for _ in range(3)]
    assert None not in [admission.slot for admission in held]
    clock.now -= 86_400
    assert gate.admit("e").refused is None
    break_it(gate, "f")
    clock.now -= 86_400
    assert gate.admit("f").probe


# --- bulkhead


def test_the_bulkhead_rejects_above_its_size(gate: CallGate) -> None:
    """And lets the next one in when one has ended, whatever it ended with."""
    held = [gate.admit("e") for _ in range(3)]
    assert sorted(admission.slot or 0 for admission in held) == [0, 1, 2]
    for evidence in Evidence:
        full = gate.admit("e")
        assert (full.refused, full.state, full.slot) == ("bulkhead_full", CLOSED, None)
        gate.settle(held.pop(0), evidence)
        held.append(gate.admit("e"))
        assert held[-1].refused is None
    assert gate.admit("other").refused is None


def test_a_slot_comes_back_when_its_lease_is_over(gate: CallGate, clock: TestClock) -> None:
    """And its former holder frees nothing by settling late."""
    lost = [gate.admit("e") for _ in range(3)]
    clock.now += SLOT_LEASE_SECONDS - 0.1
    assert gate.admit("e").refused == "bulkhead_full"
    clock.now += 0.1
    heirs = [gate.admit("e") for _ in range(3)]
    assert [heir.refused for heir in heirs] == [None] * 3
    for admission in lost:
        gate.settle(admission, Evidence.ALIVE)
    assert gate.admit("e").refused == "bulkhead_full"


def test_a_full_bulkhead_does_not_keep_the_probe(store: AnyStore, gate: CallGate, clock: TestClock) -> None:
    """The call that finds a place next is the probe."""
    narrow = store.gate(CallSettings(max_concurrent_calls=1, breaker=BREAKER))
    assert narrow.admit("e").slot == 0
    break_it(gate)
    clock.now += BREAKER.open_seconds
    full = narrow.admit("e")
    assert (full.refused, full.state, full.probe) == ("bulkhead_full", HALF_OPEN, False)
    assert gate.admit("e").probe


def test_a_larger_bulkhead_gets_its_places(store: AnyStore, gate: CallGate) -> None:
    """When ``max_concurrent_calls`` is raised, and again when it is lowered."""
    held = [gate.admit("e") for _ in range(3)]
    large = store.gate(CallSettings(max_concurrent_calls=5))
    held += [large.admit("e") for _ in range(2)]
    assert sorted(admission.slot if admission.slot is not None else -1 for admission in held) == [0, 1, 2, 3, 4]
    assert large.admit("e").refused == "bulkhead_full"
    gate.settle(held[4], Evidence.NONE)
    assert gate.admit("e").refused == "bulkhead_full"
    assert large.admit("e").slot == 4
