"""Broken variants of the product, each with a mistake that such a tool could make. The invariants must catch them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import sqlalchemy as sa

from airflow_provider_ai.adapters.store import job_statements
from airflow_provider_ai.core.job_claims import begun
from airflow_provider_ai.core.job_decisions import Fate
from airflow_provider_ai.core.jobs import Claim, ClaimRefusal
from airflow_provider_ai.patterns import dispatcher, job_attendant, job_heartbeats, request_reply, worker_ports


def no_fence() -> None:
    """Whoever has worked on a job records how it ended, still having it or not, and no heartbeat tells it first."""
    asked = (
        sa.cast(sa.bindparam("of_owner"), sa.Text()).is_not(None),
        sa.cast(sa.bindparam("of_fence"), sa.BigInteger()).is_not(None),
    )
    job_statements._UNDER_FENCE = sa.and_(*asked)

    async def prolong(*_: Any) -> bool:
        return True

    job_heartbeats.Heartbeats._prolong = prolong  # type: ignore[method-assign]


def delete_first() -> None:
    """The worker deletes a message, then publishes the result."""
    real = job_attendant.Attendant._carry_out

    async def carry_out(self: Any, held: Any, step: Any) -> None:
        if step.fate is Fate.DELETE and step.publish is not None:
            await self._beats.let_go(held)
            await self._ports.delete(held.delivery)
            await self._publish(held, step.publish)
        else:
            await real(self, held, step)

    job_attendant.Attendant._carry_out = carry_out  # type: ignore[method-assign]


def dispatch_later() -> None:
    """The dispatcher deletes replies, then brings them into the inbox."""
    real = dispatcher.Dispatcher.take_results

    def take_results(self: Any) -> int:
        queue = self._transport.results
        receive = type(queue).receive

        def take(**limits: Any) -> Sequence[Any]:
            deliveries = receive(queue, **limits)
            queue.delete(deliveries)
            return deliveries

        queue.receive = take
        return real(self)

    dispatcher.Dispatcher.take_results = take_results  # type: ignore[method-assign]


def send_first() -> None:
    """The submitter sends messages, then inserts the jobs."""

    def submit(self: Any, submission: Any, group: Any, stop: Any) -> tuple[list[str], int]:
        new = [self._new_job(submission, request) for request in group]
        self._queue.send([request_reply.request_message(begun(job), now=0.0) for job in new])
        jobs = self._store.submit(new)
        self._store.sent([job.job_id for job in jobs])
        return [job.job_id for job in new], len(new)

    request_reply.Submitter._submit = submit  # type: ignore[method-assign]


def no_claim() -> None:
    """The worker does a job though another one has it."""
    real = worker_ports.WorkerPorts.claim

    async def claim(self: Any, job_id: str, sha256: str) -> Claim:
        answer = await real(self, job_id, sha256)
        if answer.refusal is ClaimRefusal.HELD and answer.job is not None:
            return Claim(refusal=None, job=answer.job, fence=answer.job.fence)
        return answer

    worker_ports.WorkerPorts.claim = claim  # type: ignore[method-assign]


MUTANTS: dict[str, Callable[[], None]] = {
    mutant.__name__: mutant for mutant in (no_fence, delete_first, dispatch_later, send_first, no_claim)
}
