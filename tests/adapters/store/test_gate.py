"""What only a database has to say about the call gate: what it locks, and what it leaves behind."""

from __future__ import annotations

from contextlib import closing

import psycopg
import pytest
import sqlalchemy as sa
from sqlalchemy import event

from airflow_provider_ai.adapters.store import open_store
from airflow_provider_ai.adapters.store.tables import BUCKETS
from airflow_provider_ai.core.call_ports import Evidence
from airflow_provider_ai.core.call_settings import BreakerSettings, CallSettings
from tests.adapters.store.conftest import OpenStore, TestClock

BREAKER = BreakerSettings(window_seconds=30)


def test_a_call_is_five_statements(opened: OpenStore) -> None:
    """None of them spans a round trip with a lock: each commits by itself."""
    store = opened()
    gate = store.gate(CallSettings())
    gate.settle(gate.admit("e"), Evidence.ALIVE)
    seen: list[str] = []

    def note(connection: object, cursor: object, statement: str, *rest: object) -> None:
        seen.append(statement.split()[0])

    engine = store.database._engine
    event.listen(engine, "before_cursor_execute", note)
    gate.settle(gate.admit("e"), Evidence.ALIVE)
    assert seen == ["SELECT", "UPDATE", "UPDATE", "INSERT", "SELECT"]


def test_closed_breakers_do_not_make_calls_queue(postgres_url: str) -> None:
    """While somebody holds the breaker's row and the first slots, calls are let in, and end well."""
    with closing(open_store(postgres_url, timeout_seconds=1.0)) as store:
        gate = store.gate(CallSettings())
        held = [gate.admit("e") for _ in range(2)]
        for admission in held:
            gate.settle(admission, Evidence.ALIVE)
        with psycopg.connect(postgres_url) as other:
            other.execute("SELECT * FROM ai_breakers FOR UPDATE")
            other.execute("SELECT * FROM ai_bulkhead_slots WHERE slot < 2 FOR UPDATE")
            admission = gate.admit("e")
            assert (admission.slot, admission.refused) == (2, None)
            gate.settle(admission, Evidence.ALIVE)


def test_old_buckets_are_removed(opened: OpenStore, clock: TestClock) -> None:
    """However long an endpoint is called, a few windows of buckets are left."""
    store = opened(clock=clock)
    gate = store.gate(CallSettings(breaker=BREAKER))
    for _ in range(200):
        gate.settle(gate.admit("e"), Evidence.ALIVE)
        clock.now += 1.7
    with store.session() as session:
        starts = sorted(session.run(sa.select(BUCKETS.c.starts_at), {}).scalars())
    assert 10 <= len(starts) <= 22
    assert starts[0] >= clock.now - 2 * BREAKER.window_seconds - BREAKER.window_seconds / 5


@pytest.mark.parametrize("slots", [1, 64, 20_000])
def test_bulkheads_of_any_size(slots: int, opened: OpenStore) -> None:
    """All slots are made by one statement."""
    gate = opened(timeout_seconds=10).gate(CallSettings(max_concurrent_calls=slots))
    assert gate.admit("e").slot == 0
    assert gate.admit("e").refused == ("bulkhead_full" if slots == 1 else None)


def test_names_of_any_kind(opened: OpenStore) -> None:
    """An endpoint's name is a value, never part of a statement."""
    gate = opened().gate(CallSettings(max_concurrent_calls=1))
    for name in ("", "'; DROP TABLE ai_breakers; --", "ü:%s:{x}", "a" * 5_000):
        assert gate.admit(name).refused is None
        assert gate.admit(name).refused == "bulkhead_full"
