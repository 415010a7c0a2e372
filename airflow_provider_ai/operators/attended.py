"""One blocking call in a worker thread, and a main thread that attends to Airflow meanwhile.

Invariants:
- Only the main thread speaks to Airflow's supervisor: its channel is not made for two threads.
- Whatever ends the wait — the call, SIGTERM, an execution timeout — the call is asked to stop and given time to flush
  before the main thread leaves. The thread is a daemon, so a call that never returns cannot keep the process alive.
- Progress is an aid: a store that cannot be written never fails the task.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import Any, Protocol, TypeVar

from airflow_provider_ai.core.report import Progress, StopToken
from airflow_provider_ai.exceptions import StoppedError

log = logging.getLogger(__name__)

T = TypeVar("T")
OnProgress = Callable[[Progress], None]

TICK_SECONDS = 0.25
STORE_EVERY_SECONDS = 2.0
STORE_AGAIN_AFTER_SECONDS = 60.0
LOG_EVERY_SECONDS = 30.0
STOP_WAIT_SECONDS = 30.0
PROGRESS_KEY = "progress"


class StateStore(Protocol):
    """The part of Airflow's ``task_state_store`` used here."""

    def set(self, key: str, value: Any) -> None:
        """Write or overwrite a small JSON value."""


class ProgressReporter:
    """Keeps the latest progress and shows it: in the state store every 2 s at most, in the log every 30 s at most.

    :param store: None on Airflow versions without a task state store
    :param clock: monotonic seconds
    """

    def __init__(self, store: StateStore | None, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._clock = clock
        self._latest: Progress | None = None
        self._stored: Progress | None = None
        self._logged: Progress | None = None
        self._store_at = self._log_at = float("-inf")

    def note(self, progress: Progress) -> None:
        """Take the latest progress. The only method the worker thread calls."""
        self._latest = progress

    def tick(self, *, last: bool = False) -> None:
        """Show what is due; the ``last`` time store what is new (the log gets a summary instead). Main thread only."""
        now, latest = self._clock(), self._latest
        if latest is None:
            return
        if latest is not self._stored and (last or now >= self._store_at):
            self._stored = latest
            self._store_at = now + (STORE_EVERY_SECONDS if self._save(latest) else STORE_AGAIN_AFTER_SECONDS)
        if latest is not self._logged and not last and now >= self._log_at:
            self._logged, self._log_at = latest, now + LOG_EVERY_SECONDS
            log.info(progress_line(latest))

    def _save(self, progress: Progress) -> bool:
        if self._store is None:
            return True
        try:
            self._store.set(PROGRESS_KEY, progress.to_dict())
        except Exception as error:  # noqa: BLE001 - whatever is wrong with the store, the batch goes on without it
            log.warning("Progress cannot be shown in the UI for now (%s); the batch goes on.", type(error).__name__)
            return False
        return True


def progress_line(progress: Progress) -> str:
    """One log line for people."""
    parts = [f"{progress.phase}: {progress.done:,} of {progress.total:,} records"]
    if progress.quarantined:
        parts.append(f"{progress.quarantined:,} quarantined")
    if progress.records_per_second:
        parts.append(f"{progress.records_per_second:,.0f}/s")
    if progress.in_flight:
        parts.append(f"{progress.in_flight} of at most {progress.concurrency} calls in flight")
    if progress.eta_seconds is not None and progress.done < progress.total:
        parts.append(f"about {_duration(progress.eta_seconds)} left")
    if progress.cost_usd:
        parts.append(f"${progress.cost_usd:,.2f}")
    return ", ".join(parts)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"


def attend(
    call: Callable[[OnProgress], T],
    *,
    stop: StopToken,
    reporter: ProgressReporter,
    stop_wait_seconds: float = STOP_WAIT_SECONDS,
) -> T:
    """Run ``call`` in a worker thread and return, or raise, what it does.

    :param stop: reaches the call; once it is set, the wait goes on for at most ``stop_wait_seconds``
    """
    outcome: Future[T] = Future()
    worker = threading.Thread(target=_settle, args=(outcome, call, reporter), name="ai-batch", daemon=True)
    try:
        worker.start()
        _wait(worker, stop, reporter, stop_wait_seconds)
    except BaseException:
        # An execution timeout (a BaseException raised by a signal handler) or an interrupt: flush, then leave.
        stop.stop("the task was interrupted")
        wait([outcome], stop_wait_seconds)
        raise
    if not outcome.done():
        raise StoppedError(f"{stop.reason}; it did not finish flushing within {stop_wait_seconds:g} s; a retry resumes")
    reporter.tick(last=not stop.stopped)
    return outcome.result()


def _settle(outcome: Future[T], call: Callable[[OnProgress], T], reporter: ProgressReporter) -> None:
    try:
        outcome.set_result(call(reporter.note))
    except BaseException as error:  # noqa: BLE001 - raised again in the main thread
        outcome.set_exception(error)


def _wait(worker: threading.Thread, stop: StopToken, reporter: ProgressReporter, stop_wait_seconds: float) -> None:
    """Until the worker is done or was asked to stop long enough ago. A join with a timeout lets signals in."""
    leave_at: float | None = None
    while worker.is_alive():
        worker.join(TICK_SECONDS)
        if not stop.stopped:
            reporter.tick()
            continue
        leave_at = leave_at or time.monotonic() + stop_wait_seconds
        if time.monotonic() >= leave_at:
            return
