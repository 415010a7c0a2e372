"""Jobs, audited: a store of jobs, one of dead letters and a handler, each wrapped.

A job is named by the key of its id: an id that means nothing outside of the store, and with the audit's key nothing
outside of the audit either. What is done to many jobs at once is one event that names each of them (a roll-up).

What must not be done unaudited is on record before it: submitting, sending to a model, redriving, purging. What has
happened already is on record before anything follows from it: a result is not completed, and a reply not deleted from
its queue, before its event is durable. An audit that is down is waited for like the store that it lies in, since its
errors are those of a store.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, cast

from airflow_provider_ai.core import job_reasons
from airflow_provider_ai.core.audit import AuditAction, AuditEvent, AuditOutcome
from airflow_provider_ai.core.job_handling import Ending, EndingKind, HandledJob, Handler
from airflow_provider_ai.core.job_ports import Arrival, Completion, DeadLetter, DeadLetterStore, JobStore
from airflow_provider_ai.core.jobs import Claim, Job, JobState, NewJob, Outcome
from airflow_provider_ai.exceptions import AuditError
from airflow_provider_ai.patterns.auditing import FAILED, INTENDED, REFUSED, SUCCEEDED, Auditor
from airflow_provider_ai.patterns.grouping import Grouped

_MOST = 256
_WEBHOOK = "webhook"


def audited_jobs(
    store: JobStore, auditor: Auditor, *, model: str | None = None, prompt_hash: str | None = None
) -> JobStore:
    """The store, audited; the store itself where the audit is off.

    :param model: whom a worker asks, and with what
    """
    if not auditor.on:
        return store
    return cast(JobStore, _AuditedJobs(store, auditor, model=model, prompt_hash=prompt_hash))


def audited_letters(letters: DeadLetterStore, auditor: Auditor) -> DeadLetterStore:
    """The dead letters, audited; themselves where the audit is off."""
    return _AuditedLetters(letters, auditor) if auditor.on else letters


class _Events:
    """Events about jobs."""

    def __init__(self, auditor: Auditor, *, model: str | None = None, prompt_hash: str | None = None) -> None:
        self._auditor = auditor
        self._model = model
        self._prompt_hash = prompt_hash

    def of(
        self,
        action: AuditAction,
        outcome: AuditOutcome,
        job_ids: Sequence[str],
        *,
        reason: str | None = None,
        reference: str | None = None,
    ) -> AuditEvent:
        return self._auditor.event(
            action,
            outcome,
            keys=[self._auditor.key(job_id) for job_id in job_ids],
            model=self._model,
            prompt_hash=self._prompt_hash,
            reference=reference or (job_ids[0] if len(job_ids) == 1 else None),
            reason=reason,
        )


class _AuditedJobs:
    """What is not here is the store's own."""

    def __init__(self, inner: JobStore, auditor: Auditor, *, model: str | None, prompt_hash: str | None) -> None:
        self._inner = inner
        self._auditor = auditor
        self._jobs = _Events(auditor)
        self._calls = _Events(auditor, model=model, prompt_hash=prompt_hash)
        self._on_record: set[tuple[str, int]] = set()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    # --- submitters

    def submit(self, jobs: Sequence[NewJob]) -> Sequence[Job]:
        ids = [job.job_id for job in jobs]
        submission = jobs[0].submission if jobs else None
        self._keep(AuditAction.SUBMIT, INTENDED, ids, reference=submission)
        found = self._inner.submit(jobs)
        self._keep(AuditAction.SUBMIT, SUCCEEDED, ids, reference=submission)
        return found

    def cancel(self, submission: str) -> int:
        cancelled = self._inner.cancel(submission)
        if cancelled:
            self._auditor.record(self._auditor.event(AuditAction.CANCEL, SUCCEEDED, reference=submission))
        return cancelled

    def arrivals(self, submission: str, *, after: int = -1, most: int = 1000) -> Sequence[Arrival]:
        found = self._inner.arrivals(submission, after=after, most=most)
        self._keep(AuditAction.READ, SUCCEEDED, [arrival.job_id for arrival in found], reference=submission)
        return found

    def redrive(self, job_ids: Sequence[str]) -> Sequence[Job]:
        self._keep(AuditAction.REDRIVE, INTENDED, job_ids)
        found = self._inner.redrive(job_ids)
        self._keep(AuditAction.REDRIVE, SUCCEEDED, [job.job_id for job in found])
        return found

    # --- workers

    def claim_many(
        self, payloads: Mapping[str, str], *, owner: str, lease_seconds: float, max_attempts: int
    ) -> Mapping[str, Claim]:
        claims = self._inner.claim_many(payloads, owner=owner, lease_seconds=lease_seconds, max_attempts=max_attempts)
        self._keep(AuditAction.CLAIM, SUCCEEDED, [job for job, claim in claims.items() if claim.refusal is None])
        return claims

    def complete_many(self, completions: Sequence[Completion], *, owner: str) -> Sequence[Outcome | None]:
        """What a store that is down makes its caller repeat is on record once."""
        done = {(each.job_id, each.fence) for each in completions if each.outcome.state is JobState.SUCCEEDED}
        fresh = sorted(done - self._on_record)
        if fresh:
            self._auditor.record(self._calls.of(AuditAction.INFER, SUCCEEDED, [job_id for job_id, _ in fresh]))
        self._on_record |= done
        recorded = self._inner.complete_many(completions, owner=owner)
        self._on_record -= done
        return recorded

    # --- the inbox

    def receive(self, job_id: str, outcome: Outcome, *, via: str) -> bool:
        known = self._inner.receive(job_id, outcome, via=via)
        if known:
            self._keep(AuditAction.RECEIVE, SUCCEEDED, [job_id], reason=via)
        return known

    def receive_many(self, outcomes: Mapping[str, Outcome], *, via: str) -> set[str]:
        known = self._inner.receive_many(outcomes, via=via)
        self._keep(AuditAction.RECEIVE, SUCCEEDED, sorted(known), reason=via)
        return known

    def keep_unknown(self, message: bytes, *, job_id: str | None, via: str, reason: str) -> None:
        refused = job_id is None and via == _WEBHOOK
        action = AuditAction.WEBHOOK_REFUSED if refused else AuditAction.REPLY_UNKNOWN
        self._auditor.record(self._jobs.of(action, REFUSED, [] if job_id is None else [job_id], reason=reason))
        self._inner.keep_unknown(message, job_id=job_id, via=via, reason=reason)

    def _keep(
        self,
        action: AuditAction,
        outcome: AuditOutcome,
        job_ids: Sequence[str],
        *,
        reference: str | None = None,
        reason: str | None = None,
    ) -> None:
        if job_ids:
            self._auditor.record(self._jobs.of(action, outcome, job_ids, reference=reference, reason=reason))


