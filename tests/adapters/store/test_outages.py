"""Whatever hangs or dies below the store: an error in time, never a hang, and back in use when it is over."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest
import sqlalchemy as sa

from airflow_provider_ai.adapters.store import open_store
from airflow_provider_ai.adapters.store.tables import BREAKERS, SLOTS
from airflow_provider_ai.core.call_ports import Evidence
from airflow_provider_ai.core.call_settings import BreakerSettings, CallSettings
from airflow_provider_ai.core.shared_breaker import SLOT_LEASE_SECONDS
from airflow_provider_ai.exceptions import StoreUnavailableError
from tests.adapters.store.conftest import OpenStore
from tests.support.postgres import PostgresServer
from tests.support.processes import REPOSITORY, child_environment, wait_until

SHORT = 0.3
MARGIN = 1.0  # of a machine with two cores that others use too


def fails_in_time(work: Callable[[], Any], limit: float, match: str) -> None:
    started = time.monotonic()
    with pytest.raises(StoreUnavailableError, match=match):
        work()
    assert time.monotonic() - started < limit + MARGIN


# --- PostgreSQL


@contextmanager
def stopped(server: PostgresServer, name: str) -> Iterator[None]:
    """The server processes of connections to a database do not run."""
    database = name.rpartition("/")[2]
    with psycopg.connect(server.url(), autocommit=True) as admin:
        found = admin.execute("SELECT pid FROM pg_stat_activity WHERE datname = %s", [database]).fetchall()
    backends = [psutil.Process(pid) for (pid,) in found]
    assert backends
    for backend in backends:
        backend.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        for backend in backends:
            backend.send_signal(signal.SIGCONT)


def test_a_server_process_that_hangs(postgres_server: PostgresServer, postgres_url: str) -> None:
    """Its connection is given up; the next one works, while the server process still hangs."""
    store = open_store(postgres_url, timeout_seconds=SHORT)
    gate = store.gate(CallSettings())
    gate.settle(gate.admit("e"), Evidence.ALIVE)
    with stopped(postgres_server, postgres_url):
        fails_in_time(lambda: gate.admit("e"), SHORT, "the server does not answer")
        assert gate.admit("e").refused is None
    store.close()


def test_a_lock_that_somebody_holds(postgres_url: str) -> None:
    """The server ends the statement; the connection is kept."""
    store = open_store(postgres_url, timeout_seconds=SHORT)
    gate = store.gate(CallSettings())
    gate.settle(gate.admit("e"), Evidence.ALIVE)
    with psycopg.connect(postgres_url) as other:
        other.execute("LOCK TABLE ai_bulkhead_slots IN ACCESS EXCLUSIVE MODE")
        fails_in_time(lambda: gate.admit("e"), SHORT, "SQLSTATE 57014")
        other.rollback()
    assert gate.admit("e").refused is None
    store.close()


def test_connections_that_the_server_closed(postgres_url: str) -> None:
    """One operation fails; the next one finds the server again."""
    store = open_store(postgres_url)
    gate = store.gate(CallSettings())
    gate.admit("e")
    with psycopg.connect(postgres_url, autocommit=True) as admin:
        admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
    with pytest.raises(StoreUnavailableError):
        gate.admit("e")
    assert gate.admit("e").refused is None
    store.close()


def test_a_server_that_accepts_and_says_nothing() -> None:
    """The connect timeout holds; libpq's is 2 s at least."""
    with closing(socket.create_server(("127.0.0.1", 0))) as silent:
        url = f"postgresql://u@127.0.0.1:{silent.getsockname()[1]}/x"
        gate = open_store(url, timeout_seconds=SHORT).gate(CallSettings())
        fails_in_time(lambda: gate.admit("e"), 2.0, "no answer within the connect timeout")


def test_more_operations_than_connections(opened: OpenStore) -> None:
    """While all connections of the process hang, another operation is told so in time."""
    store = opened(timeout_seconds=SHORT)
    gate = store.gate(CallSettings())
    with ExitStack() as held:
        for _ in range(16):
            held.enter_context(store.session())
        fails_in_time(lambda: gate.admit("e"), SHORT, "all connections of this process are in use")
    assert gate.admit("e").refused is None


# --- SQLite


def test_a_writer_that_does_not_end(tmp_path: Path) -> None:
    """Readers are not held up: an open breaker still refuses; what must write gives up in time."""
    url = f"sqlite:///{tmp_path}/store.db"
    store = open_store(url, timeout_seconds=SHORT)
    gate = store.gate(CallSettings(breaker=BreakerSettings(minimum_calls=1)))
    gate.settle(gate.admit("broken"), Evidence.FAILING)
    gate.settle(gate.admit("e"), Evidence.ALIVE)
    with open_store(url).database.transaction(30):
        assert gate.admit("broken").refused == "breaker_open"
        fails_in_time(lambda: gate.admit("e"), SHORT, "other processes have held the file for too long")
    assert gate.admit("e").refused is None


def test_a_file_that_was_removed(tmp_path: Path) -> None:
    """A store that is opened after that makes a new one."""
    url = f"sqlite:///{tmp_path}/store.db"
    open_store(url).gate(CallSettings()).admit("e")
    for file in tmp_path.iterdir():
        file.unlink()
    assert open_store(url).gate(CallSettings()).admit("e").slot == 0


# --- a holder that dies

HOLDER = """
import sys, time
from airflow_provider_ai.adapters.store import open_store
from airflow_provider_ai.core.call_settings import BreakerSettings, CallSettings
gate = open_store(sys.argv[1], timeout_seconds=10).gate(CallSettings(max_concurrent_calls=1))
assert gate.admit("e").probe
print("held", flush=True)
time.sleep(600)
"""


def test_what_a_killed_process_held_comes_back(opened: OpenStore) -> None:
    """The probe and the slot, each when its lease is over and not before; told by clocks set forward."""
    settings = CallSettings(max_concurrent_calls=1, breaker=BreakerSettings(minimum_calls=1, open_seconds=0.01))
    gate = opened().gate(settings)
    gate.settle(gate.admit("e"), Evidence.FAILING)
    url = opened().database._url.render_as_string(hide_password=False)
    wait_until(lambda: not due(opened()), deadline_seconds=5, what="the pause of the breaker", poll_seconds=0.01)
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, url], cwd=REPOSITORY, env=child_environment(), stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        holder.send_signal(signal.SIGKILL)
    lease = settings.breaker.probe_lease_seconds
    assert lease == SLOT_LEASE_SECONDS
    held_until = leases(opened())
    early = opened(clock=lambda: min(held_until) - 0.01).gate(settings)
    assert early.admit("e").refused == "breaker_open"
    later = opened(clock=lambda: max(held_until) + 0.01).gate(settings)
    heir = later.admit("e")
    assert (heir.probe, heir.slot) == (True, 0)
    assert later.admit("e").refused == "breaker_open"


def due(store: Any) -> bool:
    """Whether the breaker still waits."""
    with store.session() as session:
        waiting = sa.select(BREAKERS.c.probe_at > store.database.now)
        return bool(session.run(waiting, store.database.moment()).scalar())


def leases(store: Any) -> list[float]:
    with store.session() as session:
        probe = session.run(sa.select(BREAKERS.c.lease_until), {}).scalar_one()
        return [probe, session.run(sa.select(SLOTS.c.lease_until), {}).scalar_one()]
