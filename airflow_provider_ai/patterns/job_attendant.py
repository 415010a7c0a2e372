"""One message of the request queue, from its delivery to its end.

The job is claimed in the store under a lease and a fencing token before its handler is called, and what it led to is
recorded under that token only. Then, in this order: the recorded outcome is published, and the message deleted. A
worker may die between any two of these steps: the message comes again, and what is recorded is published again without
any further call of the handler.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any, Protocol

import orjson

from airflow_provider_ai.core import job_reasons
from airflow_provider_ai.core.job_decisions import (
    ABANDON,
    Fate,
    Move,
    Next,
    Step,
    Tries,
    after_claim,
    after_recording,
    is_suspect,
)
from airflow_provider_ai.core.job_handling import Ending, EndingKind, HandledJob
from airflow_provider_ai.core.job_metrics import WorkerMetrics
from airflow_provider_ai.core.job_ports import Completion, ContentCodec, Delivery, OutgoingMessage
from airflow_provider_ai.core.job_settings import WorkerSettings
from airflow_provider_ai.core.jobs import Claim, Content, Job, JobState, Outcome, origin_of
from airflow_provider_ai.core.messages import RequestMessage, ResultMessage, decode_request, encode_result, id_in
from airflow_provider_ai.exceptions import (
    ClaimCheckError,
    ClaimCheckUnavailableError,
    KeyAccessError,
    UndecodableMessageError,
)
from airflow_provider_ai.patterns.job_heartbeats import Heartbeats, Held
from airflow_provider_ai.patterns.job_tries import INTERRUPTED, JobTries
from airflow_provider_ai.patterns.port_calls import PortCalls
from airflow_provider_ai.patterns.slots import Turn
from airflow_provider_ai.patterns.worker_ports import WorkerPorts

_CLAIM_CHECK_TRIES = 8
_CLAIM_CHECKS = "claim checks"
_SOURCE = "/airflow-ai/worker"
_NOT_KEPT = Outcome(state=JobState.FAILED, reason=job_reasons.RESULT_NOT_KEPT)
log = logging.getLogger(__name__)


class Webhook(Protocol):
    """Delivers results beside the result queue."""

    def deliver(self, job_id: str, body: bytes) -> None:
        """Begin to; how it ends is its own business."""
        ...


class Attendant:
    """Attends to messages, any number at a time.

    :param epoch: seconds since the epoch
    :param served_by: what answers jobs: the endpoint's model, or the handler function; it is recorded beside results
    :param small_bytes: results up to this size are packed without any I/O, and so at once instead of in a thread
    """

    def __init__(
        self,
        *,
        ports: WorkerPorts,
        calls: PortCalls,
        beats: Heartbeats,
        tries: JobTries,
        contents: ContentCodec,
        settings: WorkerSettings,
        metrics: WorkerMetrics,
        epoch: Callable[[], float],
        webhook: Webhook | None = None,
        served_by: str | None = None,
        small_bytes: int = 0,
    ) -> None:
        self._ports = ports
        self._calls = calls
        self._beats = beats
        self._tries = tries
        self._contents = contents
        self._settings = settings
        self._metrics = metrics
        self._epoch = epoch
        self._webhook = webhook
        self._served_by = served_by
        self._small_bytes = small_bytes
        self._here: dict[str, Held] = {}
        self._suspect = asyncio.Lock()
        self._stopping = False

    def stop(self) -> None:
        """Begin no further job: what is not begun is given back. Handlers go on."""
        self._stopping = True
        self._tries.hurry()

    def interrupt(self) -> None:
        """Stop handlers; their jobs are given back without counting."""
        for held in self._here.values():
            held.interrupt()

    async def attend(self, delivery: Delivery, turn: Turn) -> None:
        """From a delivery to the end of its message.

        :param turn: left as soon as the job's handler has ended or will not be called
        """
        try:
            message = decode_request(delivery.body)
        except UndecodableMessageError as error:
            turn.leave()
            await self._bury(delivery, error.reason, id_in(delivery.body))
            return
        held = Held(message.job_id, delivery, turn)
        if self._stopping or held.job_id in self._here:
            held.turn.leave()
            seconds = 0.0 if self._stopping else self._settings.visibility_timeout_seconds
            await self._ports.leave([delivery], seconds=seconds)
            return
        self._here[held.job_id] = held
        self._beats.hold(held)
        try:
            step = await self._next_step(held, message)
            held.turn.leave()
            await self._carry_out(held, step)
        finally:
            held.turn.leave()
            self._beats.drop(held)
            del self._here[held.job_id]

    async def _next_step(self, held: Held, message: RequestMessage) -> Step:
        claim = await self._ports.claim(held.job_id, message.payload.sha256)
        if claim.refusal is None and not await held.turn.comes():
            await self._ports.give_back(held.job_id, claim.fence, counts=False)
            return Step(fate=Fate.LEAVE)
        begun = claim.job if claim.refusal is None else None
        if begun is not None and is_suspect(begun, max_attempts=self._settings.max_attempts):
            return await self._apart(held, message, claim)
        return await self._after_claim(held, message, claim)

    async def _apart(self, held: Held, message: RequestMessage, claim: Claim) -> Step:
        """Do a suspect when no other one is in flight here. Until then it has no lease that a death could cost it."""
        log.warning("job %s was abandoned again and again; it is done apart from others like it", held.job_id)
        await self._ports.give_back(held.job_id, claim.fence, counts=False)
        async with self._suspect:
            if self._stopping:
                return Step(fate=Fate.LEAVE)
            claim = await self._ports.claim(held.job_id, message.payload.sha256)
            return await self._after_claim(held, message, claim)

    async def _after_claim(self, held: Held, message: RequestMessage, claim: Claim) -> Step:
        held.job = claim.job
        step = after_claim(claim, lease_seconds=self._settings.lease_seconds)
        if step.fate is Fate.RUN and claim.job is not None:
            held.fence = claim.fence
            return await self._work(held, claim.job, message.payload)
        self._metrics.told_again += step.publish is not None
        self._metrics.left += step.fate is Fate.LEAVE
        return step

    async def _work(self, held: Held, job: Job, payload: Content) -> Step:
        following, output = await self._tried(held, job, payload)
        held.turn.leave()
        if held.lost:
            return ABANDON
        if following.move is Move.RECORD:
            return await self._record(held, following, output)
        await self._beats.let_go(held)
        self._metrics.given_back += 1
        if not await self._ports.give_back(held.job_id, held.fence or 0, counts=following.counts):
            return ABANDON
        return Step(fate=Fate.LEAVE, seconds=following.seconds)

    async def _tried(self, held: Held, job: Job, payload: Content) -> tuple[Next, bytes | None]:
        if self._stopping:
            return INTERRUPTED, None
        self._metrics.running += 1
        try:
            read = await self._read(payload, job)
            if isinstance(read, Ending):
                return self._tries.after(read, Tries(attempts=job.attempts, put_off=1, waited_seconds=math.inf)), None
            handled = HandledJob(
                job_id=job.job_id,
                idempotency_key=job.job_id,
                attempt=job.attempts,
                payload=read[0],
                expires_at=job.expires_at,
            )
            return await self._tries.run(handled, held)
        finally:
            self._metrics.running -= 1

    async def _record(self, held: Held, following: Next, output: bytes | None) -> Step:
        outcome = Outcome(state=following.state, reason=following.reason)
        if output is not None:
            content = await self._kept(output, held.job_id)
            outcome = _NOT_KEPT if content is None else replace(outcome, content=content, model=self._served_by)
        held.ending = True
        completion = Completion(job_id=held.job_id, fence=held.fence or 0, outcome=outcome)
        recorded = await self._ports.complete(completion)
        if recorded is not None:
            self._metrics.outcomes[recorded.state.value] += 1
        return after_recording(recorded)

    async def _carry_out(self, held: Held, step: Step) -> None:
        if step.publish is not None:
            await self._publish(held, step.publish)
        await self._beats.let_go(held)
        if step.fate is Fate.DELETE:
            await self._ports.delete(held.delivery)
        elif step.fate is Fate.BURY:
            await self._bury(held.delivery, step.reason or job_reasons.UNKNOWN_JOB, held.job_id)
        elif step.fate is Fate.LEAVE:
            await self._ports.leave([held.delivery], seconds=step.seconds)

    async def _publish(self, held: Held, outcome: Outcome) -> None:
        group = webhook = None
        fence = held.fence or 0
        if held.job is not None:
            group, webhook, fence = held.job.group, held.job.webhook, held.job.fence
        body = encode_result(
            ResultMessage(job_id=held.job_id, source=_SOURCE, time=self._epoch(), fence=fence, outcome=outcome)
        )
        if not await self._ports.publish(OutgoingMessage(key=held.job_id, body=body, group=group)):
            log.error("the result queue does not take the result of job %s; it arrives by the store", held.job_id)
        if webhook and self._webhook is not None:
            self._webhook.deliver(held.job_id, body)

    async def _bury(self, delivery: Delivery, reason: str, job_id: str | None) -> None:
        log.warning("a request is put aside as a dead letter: %s (job %s)", reason, job_id or "unknown")
        self._metrics.dead_letters[reason] += 1
        await self._ports.bury(delivery, reason, job_id)

    # --- payloads and results

    async def _read(self, payload: Content, job: Job) -> tuple[Any] | Ending:
        """The payload (in a tuple, for it may be anything), or how the try ended without one.

        Without a key, now or for the result, nothing is called: it is left for later, and does not count.
        """
        try:
            data = await self._unpacked(payload, job)
            self._contents.prepare("result")
        except KeyAccessError as error:
            log.warning("job %s is left for later: %s", job.job_id, error)
            return Ending(kind=EndingKind.LATER, reason=job_reasons.PAYLOAD_UNAVAILABLE)
        except ClaimCheckUnavailableError:
            return Ending(kind=EndingKind.LATER, reason=job_reasons.PAYLOAD_UNAVAILABLE)
        except ClaimCheckError:
            return Ending(kind=EndingKind.RETRY, reason=job_reasons.PAYLOAD_LOST)
        try:
            return (orjson.loads(data),)
        except ValueError:
            return Ending(kind=EndingKind.REJECTED, reason=job_reasons.PAYLOAD_NOT_JSON)

    async def _unpacked(self, payload: Content, job: Job) -> bytes:
        origin = origin_of(job)
        unpack = partial(self._contents.unpack, payload, kind="payload", job_id=job.job_id, origin=origin)
        if payload.inline is not None:
            return unpack()
        return await self._calls.patiently(_CLAIM_CHECKS, unpack, most_tries=_CLAIM_CHECK_TRIES)

    async def _kept(self, output: bytes, job_id: str) -> Content | None:
        """The result, packed, however long that takes: it is paid for. None when it cannot be kept."""
        pack = partial(self._contents.pack, output, kind="result", job_id=job_id)
        if len(output) <= self._small_bytes:
            with suppress(KeyAccessError):
                return pack()
        try:
            return await self._calls.patiently(_CLAIM_CHECKS, pack)
        except ClaimCheckError as error:
            log.error("the result of job %s cannot be kept: %s", job_id, error)
            return None
