"""Calls of blocking ports from an event loop: in threads, and again after a while when a store or a queue is down.

What is down is asked by full jitter with a short cap, so work goes on seconds after it is back; and it is said once
that it is down and once that it is back, not with every try.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from airflow_provider_ai.core.backoff import full_jitter
from airflow_provider_ai.exceptions import (
    ClaimCheckUnavailableError,
    KeyAccessError,
    MessagesRefusedError,
    QueueError,
    QueueUnavailableError,
    StoreError,
    StoreUnavailableError,
)

T = TypeVar("T")
_FIRST_PAUSE_SECONDS = 0.2
_LONGEST_PAUSE_SECONDS = 2.0
_LONGEST_PAUSE_FOR_PEOPLE_SECONDS = 15.0  # what is refused waits for someone to correct it
_TEMPORARY = (StoreUnavailableError, QueueUnavailableError, ClaimCheckUnavailableError)
_TROUBLE = (StoreError, QueueError, ClaimCheckUnavailableError, KeyAccessError)
log = logging.getLogger(__name__)


class PortCalls:
    """Makes calls. For one event loop.

    :param threads: calls under way at a time
    :param random: numbers in ``[0, 1)``, for jitter
    """

    def __init__(self, *, threads: int, random: Callable[[], float]) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="ai-port")
        self._random = random
        self._down: dict[str, str] = {}

    @property
    def down(self) -> tuple[str, ...]:
        """The ports that are down, by the names they are called by here."""
        return tuple(self._down)

    async def once(self, work: Callable[[], T]) -> T:
        """What ``work`` returns or raises, done in a thread."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)

    async def patiently(self, port: str, work: Callable[[], T], *, most_tries: int | None = None) -> T:
        """Likewise, and again until it succeeds.

        A port that refuses is asked again as well: a person can mend a queue that was deleted or a right that is
        missing, and nothing may be lost meanwhile. What it raises in the end is the last error of ``most_tries``, or
        one that another try cannot help.

        :param port: what is called, for people
        """
        failures = 0
        while True:
            try:
                result = await self.once(work)
            except MessagesRefusedError:
                raise
            except _TROUBLE as error:
                failures += 1
                self.fails(port, error)
                if failures == most_tries:
                    raise
                cap = _LONGEST_PAUSE_SECONDS if isinstance(error, _TEMPORARY) else _LONGEST_PAUSE_FOR_PEOPLE_SECONDS
            else:
                self.works(port)
                return result
            await asyncio.sleep(full_jitter(failures, base=_FIRST_PAUSE_SECONDS, cap=cap, random=self._random()) + 0.05)

    def fails(self, port: str, error: Exception) -> None:
        """Note that a port does not work; it is logged once for each kind of trouble."""
        kind = type(error).__name__
        if self._down.get(port) != kind:
            self._down[port] = kind
            log.warning("%s does not work, trying again until it does: %s", port, error)

    def works(self, port: str) -> None:
        """Note that it does."""
        if self._down.pop(port, None) is not None:
            log.warning("%s works again", port)

    def close(self) -> None:
        """Send the threads home; calls that hang are left behind."""
        self._pool.shutdown(wait=False, cancel_futures=True)
