"""A store, a queue or a bucket that is down for a moment: the same call once more, after a while."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from typing import TypeVar

from airflow_provider_ai.core.backoff import full_jitter
from airflow_provider_ai.core.report import StopToken
from airflow_provider_ai.exceptions import (
    ClaimCheckUnavailableError,
    KeyUnavailableError,
    QueueUnavailableError,
    StoppedError,
    StoreUnavailableError,
)

T = TypeVar("T")
PATIENCE_SECONDS = 60.0
_FIRST_SECONDS = 0.5
_LONGEST_SECONDS = 8.0
_TEMPORARY = (StoreUnavailableError, QueueUnavailableError, ClaimCheckUnavailableError, KeyUnavailableError)
log = logging.getLogger(__name__)


def patiently(work: Callable[[], T], stop: StopToken) -> T:
    """Do it; while what it needs is unavailable, again, for a minute.

    :raises StoppedError: when a stop is asked for
    """
    give_up, failures = time.monotonic() + PATIENCE_SECONDS, 0
    while True:
        require_going_on(stop)
        try:
            return work()
        except _TEMPORARY as error:
            failures += 1
            pause = full_jitter(failures, base=_FIRST_SECONDS, cap=_LONGEST_SECONDS, random=random.random())
            if time.monotonic() + pause > give_up:
                raise
            log.warning("trying again in %.1f s: %s", pause, error)
            stop.wait(pause)


def require_going_on(stop: StopToken) -> None:
    """StoppedError when a stop was asked for."""
    if stop.stopped:
        raise StoppedError(f"stopped ({stop.reason}); a retry goes on with the same jobs and submits none twice")
