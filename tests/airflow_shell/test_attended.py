"""The call in the worker thread and the main thread that attends to it."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from airflow_provider_ai.core.report import Progress, StopToken
from airflow_provider_ai.exceptions import StoppedError
from airflow_provider_ai.operators import attended
from airflow_provider_ai.operators.attended import ProgressReporter, attend, progress_line


class Store:
    """Remembers what is set, and from which thread; fails when told to."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.values: list[Any] = []
        self.threads: set[int] = set()

    def set(self, key: str, value: Any) -> None:
        self.threads.add(threading.get_ident())
        assert key == "progress"
        if self.error is not None:
            raise self.error
        self.values.append(value)


def progress(done: int, **fields: Any) -> Progress:
    return Progress(phase="infer", done=done, quarantined=0, total=100, **fields)


def attend_quickly(call: Callable[..., Any], stop: StopToken | None = None, **options: Any) -> Any:
    return attend(call, stop=stop or StopToken(), reporter=ProgressReporter(None), **options)


def test_the_result_and_the_last_progress_come_back() -> None:
    """The call runs in another thread, Airflow is spoken to from this one, and the last counts are shown."""
    store, seen = Store(), []

    def call(note: Callable[[Progress], None]) -> str:
        seen.append(threading.get_ident())
        note(progress(40))
        note(progress(100))
        return "done"

    assert attend(call, stop=StopToken(), reporter=ProgressReporter(store)) == "done"
    assert store.values[-1]["done"] == 100
    assert store.threads == {threading.get_ident()} != set(seen)


def test_errors_come_back_as_they_are() -> None:
    """What the call raises is raised here."""
    error = StoppedError("stopped")

    def call(_note: Any) -> None:
        raise error

    with pytest.raises(StoppedError) as raised:
        attend_quickly(call)
    assert raised.value is error


