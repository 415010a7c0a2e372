"""The engine's reader and keeper threads on a real event loop: nothing they hold is left behind, whenever it ends."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from airflow_provider_ai.core.config import Limits
from airflow_provider_ai.core.outcomes import Outcome
from airflow_provider_ai.core.rowset import RowSet
from airflow_provider_ai.exceptions import StoppedError
from airflow_provider_ai.patterns.inference_engine import RunOpener
from airflow_provider_ai.patterns.work import PartitionRun
from airflow_provider_ai.testing import FakeModelEndpoint
from tests.patterns.harness import Bench

LONG_SECONDS = 10.0
LOADING_SECONDS = 0.3  # longer than the engine needs to end


def waiting_for_another_runner(bench: Bench, reached: threading.Event) -> RunOpener:
    """An opener that is let go when it is told to give up, and just then gets the partition."""

    def opener(halted: Callable[[], bool]) -> PartitionRun:
        reached.set()
        until = time.monotonic() + LONG_SECONDS
        while not halted() and time.monotonic() < until:
            time.sleep(0.005)
        time.sleep(LOADING_SECONDS)
        return bench.open(0)

    return opener


def is_free(bench: Bench) -> bool:
    """Whether another runner gets the partition."""
    return bench.storage.folder("p0").try_lock("another") is not None


async def test_a_partition_opened_while_the_run_ends_is_let_go() -> None:
    """The next runner must not wait for a lease of a holder that has left."""
    bench, reached = Bench(), threading.Event()
    run = asyncio.create_task(bench.make_engine(FakeModelEndpoint()).run([waiting_for_another_runner(bench, reached)]))
    await asyncio.to_thread(reached.wait, LONG_SECONDS)
    bench.stop.stop("SIGTERM")
    with pytest.raises(StoppedError):
        await asyncio.wait_for(run, LONG_SECONDS)
    assert len(bench.journals) == 1
    assert is_free(bench)


async def test_a_cancelled_run_does_not_wait_for_another_runner() -> None:
    """Ctrl-C while the partition is busy elsewhere: the reader thread gives up too."""
    bench, reached = Bench(), threading.Event()
    run = asyncio.create_task(bench.make_engine(FakeModelEndpoint()).run([waiting_for_another_runner(bench, reached)]))
    await asyncio.to_thread(reached.wait, LONG_SECONDS)
    started = time.monotonic()
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    assert time.monotonic() - started < LONG_SECONDS / 2
    assert is_free(bench)


class SlowJournal:
    """A journal that notes what is done to it. ``hold``: its sync takes until that is set."""

    def __init__(self, rows: int, *, hold: threading.Event | None = None, full: threading.Event | None = None) -> None:
        self.succeeded, self.given_up, self.given_up_before = RowSet(rows), RowSet(rows), RowSet(rows)
        self.round = 0
        self.done: list[str] = []
        self._hold = hold
        self._full = full

    def record(self, outcome: Outcome) -> None:
        self.succeeded.add(outcome.rows)  # type: ignore[union-attr]
        if self._full and len(self.succeeded) == self.succeeded.size:
            self._full.set()

    def sync(self) -> None:
        self.done.append("sync")
        if self._hold:
            self._hold.wait(LONG_SECONDS)

    def show_life(self) -> None:
        self.done.append("show life")

    def complete(self) -> object:
        self.done.append("complete")
        return None

    def close(self) -> None:
        self.done.append("close")


async def test_a_partition_that_was_let_go_is_not_synced_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """It finishes while another one's sync takes its time: its lock is closed, and its number may be someone else's."""
    full = threading.Event()
    slow, quick = SlowJournal(1, hold=full), SlowJournal(20, full=full)
    bench = Bench(partitions=(1, 20), sync_seconds=0.02, limits=Limits(concurrency=4))
    journals: list[Any] = [slow, quick]

    def open_partition(index: int) -> PartitionRun:
        run = Bench.open(bench, index)
        run.journal.close()
        run.journal = journals[index]
        return run

    monkeypatch.setattr(bench, "open", open_partition)
    answered = {"0-0": 0.6}
    endpoint = FakeModelEndpoint(latency_seconds=0.05)
    post = endpoint.post

    async def post_slowly(path: str, body: bytes, *, deadline_seconds: float) -> Any:
        await asyncio.sleep(max((seconds for key, seconds in answered.items() if key.encode() in body), default=0.0))
        return await post(path, body, deadline_seconds=deadline_seconds)

    monkeypatch.setattr(endpoint, "post", post_slowly)
    await asyncio.wait_for(bench.make_engine(endpoint).run(bench.openers()), LONG_SECONDS)
    assert "sync" in slow.done
    assert slow.done[-2:] == quick.done[-2:] == ["complete", "close"]
