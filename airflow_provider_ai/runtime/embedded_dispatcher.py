"""A dispatcher inside of a process that waits: one for each deployment, for all waits of the process.

It runs in daemon threads while somebody waits, and a while longer, so that waits that follow each other find it
running. Nothing depends on it: any number of dispatchers may take replies, here and elsewhere, and what one of them was
killed with comes again.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from airflow_provider_ai.core.config import StorageOptions
from airflow_provider_ai.runtime.job_service import JobSettings

LINGER_SECONDS = 60.0
log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Running:
    stop: Callable[[], None]
    users: int = 0
    unused_since: float = 0.0


_running: dict[JobSettings, _Running] = {}
_lock = threading.Lock()


@contextmanager
def embedded_dispatcher(settings: JobSettings) -> Iterator[None]:
    """Have a dispatcher run meanwhile. Starting and ending it take no time: that is done in its threads."""
    with _lock:
        running = _running.get(settings)
        if running is None:
            running = _running[settings] = _Running(_start(settings))
        running.users += 1
    try:
        yield
    finally:
        with _lock:
            running.users -= 1
            running.unused_since = time.monotonic()
            if not running.users:
                _stop_later(settings)


def _stop_later(settings: JobSettings) -> None:
    timer = threading.Timer(LINGER_SECONDS, _stop_unused, (settings,))
    timer.daemon = True
    timer.start()


def _stop_unused(settings: JobSettings) -> None:
    with _lock:
        running = _running.get(settings)
        if running is None or running.users or time.monotonic() - running.unused_since < LINGER_SECONDS:
            return
        del _running[settings]
    running.stop()


def _start(settings: JobSettings) -> Callable[[], None]:
    """Start one, in a thread of its own that makes it and ends it; what asks for its end."""
    ended = threading.Event()
    threading.Thread(target=_run, args=(settings, ended), name="ai-dispatcher", daemon=True).start()
    return ended.set


def _run(settings: JobSettings, ended: threading.Event) -> None:
    from airflow_provider_ai.runtime.dispatcher import DispatcherJob, dispatching

    try:
        job = DispatcherJob(
            transport=settings.transport,
            store=settings.store,
            claim_check=settings.claim_check,
            storage=settings.storage or StorageOptions(),
            keys=settings.keys,
            audit=settings.audited_by(None, role="dispatcher"),
        )
        with dispatching(job):
            ended.wait()
    except Exception as error:  # noqa: BLE001 - nobody waits for this thread; other dispatchers may do the work
        log.error("the embedded dispatcher has ended (%s)", type(error).__name__)
