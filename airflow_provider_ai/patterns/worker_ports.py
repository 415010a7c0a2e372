"""A worker's store and queues, as its jobs use them: one by one to look at, in groups on the wire.

Every call here ends only with success, however long that takes; whoever does not want to wait any longer cancels it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial

from airflow_provider_ai.core.job_ports import Completion, Delivery, JobStore, OutgoingMessage, Transport
from airflow_provider_ai.core.jobs import Claim, Outcome
from airflow_provider_ai.exceptions import MessagesRefusedError
from airflow_provider_ai.patterns.dead_letters import put_aside
from airflow_provider_ai.patterns.grouping import Grouped
from airflow_provider_ai.patterns.port_calls import PortCalls

STORE, REQUESTS, RESULTS, DEAD_LETTERS = "store", "request queue", "result queue", "dead letter queue"
_MOST = 100
_LANES = 2
_FULL = 10  # messages in a call of SQS
_LINGER_SECONDS = 0.02  # a slot is not held meanwhile
_LEFT_OUT_SECONDS = 0.5
THREADS = 24


class WorkerPorts:
    """Groups calls.

    :param owner: this worker, to the store; another one for every process
    :param lanes: of the store: calls under way for each kind of change
    """

    def __init__(
        self,
        *,
        store: JobStore,
        transport: Transport,
        calls: PortCalls,
        owner: str,
        lease_seconds: float,
        max_attempts: int,
        lanes: int = 1,
    ) -> None:
        self._store = store
        self._transport = transport
        self._calls = calls
        self._owner = owner
        self._lease = lease_seconds
        self._max_attempts = max_attempts
        self._claims = Grouped(self._claim_group, most=_MOST, lanes=lanes)
        tens = partial(Grouped, most=_MOST, full=_FULL, linger_seconds=_LINGER_SECONDS)
        self._completions = tens(self._complete_group, lanes=lanes)
        self._results = tens(self._publish_group, lanes=_LANES)
        self._deletions = tens(self._delete_group, lanes=_LANES)

    async def claim(self, job_id: str, sha256: str) -> Claim:
        """Begin a job, or learn why not."""
        return await self._claims((job_id, sha256))

    async def complete(self, completion: Completion) -> Outcome | None:
        """Record how a job ended; what is recorded now, None when somebody else has the job."""
        return await self._completions(completion)

    async def publish(self, message: OutgoingMessage) -> bool:
        """Put a result into the result queue; False when the queue never takes it."""
        while True:
            taken = await self._results(message)
            if taken is not None:
                return taken
            await asyncio.sleep(_LEFT_OUT_SECONDS)

    async def delete(self, delivery: Delivery) -> None:
        """The message is done."""
        await self._deletions(delivery)

    async def give_back(self, job_id: str, fence: int, *, counts: bool) -> bool:
        """Make a job pending again; whether it was still held."""
        give = partial(self._store.give_back, job_id, owner=self._owner, fence=fence, count_attempt=counts)
        return await self._calls.patiently(STORE, give)

    async def leave(self, deliveries: Sequence[Delivery], *, seconds: float) -> None:
        """Let messages show up again after a while; 0 for at once."""
        queue = self._transport.requests
        await self._calls.patiently(REQUESTS, partial(queue.extend, deliveries, visibility_seconds=seconds))

    async def bury(self, delivery: Delivery, reason: str, job_id: str | None) -> None:
        """Make a dead letter of a message."""
        send = partial(
            put_aside, self._transport.dead_letters, delivery, reason, job_id, source=self._transport.requests.name
        )
        await self._calls.patiently(DEAD_LETTERS, send)
        await self.delete(delivery)

    async def receive(self, *, most: int, wait_seconds: float, visibility_seconds: float) -> Sequence[Delivery]:
        """Messages of the request queue."""
        queue = self._transport.requests
        return await self._calls.patiently(
            REQUESTS,
            lambda: queue.receive(most=most, wait_seconds=wait_seconds, visibility_seconds=visibility_seconds),
        )

    def close(self) -> None:
        """End what is under way."""
        self._claims.cancel()
        self._completions.cancel()
        self._results.cancel()
        self._deletions.cancel()
        self._calls.close()

    # ---

    async def _claim_group(self, asked: Sequence[tuple[str, str]]) -> list[Claim]:
        claim = partial(
            self._store.claim_many,
            dict(asked),
            owner=self._owner,
            lease_seconds=self._lease,
            max_attempts=self._max_attempts,
        )
        claims = await self._calls.patiently(STORE, claim)
        return [claims[job_id] for job_id, _ in asked]

    async def _complete_group(self, completions: Sequence[Completion]) -> Sequence[Outcome | None]:
        complete = partial(self._store.complete_many, completions, owner=self._owner)
        return await self._calls.patiently(STORE, complete)

    async def _publish_group(self, messages: Sequence[OutgoingMessage]) -> list[bool | None]:
        """Of each whether it is in; None for one that is to be sent again."""
        refused: set[str] = set()
        try:
            sent = set(await self._calls.patiently(RESULTS, partial(self._transport.results.send, messages)))
        except MessagesRefusedError as error:
            sent, refused = set(error.sent), set(error.refused)
        return [True if each.key in sent else False if each.key in refused else None for each in messages]

    async def _delete_group(self, deliveries: Sequence[Delivery]) -> list[None]:
        await self._calls.patiently(REQUESTS, partial(self._transport.requests.delete, deliveries))
        return [None] * len(deliveries)
