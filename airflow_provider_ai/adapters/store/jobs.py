"""Jobs and their leases, for all processes that use one store.

A worker's claim is one statement with all of its conditions; only when that has changed nothing is the job looked at,
to say why (:func:`airflow_provider_ai.core.job_claims.refusal`), and claimed again if it has changed meanwhile.
Whatever a worker says later holds only under its owner's name and fence.

What a waiter may rely on (submissions, outcomes, the inbox) is committed through durable connections and survives a
power cut. Claims, heartbeats and marks are not: after a power cut a job may be claimed once more.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_provider_ai.adapters.store.database import Session
from airflow_provider_ai.adapters.store.group_commit import GroupCommit
from airflow_provider_ai.adapters.store.inbox import StoredInbox, in_slices
from airflow_provider_ai.adapters.store.job_rows import job_of, lease_of, new_row, outcome_of, outcome_values
from airflow_provider_ai.core.job_claims import (
    MOST_AT_ONCE,
    REDRIVABLE,
    begun,
    in_batches,
    refusal,
    successor,
    verdict,
)
from airflow_provider_ai.core.job_ports import Completion
from airflow_provider_ai.core.jobs import Claim, ClaimRefusal, Job, JobState, NewJob, Outcome
from airflow_provider_ai.exceptions import JobMismatchError

if TYPE_CHECKING:
    from airflow_provider_ai.adapters.store.store import Store

_HELD_AT_ONCE = 500
_ENDED_AT_ONCE = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class _End:
    """How a job ended, as its worker says."""

    job_id: str
    owner: str
    fence: int
    outcome: Outcome

    def values(self) -> dict[str, Any]:
        held = {"of_job": self.job_id, "of_owner": self.owner, "of_fence": self.fence, "outdate": 0}
        return held | outcome_values(self.outcome)


class StoredJobs(StoredInbox):
    """A :class:`~airflow_provider_ai.core.job_ports.JobStore` on a store. Thread-safe. Errors are StoreError."""

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self._complete = GroupCommit(self._record, most=_ENDED_AT_ONCE)

    # --- submitters

    def submit(self, jobs: Sequence[NewJob]) -> Sequence[Job]:
        """Insert those that are not there yet; all of them as they are then, in order.

        :raises JobMismatchError: when one is there with another payload
        """
        found: list[Job] = []
        for batch in in_batches(jobs):
            with self._store.transaction() as session:
                found += self._submit(session, batch)
        return found

    def sent(self, job_ids: Sequence[str]) -> None:
        """Their messages are in the queue."""
        self._mark(self._run.mark_sent, job_ids)

    def cancel(self, submission: str) -> int:
        """Cancel the jobs of a submission that have not begun; how many."""
        values = {"of_submission": submission, "most": MOST_AT_ONCE, **self._moment()}
        cancelled = 0
        while True:
            with self._store.durable_session() as session:
                some = len(session.run(self._run.cancel, values).all())
            if not some:
                return cancelled
            cancelled += some

    def redrive(self, job_ids: Sequence[str]) -> Sequence[Job]:
        """Submit jobs that ended without a result once more, as the next generation; the successors, in order."""
        found: list[Job] = []
        for some in in_slices(job_ids):
            with self._store.transaction() as session:
                found += self._redrive(session, some)
        return found

    def job(self, job_id: str) -> Job | None:
        """One job."""
        with self._store.session() as session:
            return _as_job(self._look(session, job_id))

    # --- workers

    def claim(self, job_id: str, *, sha256: str, owner: str, lease_seconds: float, max_attempts: int) -> Claim:
        """Begin a job, or say why not."""
        asked = {"of_job": job_id, "of_sha256": sha256, "max_attempts": max_attempts}
        lease = {"new_owner": owner, "for_seconds": lease_seconds}
        while True:
            with self._store.session() as session:
                row = session.run(self._run.claim, {**asked, **lease, **self._moment()}).one_or_none()
                if row is not None:
                    return Claim(refusal=None, job=job_of(row), fence=row.fence)
                row = self._look(session, job_id)
            if row is None:
                return Claim(refusal=ClaimRefusal.UNKNOWN, job=None)
            job = job_of(row)
            refused = refusal(job, lease_of(row), now=row.seen_at, sha256=sha256, max_attempts=max_attempts)
            ends = None if refused is None else verdict(refused)
            if ends is None and refused is not None:
                left = lease_of(row).until - row.seen_at if refused is ClaimRefusal.HELD else None
                return Claim(refusal=refused, job=job, held_seconds=left)
            if ends is not None and self._end(self._run.end_unclaimed, job_id, ends, of_fence=job.fence):
                return Claim(refusal=refused, job=self.job(job_id))

    def claim_many(
        self, payloads: Mapping[str, str], *, owner: str, lease_seconds: float, max_attempts: int
    ) -> Mapping[str, Claim]:
        """:meth:`claim` for several jobs (job id → sha256): one statement for all that may begin."""
        lease = {"new_owner": owner, "for_seconds": lease_seconds, "max_attempts": max_attempts}
        claims: dict[str, Claim] = {}
        for some in in_slices(sorted(payloads), _HELD_AT_ONCE):
            pairs = [(job, payloads[job]) for job in some]
            with self._store.session() as session:
                values = {"of_jobs": some, "of_payloads": pairs, **lease, **self._moment()}
                for row in session.run(self._run.claim_many, values):
                    claims[row.job_id] = Claim(refusal=None, job=job_of(row), fence=row.fence)
        for job_id in payloads.keys() - claims.keys():
            claims[job_id] = self.claim(
                job_id, sha256=payloads[job_id], owner=owner, lease_seconds=lease_seconds, max_attempts=max_attempts
            )
        return claims

    def heartbeat(self, claims: Mapping[str, int], *, owner: str, lease_seconds: float) -> set[str]:
        """Prolong leases (job id → fence); the ids that are still held by ``owner`` under that fence."""
        held: set[str] = set()
        lease = {"of_owner": owner, "for_seconds": lease_seconds}
        for some in in_slices(sorted(claims), _HELD_AT_ONCE):
            pairs = [(job, claims[job]) for job in some]
            with self._store.session() as session:
                values = {"of_jobs": some, "of_claims": pairs, **lease, **self._moment()}
                held.update(session.run(self._run.heartbeat, values).scalars())
        return held

    def complete(self, job_id: str, *, owner: str, fence: int, outcome: Outcome) -> Outcome | None:
        """Record how a job ended, if ``owner`` still holds it under ``fence``; the recorded outcome, None without."""
        return self._complete(_End(job_id=job_id, owner=owner, fence=fence, outcome=outcome))

    def complete_many(self, completions: Sequence[Completion], *, owner: str) -> Sequence[Outcome | None]:
        """:meth:`complete` for several jobs, in one transaction; the recorded outcomes, in order."""
        if not completions:
            return []
        return self._record(
            [_End(job_id=each.job_id, owner=owner, fence=each.fence, outcome=each.outcome) for each in completions]
        )

    def give_back(self, job_id: str, *, owner: str, fence: int, count_attempt: bool) -> bool:
        """Make a held job pending again; whether it was held."""
        values = {"of_job": job_id, "of_owner": owner, "of_fence": fence, "uncounted": int(not count_attempt)}
        with self._store.session() as session:
            return session.run(self._run.give_back, {**values, **self._moment()}).rowcount == 1

    def fail(self, job_id: str, *, reason: str, spare_held: bool = False) -> Job | None:
        """Record a job as failed that is not final yet, whoever holds it; the job, None when it is unknown."""
        statement = self._run.end_unheld if spare_held else self._run.end
        self._end(statement, job_id, Outcome(state=JobState.FAILED, reason=reason))
        return self.job(job_id)

    def expire(self, *, most: int, queue: str = "") -> Sequence[Job]:
        """Record jobs whose time is over and that nobody holds as expired; at most so many of them."""
        values = {"most": most, "of_queue": queue, **self._moment()}
        with self._store.durable_session() as session:
            return [job_of(row) for row in session.run(self._run.expire, values)]

    # --- in one transaction

    def _submit(self, session: Session, batch: Sequence[NewJob]) -> list[Job]:
        there = self._insert(session, batch)
        for job in batch:
            if job.job_id not in there or there[job.job_id].payload.sha256 != job.payload.sha256:
                raise JobMismatchError(
                    f"{self._store.where}: request {job.position} of the submission (they count from 0) was submitted "
                    f"before with another payload, as job {job.job_id}"
                )
        return [there[job.job_id] for job in batch]

    def _insert(self, session: Session, batch: Iterable[NewJob]) -> dict[str, Job]:
        """Insert those that are not there; all that are there then, by id. In order of ids, as all who lock several."""
        wanted = {job.job_id: job for job in sorted(batch, key=lambda job: job.job_id)}
        moment = self._moment()
        rows = [new_row(job) | moment for job in wanted.values()]
        made = set(session.run(self._run.insert, rows).scalars())
        jobs = {name: begun(wanted[name]) for name in made}
        if others := [name for name in wanted if name not in made]:
            jobs |= {row.job_id: job_of(row) for row in session.run(self._run.load, {"of_jobs": others, **moment})}
        places = [
            {"of_submission": job.submission, "of_position": job.position}
            for name, job in wanted.items()
            if name in made and job.generation
        ]
        if places:
            session.run(self._run.supersede, places)
        return jobs

    def _redrive(self, session: Session, job_ids: Sequence[str]) -> list[Job]:
        moment = self._moment()
        rows = {row.job_id: row for row in session.run(self._run.load_locked, {"of_jobs": job_ids, **moment})}
        ended = [rows[name] for name in dict.fromkeys(job_ids) if name in rows]
        next_ones = [
            successor(job_of(row), submitted_at=row.submitted_at, now=row.seen_at)
            for row in ended
            if row.state in _REDRIVABLE
        ]
        made = self._insert(session, next_ones) if next_ones else {}
        return [made[job.job_id] for job in next_ones]

    def _record(self, ends: Sequence[_End]) -> Sequence[Outcome | None]:
        """Record outcomes, each if its worker still holds the job; what is recorded then."""
        ordered = [end.values() | self._moment() for end in sorted(ends, key=lambda end: end.job_id)]
        with self._store.transaction() as session:
            session.run(self._run.complete, ordered)
            values = {"of_jobs": sorted({end.job_id for end in ends})}
            recorded = {row.job_id: outcome_of(row) for row in session.run(self._run.outcomes, values)}
        return [recorded.get(end.job_id) for end in ends]

    def _look(self, session: Session, job_id: str) -> Any:
        return session.run(self._run.load, {"of_jobs": [job_id], **self._moment()}).one_or_none()

    def _end(self, statement: Any, job_id: str, outcome: Outcome, **condition: Any) -> bool:
        values = {"of_job": job_id, "outdate": 1, **outcome_values(outcome), **condition, **self._moment()}
        with self._store.durable_session() as session:
            return session.run(statement, values).rowcount == 1


_REDRIVABLE = {state.value for state in REDRIVABLE}


def _as_job(row: Any) -> Job | None:
    return None if row is None else job_of(row)