@pytest.mark.parametrize(
    ("seconds", "stored", "logged"),
    [
        ([0.0], [0], [0]),
        ([0.0, 1.9], [0], [0]),  # within two seconds: kept for later
        ([0.0, 1.9, 2.0], [0, 2], [0]),  # the latest, not the one in between
        ([0.0, 2.0, 4.0, 29.9], [0, 1, 2, 3], [0]),
        ([0.0, 15.0, 30.0, 45.0, 60.0], [0, 1, 2, 3, 4], [0, 2, 4]),
    ],
)
def test_progress_is_shown_at_a_human_pace(
    seconds: list[float], stored: list[int], logged: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    """In the store every 2 s at most, in the log every 30 s at most."""
    store, clock = Store(), iter(seconds)
    reporter = ProgressReporter(store, clock=lambda: next(clock))
    with caplog.at_level(logging.INFO, logger=attended.__name__):
        for done, _ in enumerate(seconds):
            reporter.note(progress(done))
            reporter.tick()
    assert [value["done"] for value in store.values] == stored
    assert caplog.messages == [f"infer: {done} of 100 records" for done in logged]


def test_the_same_progress_is_not_shown_twice() -> None:
    """Nothing new, nothing sent; the last tick sends what was held back."""
    store, clock = Store(), iter([0.0, 10.0, 10.1, 10.2, 10.3])
    reporter = ProgressReporter(store, clock=lambda: next(clock))
    first, second = progress(1), progress(2)
    for latest, last in ((first, False), (first, False), (second, False), (second, True), (second, True)):
        reporter.note(latest)
        reporter.tick(last=last)
    assert [value["done"] for value in store.values] == [1, 2]


def test_a_store_that_fails_is_left_alone_for_a_while(caplog: pytest.LogCaptureFixture) -> None:
    """The batch goes on, a warning a minute says so, and the error's own text stays inside."""
    store, clock = Store(RuntimeError("secret detail")), iter([0.0, 3.0, 59.0, 61.0])
    reporter = ProgressReporter(store, clock=lambda: next(clock))
    with caplog.at_level(logging.WARNING):
        for done in range(4):
            store.error = None if done == 3 else store.error
            reporter.note(progress(done))
            reporter.tick()
    assert [value["done"] for value in store.values] == [3]
    assert len(caplog.messages) == 1
    assert "RuntimeError" in caplog.text
    assert "secret" not in caplog.text


def test_a_store_that_fails_does_not_fail_the_call() -> None:
    """Progress is an aid."""
    reporter = ProgressReporter(Store(RuntimeError("no")))

    def call(note: Callable[[Progress], None]) -> int:
        note(progress(1))
        return 7

    assert attend(call, stop=StopToken(), reporter=reporter) == 7


@pytest.fixture
def sigterm_stops() -> Iterator[StopToken]:
    """SIGTERM sets the token, as the operator's on_kill does in Airflow's handler."""
    stop = StopToken()
    before = signal.signal(signal.SIGTERM, lambda *_: stop.stop("SIGTERM"))
    yield stop
    signal.signal(signal.SIGTERM, before)


def test_sigterm_reaches_the_call_which_flushes(sigterm_stops: StopToken) -> None:
    """The main thread hears the signal although it waits, and leaves only after the call has flushed."""
    flushed = threading.Event()

    def call(_note: Any) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        while not sigterm_stops.stopped:
            time.sleep(0.001)
        flushed.set()
        raise StoppedError(sigterm_stops.reason)

    with pytest.raises(StoppedError, match="SIGTERM"):
        attend_quickly(call, sigterm_stops)
    assert flushed.is_set()


def test_a_call_that_finishes_in_spite_of_the_stop_counts(sigterm_stops: StopToken) -> None:
    """Work that was over when the signal came is not thrown away."""

    def call(_note: Any) -> str:
        os.kill(os.getpid(), signal.SIGTERM)
        while not sigterm_stops.stopped:
            time.sleep(0.001)
        return "finished"

    assert attend_quickly(call, sigterm_stops) == "finished"


def test_a_call_that_does_not_stop_is_left_behind() -> None:
    """After the wait the task ends, saying that a retry resumes; the daemon thread cannot hold the process."""
    stop, release = StopToken(), threading.Event()

    def call(_note: Any) -> None:
        stop.stop("killed")
        release.wait()

    with pytest.raises(StoppedError, match=r"killed; it did not finish flushing within 0\.05 s; a retry resumes"):
        attend_quickly(call, stop, stop_wait_seconds=0.05)
    worker = next(thread for thread in threading.enumerate() if thread.name == "ai-batch")
    assert worker.daemon
    release.set()
    worker.join()


def test_an_execution_timeout_stops_the_call_before_it_ends_the_task() -> None:
    """Airflow's timeout is a BaseException raised by a signal handler in the main thread."""

    class Timeout(BaseException):
        pass

    def expire(*_: Any) -> None:
        raise Timeout

    stop, flushed = StopToken(), threading.Event()

    def call(_note: Any) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0.01)
        while not stop.stopped:
            time.sleep(0.001)
        flushed.set()

    before = signal.signal(signal.SIGALRM, expire)
    try:
        with pytest.raises(Timeout):
            attend_quickly(call, stop)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert flushed.is_set()


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({}, "infer: 40 of 100 records"),
        ({"records_per_second": 12.6, "eta_seconds": 4.7}, "infer: 40 of 100 records, 13/s, about 5 s left"),
        (
            {"in_flight": 7, "concurrency": 16, "eta_seconds": 125},
            "infer: 40 of 100 records, 7 of at most 16 calls in flight, about 2 min 5 s left",
        ),
        ({"eta_seconds": 7_325, "cost_usd": 1234.5}, "infer: 40 of 100 records, about 2 h 2 min left, $1,234.50"),
    ],
)
def test_a_line_of_progress_reads_well(fields: dict[str, Any], line: str) -> None:
    """What is unknown or zero is not mentioned."""
    assert progress_line(progress(40, **fields)) == line
