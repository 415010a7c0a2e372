"""Jobs, audited: what must not be done unaudited waits, and nothing follows from what is not on record."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import pytest

from airflow_provider_ai.core.audit import Actor, AuditAction, AuditEvent, AuditOutcome
from airflow_provider_ai.core.audit_ports import NullAuditLog
from airflow_provider_ai.core.identity import record_key
from airflow_provider_ai.core.job_handling import Ending, EndingKind, HandledJob
from airflow_provider_ai.core.job_ports import Completion, DeadLetter, JobStore
from airflow_provider_ai.core.jobs import JobState, Outcome
from airflow_provider_ai.exceptions import AuditError, AuditUnavailableError, StoreUnavailableError
from airflow_provider_ai.patterns.audited_jobs import AuditedHandler, audited_jobs, audited_letters
from airflow_provider_ai.patterns.auditing import Auditor
from airflow_provider_ai.runtime.webhook_inbox import Taken, WebhookInbox
from airflow_provider_ai.testing import InMemoryAudit, InMemoryDeadLetters, InMemoryJobStore
from tests.adapters.store.jobs import done, new_jobs

SECRET = b"s" * 32
A = AuditAction
INTENDED, SUCCEEDED, FAILED, REFUSED = (
    AuditOutcome.INTENDED,
    AuditOutcome.SUCCEEDED,
    AuditOutcome.FAILED,
    AuditOutcome.REFUSED,
)
OWNER = "worker-1"


@pytest.fixture
def log() -> InMemoryAudit:
    return InMemoryAudit()


@pytest.fixture
def auditor(log: InMemoryAudit) -> Auditor:
    return Auditor(log, actor=Actor(kind="service", role="worker"), hmac_key=SECRET, epoch=time.time)


@pytest.fixture
def inner() -> InMemoryJobStore:
    return InMemoryJobStore()


@pytest.fixture
def store(inner: InMemoryJobStore, auditor: Auditor) -> JobStore:
    return audited_jobs(inner, auditor, model="m", prompt_hash="p")


def keys_of(event: AuditEvent) -> list[str]:
    return [event.keys[start : start + 16].hex() for start in range(0, len(event.keys), 16)]


def claimed(store: JobStore, jobs: Sequence[Any]) -> dict[str, int]:
    claims = store.claim_many(
        {job.job_id: job.payload.sha256 for job in jobs}, owner=OWNER, lease_seconds=60, max_attempts=3
    )
    return {job_id: claim.fence for job_id, claim in claims.items() if claim.refusal is None}


def test_submitting_is_on_record_before_it_is_done(store: JobStore, log: InMemoryAudit) -> None:
    """One event for a group, with a key for each job."""
    jobs = new_jobs(3)
    store.submit(jobs)
    assert log.told() == [(A.SUBMIT, INTENDED, 3), (A.SUBMIT, SUCCEEDED, 3)]
    assert keys_of(log.events[0]) == [record_key(job.job_id, secret=SECRET) for job in jobs]
    assert log.events[0].reference == jobs[0].submission


def test_nothing_is_submitted_while_the_audit_is_down(
    store: JobStore, inner: InMemoryJobStore, log: InMemoryAudit
) -> None:
    """Whoever submits waits for it as for the store."""
    log.available = False
    with pytest.raises(StoreUnavailableError):
        store.submit(new_jobs(3))
    assert inner.jobs(new_jobs(1)[0].submission) == []


def test_a_job_from_claim_to_result(store: JobStore, log: InMemoryAudit) -> None:
    """Claimed, done, received, read: each on record, with the model where it was asked."""
    jobs = new_jobs(2)
    store.submit(jobs)
    fences = claimed(store, jobs)
    completions = [Completion(job_id=job_id, fence=fence, outcome=done()) for job_id, fence in fences.items()]
    store.complete_many(completions, owner=OWNER)
    store.receive_many({job.job_id: done() for job in jobs}, via="queue")
    assert len(store.arrivals(jobs[0].submission)) == 2
    assert log.told()[2:] == [
        (A.CLAIM, SUCCEEDED, 2),
        (A.INFER, SUCCEEDED, 2),
        (A.RECEIVE, SUCCEEDED, 2),
        (A.READ, SUCCEEDED, 2),
    ]
    assert [(event.model, event.reason) for event in log.events[2:5]] == [(None, None), ("m", None), (None, "queue")]


def test_a_result_is_not_completed_before_it_is_on_record(
    store: JobStore, inner: InMemoryJobStore, log: InMemoryAudit
) -> None:
    """The job stays with its worker, which asks again; once both work, it is on record once."""
    jobs = new_jobs(1)
    store.submit(jobs)
    completions = [Completion(job_id=k, fence=f, outcome=done()) for k, f in claimed(store, jobs).items()]
    log.available = False
    with pytest.raises(AuditUnavailableError):
        store.complete_many(completions, owner=OWNER)
    job = inner.job(jobs[0].job_id)
    assert job is not None
    assert job.state is JobState.RUNNING
    log.available = True
    before = len(log.events)
    real, inner.complete_many = inner.complete_many, _down  # type: ignore[method-assign]
    for _ in range(3):
        with pytest.raises(StoreUnavailableError):
            store.complete_many(completions, owner=OWNER)
    inner.complete_many = real  # type: ignore[method-assign]
    assert [outcome and outcome.state for outcome in store.complete_many(completions, owner=OWNER)] == [
        JobState.SUCCEEDED
    ]
    assert log.told()[before:] == [(A.INFER, SUCCEEDED, 1)]


def _down(*_: Any, **__: Any) -> Any:
    raise StoreUnavailableError("down")


def test_jobs_that_failed_are_no_inference(store: JobStore, log: InMemoryAudit) -> None:
    """How their tries ended is on record by the handler."""
    jobs = new_jobs(1)
    store.submit(jobs)
    outcome = Outcome(state=JobState.FAILED, reason="rejected")
    store.complete_many(
        [Completion(job_id=k, fence=f, outcome=outcome) for k, f in claimed(store, jobs).items()], owner=OWNER
    )
    assert [action for action, _, _ in log.told()[2:]] == [A.CLAIM]


def test_a_reply_is_on_record_before_it_is_deleted(store: JobStore, log: InMemoryAudit) -> None:
    """What receiving it raises, the dispatcher takes for a store that is down: the reply stays in its queue."""
    jobs = new_jobs(1)
    store.submit(jobs)
    log.available = False
    with pytest.raises(StoreUnavailableError):
        store.receive_many({jobs[0].job_id: done()}, via="queue")
    log.available = True
    assert store.receive_many({jobs[0].job_id: done()}, via="queue") == {jobs[0].job_id}


def test_redriving_and_cancelling(store: JobStore, log: InMemoryAudit) -> None:
    """Before it is done, and which jobs it led to; a cancellation by its submission."""
    jobs = new_jobs(2)
    store.submit(jobs)
    store.fail(jobs[0].job_id, reason="rejected")
    store.redrive([jobs[0].job_id])
    assert store.cancel(jobs[0].submission) >= 1
    assert log.told()[2:] == [(A.REDRIVE, INTENDED, 1), (A.REDRIVE, SUCCEEDED, 1), (A.CANCEL, SUCCEEDED, 0)]


def test_everything_else_is_the_stores_own(store: JobStore, inner: InMemoryJobStore) -> None:
    """Heartbeats, counts, looks."""
    jobs = new_jobs(1)
    store.submit(jobs)
    assert store.counts([jobs[0].submission]) == inner.counts([jobs[0].submission])
    assert store.job(jobs[0].job_id) == inner.job(jobs[0].job_id)


def test_where_the_audit_is_off_nothing_is_wrapped(inner: InMemoryJobStore) -> None:
    """It costs nothing."""
    off = Auditor(NullAuditLog(), actor=Actor(kind="cli", role="x"), hmac_key=b"", epoch=time.time)
    letters = InMemoryDeadLetters()
    assert audited_jobs(inner, off) is inner
    assert audited_letters(letters, off) is letters


# --- webhooks


def test_refused_webhooks_and_unknown_replies(store: JobStore, log: InMemoryAudit) -> None:
    """Each with its reason; a reply also with its job."""
    inbox = WebhookInbox(store)
    assert inbox.refuse("wrong_signature") is Taken.REFUSED
    store.keep_unknown(b"{}", job_id="j-1", via="queue", reason="unknown_job")
    assert log.told() == [(A.WEBHOOK_REFUSED, REFUSED, 0), (A.REPLY_UNKNOWN, REFUSED, 1)]
    assert [event.reason for event in log.events] == ["wrong_signature", "unknown_job"]


# --- dead letters


def letter(number: int, job_id: str | None = "j") -> DeadLetter:
    return DeadLetter(letter_id=f"{number:032x}", job_id=job_id, reason="rejected", source="q", message=b"CANARY")


def test_dead_letters(auditor: Auditor, log: InMemoryAudit) -> None:
    """Put aside, looked at, thrown away; no message is in any event."""
    letters = audited_letters(InMemoryDeadLetters(), auditor)
    letters.keep([letter(1), letter(2, None)])
    assert len(letters.letters(most=10)) == 2
    assert letters.letter(f"{1:032x}") is not None
    assert letters.letter("none") is None
    assert letters.remove([f"{1:032x}"]) == 1
    assert letters.remove([]) == 0
    assert log.told() == [
        (A.DEAD_LETTER, SUCCEEDED, 2),
        (A.SHOW, SUCCEEDED, 2),
        (A.SHOW, SUCCEEDED, 1),
        (A.PURGE, INTENDED, 1),
        (A.PURGE, SUCCEEDED, 1),
    ]
    assert "CANARY" not in repr(log.rows)


def test_nobody_looks_and_nothing_is_purged_while_the_audit_is_down(auditor: Auditor, log: InMemoryAudit) -> None:
    """The letters stay."""
    inner = InMemoryDeadLetters()
    inner.keep([letter(1)])
    letters = audited_letters(inner, auditor)
    log.available = False
    for work in (lambda: letters.letters(most=1), lambda: letters.remove([f"{1:032x}"])):
        with pytest.raises(AuditError):
            work()
    assert len(inner.letters(most=10)) == 1


# --- handlers


class Handler:
    """Ends each try as it is told, and counts them."""

    def __init__(self, ending: Ending) -> None:
        self.ending = ending
        self.calls = 0

    async def handle(self, job: HandledJob, *, deadline_seconds: float) -> Ending:
        self.calls += 1
        await asyncio.sleep(0)
        return self.ending


DONE = Ending(kind=EndingKind.DONE, output=b"{}")


def handled(number: int = 0) -> HandledJob:
    return HandledJob(job_id=f"j{number}", idempotency_key="k", attempt=1, payload={"note": "CANARY"})


async def test_a_handler_is_asked_once_it_is_on_record(auditor: Auditor, log: InMemoryAudit) -> None:
    """How it ended is on record here unless it is done: that is when it is completed."""
    handler = AuditedHandler(Handler(DONE), auditor, model="m", prompt_hash="p")
    assert await handler.handle(handled(), deadline_seconds=1) == DONE
    assert log.told() == [(A.INFER, INTENDED, 1)]
    assert (log.events[0].model, log.events[0].reference) == ("m", "j0")
    failing = Handler(Ending(kind=EndingKind.RETRY, reason="server_error"))
    await AuditedHandler(failing, auditor, model="m", prompt_hash="p").handle(handled(), deadline_seconds=1)
    assert log.told()[1:] == [(A.INFER, INTENDED, 1), (A.INFER, FAILED, 1)]
    assert log.events[2].reason == "server_error"
    assert "CANARY" not in repr(log.rows)


async def test_no_handler_is_asked_while_the_audit_is_down(auditor: Auditor, log: InMemoryAudit) -> None:
    """The job is put off without counting."""
    log.available = False
    inner = Handler(DONE)
    ending = await AuditedHandler(inner, auditor, model="m", prompt_hash=None).handle(handled(), deadline_seconds=1)
    assert (ending.kind, ending.reason, inner.calls) == (EndingKind.LATER, "audit_unavailable", 0)


async def test_jobs_at_the_same_moment_share_a_commit(auditor: Auditor, log: InMemoryAudit) -> None:
    """An event for each of them all the same."""
    appended: list[int] = []
    real = log.append

    def append(events: Sequence[AuditEvent]) -> None:
        appended.append(len(events))
        time.sleep(0.01)
        real(events)

    log.append = append  # type: ignore[method-assign]
    handler = AuditedHandler(Handler(DONE), auditor, model="m", prompt_hash="p")
    await asyncio.gather(*(handler.handle(handled(number), deadline_seconds=9) for number in range(50)))
    assert {event.reference for event in log.events} == {f"j{number}" for number in range(50)}
    assert len(appended) < 10
