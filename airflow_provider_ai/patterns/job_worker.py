"""The worker of the asynchronous pattern: a Competing Consumer of the request queue, and an Idempotent Receiver.

A message is fetched only when there is a free slot for its job, or will be when it arrives
(:mod:`airflow_provider_ai.patterns.slots`). What happens to it then is
:mod:`airflow_provider_ai.patterns.job_attendant`'s to say. The slot is free once the handler has ended: recording and
publishing go on beside the next job, but never for more messages than there are slots.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from airflow_provider_ai.core.job_handling import Handler
from airflow_provider_ai.core.job_metrics import WorkerMetrics
from airflow_provider_ai.core.job_ports import ContentCodec, JobStore, Transport
from airflow_provider_ai.core.job_settings import WorkerSettings
from airflow_provider_ai.patterns.job_attendant import Attendant, Webhook
from airflow_provider_ai.patterns.job_heartbeats import Heartbeats
from airflow_provider_ai.patterns.job_tries import JobTries
from airflow_provider_ai.patterns.port_calls import PortCalls
from airflow_provider_ai.patterns.slots import Slots
from airflow_provider_ai.patterns.worker_ports import THREADS, WorkerPorts

_BATCH = 10
_LOOKS = 4
_AT_ONCE = 3  # messages in flight, as multiples of the slots: what is handled, and what is being recorded
_SHORTEST_LOOK_SECONDS = 0.05
_STOP_SHARE = 0.25  # of the grace, for giving back what has not finished
_STOP_SECONDS = 3.0
_LAST_LOOK_SECONDS = 1.0  # beyond its wait, for a look that is under way when the worker stops
log = logging.getLogger(__name__)


class JobWorker:
    """Works until it is stopped. For one event loop.

    :param owner: names this worker to the store: another one for every process and start
    :param webhook: for jobs that ask for it
    :param served_by: what answers jobs: the endpoint's model, or the handler function
    :param metrics: what to count in
    :param small_bytes: results up to this size are packed without any I/O
    :param lanes: changes of the store under way at a time, of each kind
    :param epoch: seconds since the epoch
    :param random: numbers in ``[0, 1)``, for jitter
    """

    def __init__(
        self,
        *,
        store: JobStore,
        transport: Transport,
        contents: ContentCodec,
        handler: Handler,
        settings: WorkerSettings,
        owner: str,
        epoch: Callable[[], float],
        random: Callable[[], float],
        webhook: Webhook | None = None,
        served_by: str | None = None,
        metrics: WorkerMetrics | None = None,
        lanes: int = 1,
        small_bytes: int = 0,
    ) -> None:
        self.metrics = metrics or WorkerMetrics()
        self._settings = settings
        self._calls = PortCalls(threads=THREADS, random=random)
        self._ports = WorkerPorts(
            store=store,
            transport=transport,
            calls=self._calls,
            owner=owner,
            lease_seconds=settings.lease_seconds,
            max_attempts=settings.max_attempts,
            lanes=lanes,
        )
        self._beats = Heartbeats(
            store=store,
            queue=transport.requests,
            calls=self._calls,
            owner=owner,
            every_seconds=settings.heartbeat_seconds,
            lease_seconds=settings.lease_seconds,
            visibility_seconds=settings.visibility_timeout_seconds,
            on_loss=self._count_loss,
        )
        tries = JobTries(
            handler,
            patience=settings.patience,
            deadline_seconds=settings.deadline_seconds,
            metrics=self.metrics,
            random=random,
            epoch=epoch,
        )
        self._attendant = Attendant(
            ports=self._ports,
            calls=self._calls,
            beats=self._beats,
            tries=tries,
            contents=contents,
            settings=settings,
            metrics=self.metrics,
            epoch=epoch,
            webhook=webhook,
            served_by=served_by,
            small_bytes=small_bytes,
        )
        self._attending: set[asyncio.Task[None]] = set()
        self._looking: set[asyncio.Task[None]] = set()
        self._news = asyncio.Event()
        self._slots = Slots(settings.concurrency, on_room=self._news.set)
        self._stopping = False
        self._plenty = False
        self._has_looked = False

    @property
    def ready(self) -> bool:
        """Whether it takes jobs, and everything that it needs works."""
        return self._has_looked and not self._stopping and not self._calls.down

    def stop(self) -> None:
        """Fetch nothing more; finish what is in flight, or give it back. :meth:`run` returns then."""
        self._stopping = True
        self._attendant.stop()
        self._news.set()

    async def run(self) -> None:
        """Work until :meth:`stop`, and then for ``grace_seconds`` at most."""
        beats = asyncio.create_task(self._beats.run())
        try:
            await self._fetch()
            await self._drain(asyncio.get_running_loop().time() + self._settings.grace_seconds)
        finally:
            tasks = (beats, *self._looking, *self._attending)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._ports.close()

    async def _drain(self, end: float) -> None:
        """Let jobs finish until shortly before ``end`` (loop time), then have them given back."""
        grace = self._settings.grace_seconds
        for look in self._looking:
            asyncio.get_running_loop().call_later(self._settings.poll_seconds + _LAST_LOOK_SECONDS, look.cancel)
        await self._all_done(until=end - min(_STOP_SECONDS, _STOP_SHARE * grace))
        self._attendant.interrupt()
        await self._all_done(until=end)
        if self._attending:
            log.warning("%d messages could be neither finished nor given back; they come again", len(self._attending))

    async def _all_done(self, *, until: float) -> None:
        loop = asyncio.get_running_loop()
        while (tasks := self._looking | self._attending) and loop.time() < until:
            await asyncio.wait(tasks, timeout=until - loop.time())

    # --- fetching

    async def _fetch(self) -> None:
        """Look for messages while there is room. A second look beside the first only where there was plenty."""
        while not self._stopping:
            room = min(_BATCH, self._slots.room, _AT_ONCE * self._settings.concurrency - len(self._attending))
            looks = len(self._looking)
            if (room > 0 and not looks) or (room == _BATCH and self._plenty and looks < _LOOKS):
                self._start(self._look(room), self._looking)
            else:
                self._news.clear()
                await self._news.wait()

    async def _look(self, room: int) -> None:
        settings, loop = self._settings, asyncio.get_running_loop()
        began = loop.time()
        with self._slots.asking(room):
            deliveries = await self._ports.receive(
                most=room,
                wait_seconds=settings.poll_seconds if self._has_looked else 0.0,  # whether it works is known soon
                visibility_seconds=settings.visibility_timeout_seconds,
            )
            turns = [self._slots.line_up() for _ in deliveries]
        self._has_looked = True
        self._plenty = len(deliveries) == room
        if not self._plenty:
            self._slots.count_on_none()
        self.metrics.receives += len(deliveries)
        self.metrics.redeliveries += sum(delivery.receives > 1 for delivery in deliveries)
        for delivery, turn in zip(deliveries, turns, strict=True):
            self._start(self._attendant.attend(delivery, turn), self._attending)
        if not deliveries and loop.time() - began < _SHORTEST_LOOK_SECONDS:  # a queue that does not wait
            await asyncio.sleep(_SHORTEST_LOOK_SECONDS)

    def _start(self, work: Coroutine[Any, Any, None], tasks: set[asyncio.Task[None]]) -> None:
        task = asyncio.create_task(work)
        tasks.add(task)

        def done(_: asyncio.Task[None]) -> None:
            tasks.discard(task)
            self.metrics.in_flight = len(self._attending)
            self._news.set()
            if not task.cancelled() and (error := task.exception()) is not None:
                log.error("unexpected %s in the worker; the message comes again", type(error).__name__)
                log.debug("defect in the worker", exc_info=error)

        task.add_done_callback(done)

    def _count_loss(self) -> None:
        self.metrics.lease_losses += 1
