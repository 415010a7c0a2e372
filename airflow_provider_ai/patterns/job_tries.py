"""The tries of one job on one worker: the handler called within its deadline, and again while it is not let in.

A handler that does not stop when told to is left behind: the job goes on without it, under the same idempotency key.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from airflow_provider_ai.core import job_reasons
from airflow_provider_ai.core.job_decisions import Move, Next, Patience, Tries, after_try
from airflow_provider_ai.core.job_handling import Ending, EndingKind, HandledJob, Handler
from airflow_provider_ai.core.job_metrics import WorkerMetrics
from airflow_provider_ai.patterns.job_heartbeats import Held

STOP_SECONDS = 1.0
"""What a handler may take to stop when it is cancelled, and beyond its deadline to end by itself."""
INTERRUPTED = Next(move=Move.GIVE_BACK, counts=False)
log = logging.getLogger(__name__)


class JobTries:
    """Tries jobs with a handler.

    :param epoch: seconds since the epoch
    :param random: numbers in ``[0, 1)``
    """

    def __init__(
        self,
        handler: Handler,
        *,
        patience: Patience,
        deadline_seconds: float,
        metrics: WorkerMetrics,
        random: Callable[[], float],
        epoch: Callable[[], float],
    ) -> None:
        self._handler = handler
        self._patience = patience
        self._deadline = deadline_seconds
        self._metrics = metrics
        self._random = random
        self._epoch = epoch
        self._left_behind: set[asyncio.Task[Ending]] = set()
        self._resting: set[Held] = set()
        self._hurried = False

    def hurry(self) -> None:
        """Begin no further try: jobs that wait for one are given back."""
        self._hurried = True
        for held in self._resting:
            held.interrupt()

    async def run(self, job: HandledJob, held: Held) -> tuple[Next, bytes | None]:
        """Try until there is something else to do with the job; what that is, and the output of one that is done.

        Interrupted (the lease is lost, the worker stops), a job is given back without counting.
        """
        loop = asyncio.get_running_loop()
        began, put_off = loop.time(), 0
        while not held.interrupted.done():
            ending = await self._try(job, held)
            if ending is None:
                break
            put_off += ending.kind is EndingKind.LATER
            tries = Tries(attempts=job.attempt, put_off=put_off, waited_seconds=loop.time() - began)
            following = self.after(ending, tries)
            if following.move is not Move.WAIT:
                return following, ending.output
            if self._hurried or not await self._pause(job, held, following.seconds):
                break
        return INTERRUPTED, None

    def after(self, ending: Ending, tries: Tries) -> Next:
        """What follows from how a try ended."""
        return after_try(ending, tries, self._patience, random=self._random())

    async def _try(self, job: HandledJob, held: Held) -> Ending | None:
        """One try; None when it was interrupted."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        task = asyncio.create_task(self._handler.handle(job, deadline_seconds=self._deadline))
        try:
            either: set[asyncio.Future[Any]] = {task, held.interrupted}
            seconds = self._deadline + STOP_SECONDS
            await asyncio.wait(either, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            if not task.done():
                await self._stop(task, job)
        ending = self._ending(task, job, stopped=held.interrupted.done())
        self._metrics.durations.add(loop.time() - began)
        self._metrics.tries["interrupted" if ending is None else ending.reason or ending.kind.value] += 1
        return ending

    async def _stop(self, task: asyncio.Task[Ending], job: HandledJob) -> None:
        task.cancel()
        await asyncio.wait({task}, timeout=STOP_SECONDS)
        if not task.done():
            log.warning("the handler of job %s does not stop; it is left behind", job.job_id)
            self._metrics.left_behind += 1
            self._left_behind.add(task)
            task.add_done_callback(self._left_behind.discard)

    def _ending(self, task: asyncio.Task[Ending], job: HandledJob, *, stopped: bool) -> Ending | None:
        if not task.done() or task.cancelled():
            return None if stopped else Ending(kind=EndingKind.RETRY, reason=job_reasons.DEADLINE)
        error = task.exception()
        if error is None:
            return task.result()
        log.warning("the handler raised %s for job %s", type(error).__name__, job.job_id)
        return Ending(kind=EndingKind.RETRY, reason=job_reasons.HANDLER_ERROR)

    async def _pause(self, job: HandledJob, held: Held, seconds: float) -> bool:
        """Wait, but not for a job whose time is over; whether to go on with it."""
        if job.expires_at is not None:
            seconds = min(seconds, max(0.0, job.expires_at - self._epoch()))
        self._resting.add(held)
        try:
            await asyncio.wait({held.interrupted}, timeout=seconds)
        finally:
            self._resting.discard(held)
        in_time = job.expires_at is None or self._epoch() < job.expires_at
        return in_time and not held.interrupted.done()
