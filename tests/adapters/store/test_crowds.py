"""What holds for many processes at once, counted over real ones; and that the counting would notice a mistake."""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

import pytest
import sqlalchemy as sa

from airflow_provider_ai.adapters.store.store import Store
from airflow_provider_ai.adapters.store.tables import BREAKERS, BUCKETS, SLOTS
from airflow_provider_ai.core.call_ports import Evidence
from airflow_provider_ai.core.call_settings import BreakerSettings, CallSettings
from airflow_provider_ai.core.circuit_breaker import BreakerState
from tests.adapters.store.conftest import OpenStore
from tests.adapters.store.crowd import crowd

pytestmark = pytest.mark.fault  # dozens of processes at a time
AT_ONCE = {"minimum_calls": 1, "open_seconds": 0.01, "probe_lease_seconds": 600.0}
NEVER = {"minimum_calls": 1_000_000}
ROUNDS = [f"round-{number}" for number in range(8)]


def rows(store: Store, statement: sa.Select[Any]) -> list[sa.Row[Any]]:
    with store.session() as session:
        return list(session.run(statement, {}))


def open_breakers(store: Store) -> None:
    """Each round's endpoint is down, and due for a probe."""
    gate = store.gate(CallSettings(breaker=BreakerSettings(**AT_ONCE)))  # type: ignore[arg-type]
    for endpoint in ROUNDS:
        assert gate.settle(gate.admit(endpoint), Evidence.FAILING) is BreakerState.OPEN
    time.sleep(0.05)  # longer than open_seconds: all are due now


def probes(url: str, seed: int, **order: Any) -> Counter[str]:
    """How many of 64 processes were let through in each round."""
    seen = crowd(url, "ask", seed=seed, processes=64, endpoints=ROUNDS, breaker=AT_ONCE, **order)
    assert all(member["probes"] == member["admitted"] for member in seen)
    return Counter(endpoint for member in seen for endpoint in member["probes"])


def test_64_processes_at_half_open_send_one_probe(opened: OpenStore, url: str, seed: int) -> None:
    """In each of eight rounds, started together."""
    open_breakers(opened())
    assert probes(url, seed) == dict.fromkeys(ROUNDS, 1)


@pytest.mark.parametrize("mutant", ["blind_write", "no_lease"])
def test_a_second_probe_would_be_noticed(mutant: str, opened: OpenStore, url: str, seed: int) -> None:
    """The same crowd on a broken gate."""
    open_breakers(opened())
    assert max(probes(url, seed, mutant=mutant).values()) > 1


def counted(store: Store, url: str, seed: int, **order: Any) -> tuple[dict[str, int], dict[str, int]]:
    """What 16 processes say they settled, and what the store has counted."""
    store.upgrade()
    seen = crowd(url, "count", seed=seed, processes=16, calls=25, breaker=NEVER, **order)
    told = {name: sum(member[name] for member in seen) for name in ("alive", "failing")}
    total = rows(store, sa.select(sa.func.sum(BUCKETS.c.alive), sa.func.sum(BUCKETS.c.failing)))[0]
    return told, {"alive": total[0], "failing": total[1]}


def test_400_settles_count_400(opened: OpenStore, url: str, seed: int) -> None:
    """16 processes, 25 calls each: not one is lost, and no slot either."""
    store = opened()
    told, kept = counted(store, url, seed)
    assert kept == told
    assert sum(kept.values()) == 400
    assert rows(store, sa.select(SLOTS.c.slot).where(SLOTS.c.lease != "")) == []


def test_a_lost_count_would_be_noticed(opened: OpenStore, url: str, seed: int) -> None:
    """Counters that are read and then written."""
    told, kept = counted(opened(), url, seed, mutant="get_then_set")
    assert sum(kept.values()) < sum(told.values())


def test_a_bulkhead_of_8_holds_64_processes(opened: OpenStore, url: str, seed: int) -> None:
    """Never more than 8 inside, more than half of them used at a time, and all 8 there at the end."""
    store = opened()
    seen = crowd(url, "crowd_in", seed=seed, processes=64, calls=20, slots=8)
    assert 4 < max(member["peak"] for member in seen) <= 8
    assert sum(member["admitted"] for member in seen) >= 100
    gate = store.gate(CallSettings(max_concurrent_calls=8))
    assert [gate.admit("e").refused for _ in range(9)] == [None] * 8 + ["bulkhead_full"]


def test_a_slot_given_twice_would_be_noticed(opened: OpenStore, url: str, seed: int) -> None:
    """Slots that are looked up and then taken."""
    opened().gate(CallSettings(max_concurrent_calls=8)).admit("e")
    seen = crowd(url, "crowd_in", seed=seed, processes=64, calls=20, slots=8, mutant="look_then_take")
    assert max(member["peak"] for member in seen) > 8


def test_failures_at_the_same_moment_open_it_once(opened: OpenStore, url: str, seed: int) -> None:
    """16 processes see the last failure that was missing; the breaker has changed once, and all of them know."""
    order = {
        "endpoints": ROUNDS,
        "breaker": {"minimum_calls": 16, "open_seconds": 600.0, "longest_open_seconds": 600.0},
    }
    seen = crowd(url, "fail_together", seed=seed, processes=16, **order)
    found = rows(opened(), sa.select(BREAKERS.c.version, BREAKERS.c.state, BREAKERS.c.failed_probes))
    assert [tuple(row) for row in found] == [(1, "open", 0)] * len(ROUNDS)
    for number in range(len(ROUNDS)):
        assert "open" in [member["states"][number] for member in seen]


def test_64_processes_find_an_empty_database(opened: OpenStore, url: str, seed: int) -> None:
    """Its tables are made once, by one of them; the others wait for it and need no Alembic."""
    seen = crowd(url, "open_new", seed=seed, processes=64)
    assert all(member["admitted"] for member in seen)
    assert [member["alembic"] for member in seen].count(True) == 1
    assert len(rows(opened(), sa.select(SLOTS.c.slot).where(SLOTS.c.lease != ""))) == 64
