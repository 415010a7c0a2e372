"""Webhook deliveries of a worker: begun when a result is published, tried again for a while, then parked.

A webhook only brings a result sooner. The same result is in the result queue and in the store, so what cannot be
delivered, and what a worker that stops has not delivered yet, is let go: it arrives by another way.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from typing import Protocol

from airflow_provider_ai.core.backoff import full_jitter
from airflow_provider_ai.core.webhook_decisions import Delivered

DELIVERED, PARKED = "delivered", "parked"
_MOST_WAITING = 1000
_FIRST_PAUSE_SECONDS = 1.0
_LONGEST_PAUSE_SECONDS = 60.0
log = logging.getLogger(__name__)


class WebhookSender(Protocol):
    """Delivers once."""

    async def send(self, job_id: str, body: bytes) -> Delivered:
        """How it went."""
        ...


class WebhookOutbox:
    """Delivers beside the worker's jobs. For one event loop.

    :param concurrency: deliveries at a time
    :param max_attempts: deliveries of one result
    :param endings: counted there: ``delivered`` and ``parked``
    :param random: numbers in ``[0, 1)``, for jitter
    """

    def __init__(
        self,
        sender: WebhookSender,
        *,
        concurrency: int,
        max_attempts: int,
        endings: Counter[str],
        random: Callable[[], float],
    ) -> None:
        self._sender = sender
        self._places = asyncio.Semaphore(concurrency)
        self._max_attempts = max_attempts
        self._endings = endings
        self._random = random
        self._tasks: set[asyncio.Task[None]] = set()

    def deliver(self, job_id: str, body: bytes) -> None:
        """Begin to deliver a result. With a thousand under way the receiver is not keeping up: it is parked at once."""
        if len(self._tasks) >= _MOST_WAITING:
            self._park(job_id, "too many wait for the receiver")
            return
        task = asyncio.create_task(self._deliver(job_id, body))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self, *, seconds: float) -> None:
        """Let deliveries end for a while, then let go of the others."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=seconds)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _deliver(self, job_id: str, body: bytes) -> None:
        for attempt in range(1, self._max_attempts + 1):
            async with self._places:
                delivered = await self._sender.send(job_id, body)
            if delivered.done:
                self._endings[DELIVERED] += 1
                return
            if not delivered.again or attempt == self._max_attempts:
                break
            jitter = full_jitter(attempt, base=_FIRST_PAUSE_SECONDS, cap=_LONGEST_PAUSE_SECONDS, random=self._random())
            await asyncio.sleep(max(jitter, delivered.retry_after_seconds or 0.0))
        self._park(job_id, delivered.detail)

    def _park(self, job_id: str, detail: str) -> None:
        self._endings[PARKED] += 1
        log.warning("the result of job %s is not delivered by webhook (%s); it arrives by the queue", job_id, detail)