class _AuditedLetters:
    def __init__(self, inner: DeadLetterStore, auditor: Auditor) -> None:
        self._inner = inner
        self._auditor = auditor
        self._events = _Events(auditor)

    def keep(self, letters: Sequence[DeadLetter]) -> None:
        """Put aside; audited by reason, before it is done."""
        for reason in sorted({letter.reason for letter in letters}):
            some = [letter for letter in letters if letter.reason == reason]
            self._note(AuditAction.DEAD_LETTER, some, reason=reason)
        self._inner.keep(letters)

    def letters(self, *, most: int, after: DeadLetter | None = None) -> Sequence[DeadLetter]:
        """Shown once it is on record."""
        found = self._inner.letters(most=most, after=after)
        self._note(AuditAction.SHOW, found)
        return found

    def letter(self, letter_id: str) -> DeadLetter | None:
        """Likewise."""
        found = self._inner.letter(letter_id)
        if found is not None:
            self._note(AuditAction.SHOW, [found])
        return found

    def remove(self, letter_ids: Sequence[str]) -> int:
        """Removed once it is on record which; their keys are those of the letters' ids."""
        if letter_ids:
            self._auditor.record(self._events.of(AuditAction.PURGE, INTENDED, letter_ids))
        removed = self._inner.remove(letter_ids)
        if letter_ids:
            self._auditor.record(self._events.of(AuditAction.PURGE, SUCCEEDED, letter_ids))
        return removed

    def _note(self, action: AuditAction, letters: Sequence[DeadLetter], *, reason: str | None = None) -> None:
        """A letter without a job is named by its own id."""
        if letters:
            ids = [letter.job_id or letter.letter_id for letter in letters]
            self._auditor.record(self._events.of(action, SUCCEEDED, ids, reason=reason))


class AuditedHandler:
    """A handler that is asked only once it is on record, with those of other jobs at the same moment in one commit.

    A job whose intention cannot be kept is put off without counting. How it ended is on record before anything follows:
    one that is done when it is completed, any other one here.
    """

    def __init__(self, inner: Handler, auditor: Auditor, *, model: str | None, prompt_hash: str | None) -> None:
        self._inner = inner
        self._events = _Events(auditor, model=model, prompt_hash=prompt_hash)
        self._auditor = auditor
        self._keep = Grouped(self._kept, most=_MOST)

    async def handle(self, job: HandledJob, *, deadline_seconds: float) -> Ending:
        """One try."""
        try:
            await self._keep(self._events.of(AuditAction.INFER, INTENDED, [job.job_id]))
            ending = await self._inner.handle(job, deadline_seconds=deadline_seconds)
            if ending.kind is not EndingKind.DONE:
                await self._keep(self._events.of(AuditAction.INFER, FAILED, [job.job_id], reason=ending.reason))
        except AuditError:
            return Ending(kind=EndingKind.LATER, reason=job_reasons.AUDIT_UNAVAILABLE)
        return ending

    async def _kept(self, events: Sequence[AuditEvent]) -> list[None]:
        await asyncio.to_thread(self._auditor.record, *events)
        return [None] * len(events)
