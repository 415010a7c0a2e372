"""Who may begin a job, and what follows from what became of it: the decisions, apart from any store.

A claim must be one statement, so a store says in its conditions what :func:`refusal` says here, and asks it only why a
claim has changed nothing. The contract suite of the stores keeps the two in step.

All times are epoch seconds of the store's clock.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from airflow_provider_ai.core.jobs import ClaimRefusal, Job, JobCounts, JobState, NewJob, Outcome, job_id
from airflow_provider_ai.core.shared_breaker import CREDIBLE

EXPIRED: Final = "expired"  # the time of the job was over before it was begun
ATTEMPTS_EXHAUSTED: Final = "attempts_exhausted"  # every attempt ended without saying how
CANCELLED: Final = "cancelled"  # nobody waits for it any more

OPEN = tuple(state for state in JobState if not state.final)
FINAL = tuple(state for state in JobState if state.final)
REDRIVABLE = (JobState.FAILED, JobState.EXPIRED, JobState.CANCELLED)
"""States of jobs that ended without a result."""

MOST_AT_ONCE = 1000
"""Jobs in one transaction."""
_MOST_BYTES_AT_ONCE = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """When a lease ends, and for how long it was given."""

    until: float = 0.0
    seconds: float = 0.0

    def over(self, now: float) -> bool:
        """Whether someone else may begin the job. A lease far ahead was written before the clock was set back."""
        return self.until <= now or self.until > now + CREDIBLE * self.seconds


def held(state: JobState, lease: Lease, now: float) -> bool:
    """Whether a worker has the job."""
    return state is JobState.RUNNING and not lease.over(now)


def out_of_time(expires_at: float | None, now: float) -> bool:
    """Whether a job may not be begun any more."""
    return expires_at is not None and expires_at <= now


def refusal(job: Job, lease: Lease, *, now: float, sha256: str, max_attempts: int) -> ClaimRefusal | None:
    """Why a job may not be begun; None when it may. EXPIRED and EXHAUSTED are still to be recorded then."""
    if job.payload.sha256 != sha256:
        return ClaimRefusal.MISMATCH
    if job.state is JobState.CANCELLED:
        return ClaimRefusal.CANCELLED
    if job.state.final:
        return ClaimRefusal.FINISHED
    if held(job.state, lease, now):
        return ClaimRefusal.HELD
    if out_of_time(job.expires_at, now):
        return ClaimRefusal.EXPIRED
    return ClaimRefusal.EXHAUSTED if job.attempts >= max_attempts else None


def verdict(refused: ClaimRefusal) -> Outcome | None:
    """The outcome that a refused claim gives an open job; None when it gives it none."""
    if refused is ClaimRefusal.EXPIRED:
        return Outcome(state=JobState.EXPIRED, reason=EXPIRED)
    if refused is ClaimRefusal.EXHAUSTED:
        return Outcome(state=JobState.FAILED, reason=ATTEMPTS_EXHAUSTED)
    return None


def begun(job: NewJob) -> Job:
    """A job as it is when it has just been submitted."""
    return Job(
        job_id=job.job_id,
        submission=job.submission,
        position=job.position,
        generation=job.generation,
        state=JobState.PENDING,
        payload=job.payload,
        attempts=0,
        fence=0,
        expires_at=job.expires_at,
        group=job.group,
        webhook=job.webhook,
        predecessor=job.predecessor,
        queue=job.queue,
    )


def successor(job: Job, *, submitted_at: float, now: float) -> NewJob:
    """The next generation of a job: the same request, and as much time as it was given."""
    generation = job.generation + 1
    return NewJob(
        job_id=job_id(job.submission, job.position, generation=generation),
        submission=job.submission,
        position=job.position,
        payload=job.payload,
        expires_at=None if job.expires_at is None else now + max(0.0, job.expires_at - submitted_at),
        generation=generation,
        group=job.group,
        webhook=job.webhook,
        predecessor=job.job_id,
        queue=job.queue,
    )


def count(jobs: int, arrived: Mapping[JobState, int]) -> JobCounts:
    """Counts of a submission: its jobs, and how many outcomes of each state have arrived."""
    return JobCounts(
        jobs=jobs,
        completed=arrived.get(JobState.SUCCEEDED, 0),
        failed=arrived.get(JobState.FAILED, 0),
        expired=arrived.get(JobState.EXPIRED, 0),
        cancelled=arrived.get(JobState.CANCELLED, 0),
        pending=jobs - sum(arrived.values()),
    )


def in_batches(jobs: Iterable[NewJob]) -> Iterator[Sequence[NewJob]]:
    """What a store inserts in one transaction: a thousand jobs, or 8 MiB of payloads, whichever is less."""
    batch: list[NewJob] = []
    size = 0
    for job in jobs:
        batch.append(job)
        size += len(job.payload.inline or b"")
        if len(batch) == MOST_AT_ONCE or size >= _MOST_BYTES_AT_ONCE:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
