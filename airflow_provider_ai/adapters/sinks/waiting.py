"""Waiting for a file that another process has locked: try, wait a little, try again, say so now and then."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from typing import TypeVar

from airflow_provider_ai.adapters.sinks.failures import unavailable

log = logging.getLogger(__name__)

T = TypeVar("T")
LOG_EVERY_SECONDS = 10.0
_FIRST_PAUSE_SECONDS = 0.02
_LONGEST_PAUSE_SECONDS = 0.5


class BusyError(Exception):
    """Someone else has the lock. ``holder``: what is known of them, in words."""

    def __init__(self, holder: str) -> None:
        super().__init__(holder)
        self.holder = holder


def until_free(attempt: Callable[[], T], *, where: str, wait_seconds: float) -> T:
    """What ``attempt`` returns once it stops raising BusyError. SinkUnavailableError after ``wait_seconds``."""
    started = time.monotonic()
    said, pause = started, _FIRST_PAUSE_SECONDS
    while True:
        try:
            return attempt()
        except BusyError as error:
            holder = error.holder
        now = time.monotonic()
        if now - started >= wait_seconds:
            raise unavailable(where, f"{holder} has held it for {wait_seconds:g} s")
        if now - said >= LOG_EVERY_SECONDS:
            log.info("%s: held by %s, waiting for %.0f s of at most %g s", where, holder, now - started, wait_seconds)
            said = now
        # Jitter keeps many waiters from arriving together.
        time.sleep(min(pause * random.uniform(0.5, 1.5), max(0.0, started + wait_seconds - now)))
        pause = min(pause * 1.5, _LONGEST_PAUSE_SECONDS)
