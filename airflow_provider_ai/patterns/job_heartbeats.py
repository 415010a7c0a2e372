"""The heartbeat of a worker: leases and the visibility of messages, prolonged together for all of its jobs.

One task for all of them, so a thousand jobs cost one statement and a few requests a beat. A lease that is lost ends the
work on its job. A message is let go before anything else is done with it: a beat that is under way is awaited, or it
could hide the message again after it was given back.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from airflow_provider_ai.core.job_ports import Delivery, JobStore, MessageQueue
from airflow_provider_ai.core.jobs import Job
from airflow_provider_ai.exceptions import QueueError, StoreError
from airflow_provider_ai.patterns.port_calls import PortCalls
from airflow_provider_ai.patterns.slots import Turn

_AGAIN_SECONDS = 1.0
log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class Held:
    """A message that this worker has, and the lease on its job once there is one.

    :param job: as the store had it when it was claimed
    :param fence: of the lease; None while there is none
    :param turn: its slot, or place in the line for one
    :param ending: its outcome is being recorded: whether the lease was lost is then for the store to say
    :param lost: the lease is somebody else's now
    :param interrupted: done when the work on the job is to end at once
    """

    job_id: str
    delivery: Delivery
    turn: Turn
    job: Job | None = None
    fence: int | None = None
    ending: bool = False
    lost: bool = False
    interrupted: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    def interrupt(self) -> None:
        """End the work on the job."""
        if not self.interrupted.done():
            self.interrupted.set_result(None)

    def lose(self) -> None:
        """The lease is lost."""
        self.lost = True
        self.interrupt()


class Heartbeats:
    """Keeps what a worker holds.

    :param every_seconds: between beats; a fraction of the lease
    :param visibility_seconds: for which a beat hides the messages; longer than the lease, so a message whose worker
        died shows up when its job may be begun
    :param on_loss: called for each lease that was lost
    """

    def __init__(
        self,
        *,
        store: JobStore,
        queue: MessageQueue,
        calls: PortCalls,
        owner: str,
        every_seconds: float,
        lease_seconds: float,
        visibility_seconds: float,
        on_loss: Callable[[], None] = lambda: None,
    ) -> None:
        self._store = store
        self._queue = queue
        self._calls = calls
        self._owner = owner
        self._every = every_seconds
        self._lease = lease_seconds
        self._visibility = visibility_seconds
        self._on_loss = on_loss
        self._held: set[Held] = set()
        self._hiding: frozenset[Held] = frozenset()
        self._hidden = asyncio.Event()

    def hold(self, held: Held) -> None:
        """Keep it from the next beat on."""
        self._held.add(held)

    async def let_go(self, held: Held) -> None:
        """Keep it no more; when this returns no beat touches its message."""
        self._held.discard(held)
        while held in self._hiding:
            await self._hidden.wait()

    def drop(self, held: Held) -> None:
        """Keep it no more, whatever a beat under way may still do."""
        self._held.discard(held)

    async def run(self) -> None:
        """Beat until cancelled."""
        pause = self._every
        while True:
            await asyncio.sleep(pause)
            pause = self._every if await self.beat() else min(self._every, _AGAIN_SECONDS)

    async def beat(self) -> bool:
        """One beat; whether store and queue took it."""
        held = tuple(self._held)
        if not held:
            return True
        prolonged, hidden = await asyncio.gather(self._prolong(held), self._hide(held))
        return prolonged and hidden

    async def _prolong(self, held: Sequence[Held]) -> bool:
        leases = {each.job_id: each.fence for each in held if each.fence is not None and not each.lost}
        if not leases:
            return True
        try:
            still = await self._calls.once(
                lambda: self._store.heartbeat(leases, owner=self._owner, lease_seconds=self._lease)
            )
        except StoreError as error:
            self._calls.fails("store", error)
            return False
        for each in held:
            # A job that has ended or was given back meanwhile is no loss: nobody works on it here any more.
            over = each.ending or each not in self._held
            if each.job_id in leases and each.job_id not in still and not over:
                log.warning("the lease of job %s is lost; the work on it is stopped", each.job_id)
                self._on_loss()
                each.lose()
        return True

    async def _hide(self, held: Sequence[Held]) -> bool:
        self._hiding = frozenset(held)
        self._hidden.clear()
        try:
            deliveries = [each.delivery for each in held]
            await self._calls.once(lambda: self._queue.extend(deliveries, visibility_seconds=self._visibility))
        except QueueError as error:
            self._calls.fails("request queue", error)
            return False
        finally:
            self._hiding = frozenset()
            self._hidden.set()
        return True
