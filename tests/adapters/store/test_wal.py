"""The WAL of a SQLite store: it does not grow for ever, and no caller waits for the disk on its account."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from airflow_provider_ai.adapters.store import open_store, sqlite
from airflow_provider_ai.adapters.store.store import Store
from airflow_provider_ai.core.call_ports import Evidence
from airflow_provider_ai.core.call_settings import CallSettings
from tests.support.processes import REPOSITORY, child_environment, wait_until

CALLS_AT_A_TIME = 200


def call(store: Store, times: int) -> None:
    gate = store.gate(CallSettings())
    for _ in range(times):
        gate.settle(gate.admit("e"), Evidence.ALIVE)


@pytest.fixture
def wal(tmp_path: Path) -> Path:
    return tmp_path / "store.db-wal"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(f"sqlite:///{tmp_path}/store.db")


def test_it_is_shortened_while_calls_go_on(store: Store, wal: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a thread of its own: the one that calls runs no checkpoint."""
    monkeypatch.setattr(sqlite, "WAL_BYTES", 100_000)
    monkeypatch.setattr(sqlite, "_CHECKPOINT_EVERY_SECONDS", 0.05)
    threads = set[str]()
    real = sqlite.SqliteDatabase._checkpoint

    def checkpoint(self: sqlite.SqliteDatabase) -> None:
        threads.add(threading.current_thread().name)
        real(self)

    monkeypatch.setattr(sqlite.SqliteDatabase, "_checkpoint", checkpoint)
    sizes = []
    for _ in range(15):
        call(store, CALLS_AT_A_TIME)
        sizes.append(wal.stat().st_size)
    assert threads == {"ai-store-checkpoint"}
    assert max(sizes) < 3_000_000, f"15 rounds append 9 MB; it grew with every round: {sizes}"


def test_a_caller_never_syncs(tmp_path: Path) -> None:
    """Counted by strace over 300 calls: what fsync there is, is in the first opening or in no thread that calls."""
    code = (
        "import sys, os\n"
        "from airflow_provider_ai.adapters.store import open_store\n"
        "from tests.adapters.store.test_wal import call\n"
        "store = open_store(sys.argv[1], timeout_seconds=10)\n"
        "call(store, 1)\n"
        "os.access('the calls begin', os.F_OK)\n"
        "call(store, 300)\n"
        "os._exit(0)\n"
    )
    trace = tmp_path / "trace"
    command = ["strace", "-f", "-qq", "-e", "trace=fsync,fdatasync,access", "-o", str(trace)]
    subprocess.run(
        [*command, sys.executable, "-c", code, f"sqlite:///{tmp_path}/store.db"],
        cwd=REPOSITORY,
        env=child_environment(),
        check=True,
        timeout=60,
    )
    opening, _, calling = trace.read_text().partition("the calls begin")
    assert "sync(" in opening, "strace sees what it should not find later"
    assert "sync(" not in calling


def test_processes_that_make_one_call_each_shorten_it_too(
    store: Store, wal: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever finds it too long at its admission has it emptied while its call is under way."""
    call(store, CALLS_AT_A_TIME)
    monkeypatch.setattr(sqlite, "WAL_BYTES", wal.stat().st_size // 2)
    gate = open_store(f"sqlite:///{wal.parent}/store.db").gate(CallSettings())
    admission = gate.admit("e")
    wait_until(lambda: not checkpointing(), deadline_seconds=10, what="the checkpoint", poll_seconds=0.01)
    gate.settle(admission, Evidence.ALIVE)
    assert 0 < wal.stat().st_size < 10_000  # this call's own pages, at most


def checkpointing() -> bool:
    return any(thread.name == "ai-store-checkpoint" for thread in threading.enumerate())
