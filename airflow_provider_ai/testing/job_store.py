"""Jobs and the inbox in memory: the decisions of the real store, shared by the threads of one process."""

from __future__ import annotations

import hashlib
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from airflow_provider_ai.core.job_claims import (
    CANCELLED,
    EXPIRED,
    REDRIVABLE,
    Lease,
    begun,
    count,
    held,
    in_batches,
    out_of_time,
    refusal,
    successor,
    verdict,
)
from airflow_provider_ai.core.job_ports import Arrival, Completion, Ended, Pruned
from airflow_provider_ai.core.jobs import Claim, ClaimRefusal, Job, JobCounts, JobState, NewJob, Outcome
from airflow_provider_ai.exceptions import JobMismatchError, StoreUnavailableError

Clock = Callable[[], float]


@dataclass(slots=True)
class _Row:
    job: Job
    submitted_at: float
    touched_at: float
    owner: str = ""
    lease: Lease = field(default_factory=Lease)
    arrived: Outcome | None = None
    superseded: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class UnknownReply:
    """A reply that belongs to no job."""

    message: bytes
    job_id: str | None
    via: str
    reason: str
    received_at: float


class InMemoryJobStore:
    """A :class:`~airflow_provider_ai.core.job_ports.JobStore`.

    ``available = False`` makes everything raise StoreUnavailableError until it is True again.

    :param clock: epoch seconds
    :param require: called before everything; what it raises is raised
    :ivar unknown: replies that belong to no job, by hash
    """

    def __init__(self, *, clock: Clock = time.time, require: Callable[[], None] = lambda: None) -> None:
        self.available = True
        self._require = require
        self.unknown: dict[str, UnknownReply] = {}
        self._clock = clock
        self._lock = threading.RLock()
        self._rows: dict[str, _Row] = {}

    # --- submitters

    def submit(self, jobs: Sequence[NewJob]) -> Sequence[Job]:
        """Insert those that are not there yet; all of them as they are then, in order."""
        found: list[Job] = []
        for batch in in_batches(jobs):
            with self._at() as now:
                for job in batch:
                    self._require_same(job)
                found += [self._insert(job, now) for job in batch]
        return found

    def sent(self, job_ids: Sequence[str]) -> None:
        """Their messages are in the queue."""
        with self._at() as now:
            for row in self._named(job_ids):
                if not row.job.state.final:
                    row.job = replace(row.job, sent=True)
                    row.touched_at = now

    def cancel(self, submission: str) -> int:
        """Cancel the jobs of a submission that have not begun; how many."""
        outcome = Outcome(state=JobState.CANCELLED, reason=CANCELLED)
        with self._at() as now:
            rows = [row for row in self._rows.values() if row.job.submission == submission]
            pending = [row for row in rows if row.job.state is JobState.PENDING]
            for row in pending:
                self._end(row, outcome, now)
                row.arrived = outcome
            return len(pending)

    def redrive(self, job_ids: Sequence[str]) -> Sequence[Job]:
        """Submit jobs that ended without a result once more, as the next generation; the successors, in order."""
        with self._at() as now:
            ended = [row for row in self._named(dict.fromkeys(job_ids)) if row.job.state in REDRIVABLE]
            next_ones = [successor(row.job, submitted_at=row.submitted_at, now=now) for row in ended]
            return [self._insert(job, now) for job in next_ones]

    def job(self, job_id: str) -> Job | None:
        """One job."""
        with self._at():
            row = self._rows.get(job_id)
            return None if row is None else row.job

    # --- workers

    def claim(self, job_id: str, *, sha256: str, owner: str, lease_seconds: float, max_attempts: int) -> Claim:
        """Begin a job, or say why not."""
        with self._at() as now:
            row = self._rows.get(job_id)
            if row is None:
                return Claim(refusal=ClaimRefusal.UNKNOWN, job=None)
            refused = refusal(row.job, row.lease, now=now, sha256=sha256, max_attempts=max_attempts)
            if refused is not None:
                ends = verdict(refused)
                if ends is not None:
                    self._end(row, ends, now)
                left = row.lease.until - now if refused is ClaimRefusal.HELD else None
                return Claim(refusal=refused, job=row.job, held_seconds=left)
            fence = row.job.fence + 1
            abandoned = row.job.abandoned + int(row.job.state is JobState.RUNNING)
            attempts = row.job.attempts + 1
            row.job = replace(row.job, state=JobState.RUNNING, fence=fence, attempts=attempts, abandoned=abandoned)
            row.owner, row.touched_at = owner, now
            row.lease = Lease(until=now + lease_seconds, seconds=lease_seconds)
            return Claim(refusal=None, job=row.job, fence=fence)

    def claim_many(
        self, payloads: Mapping[str, str], *, owner: str, lease_seconds: float, max_attempts: int
    ) -> Mapping[str, Claim]:
        """:meth:`claim` for several jobs (job id → sha256)."""
        with self._at():
            return {
                job_id: self.claim(
                    job_id, sha256=sha256, owner=owner, lease_seconds=lease_seconds, max_attempts=max_attempts
                )
                for job_id, sha256 in payloads.items()
            }

    def heartbeat(self, claims: Mapping[str, int], *, owner: str, lease_seconds: float) -> set[str]:
        """Prolong leases (job id → fence); the ids that are still held by ``owner`` under that fence."""
        with self._at() as now:
            mine = {name for name, fence in claims.items() if self._under_fence(name, owner, fence)}
            for name in mine:
                self._rows[name].lease = Lease(until=now + lease_seconds, seconds=lease_seconds)
            return mine

    def complete(self, job_id: str, *, owner: str, fence: int, outcome: Outcome) -> Outcome | None:
        """Record how a job ended, if ``owner`` still holds it under ``fence``; the recorded outcome, None without."""
        with self._at() as now:
            row = self._under_fence(job_id, owner, fence)
            if row is not None:
                self._end(row, outcome, now, outdate=0)
            there = self._rows.get(job_id)
            return None if there is None else there.job.outcome

    def complete_many(self, completions: Sequence[Completion], *, owner: str) -> Sequence[Outcome | None]:
        """:meth:`complete` for several jobs; the recorded outcomes, in order."""
        with self._at():
            return [
                self.complete(each.job_id, owner=owner, fence=each.fence, outcome=each.outcome) for each in completions
            ]

    def give_back(self, job_id: str, *, owner: str, fence: int, count_attempt: bool) -> bool:
        """Make a held job pending again; whether it was held."""
        with self._at() as now:
            row = self._under_fence(job_id, owner, fence)
            if row is not None:
                attempts = row.job.attempts - int(not count_attempt)
                row.job = replace(row.job, state=JobState.PENDING, attempts=attempts)
                row.owner, row.lease, row.touched_at = "", Lease(), now
            return row is not None

    def fail(self, job_id: str, *, reason: str, spare_held: bool = False) -> Job | None:
        """Record a job as failed that is not final yet, whoever holds it; the job, None when it is unknown."""
        with self._at() as now:
            row = self._rows.get(job_id)
            if row is None:
                return None
            if not (spare_held and held(row.job.state, row.lease, now)):
                self._end(row, Outcome(state=JobState.FAILED, reason=reason), now)
            return row.job

    def expire(self, *, most: int, queue: str = "") -> Sequence[Job]:
        """Record jobs whose time is over and that nobody holds as expired; at most so many of them."""
        with self._at() as now:
            rows = [row for row in self._given_up(now, queue) if out_of_time(row.job.expires_at, now)][:most]
            for row in rows:
                self._end(row, Outcome(state=JobState.EXPIRED, reason=EXPIRED), now)
            return [row.job for row in rows]

    # --- inbox

    def receive(self, job_id: str, outcome: Outcome, *, via: str) -> bool:
        """Insert an outcome into the inbox unless one is there; False for an unknown job."""
        return bool(self.receive_many({job_id: outcome}, via=via))

    def receive_many(self, outcomes: Mapping[str, Outcome], *, via: str) -> set[str]:
        """:meth:`receive` for a batch (job id → outcome); the ids that are known."""
        with self._at() as now:
            rows = self._named(outcomes)
            for row in rows:
                if row.arrived is None:
                    self._end(row, outcomes[row.job.job_id], now)
                    row.arrived, row.touched_at = row.job.outcome, now
            return {row.job.job_id for row in rows}

    def keep_unknown(self, message: bytes, *, job_id: str | None, via: str, reason: str) -> None:
        """Keep a reply that belongs to no job; one that comes again is kept once."""
        with self._at() as now:
            reply = UnknownReply(message=message, job_id=job_id, via=via, reason=reason, received_at=now)
            self.unknown.setdefault(hashlib.sha256(message).hexdigest(), reply)

    def jobs(self, submission: str, *, after: int = -1, most: int = 1000) -> Sequence[Job]:
        """Jobs of a submission in order of position, the latest generation of each, from ``after`` on."""
        with self._at():
            return [row.job for row in self._latest(submission) if row.job.position > after][:most]

    def arrivals(self, submission: str, *, after: int = -1, most: int = 1000) -> Sequence[Arrival]:
        """The inbox of a submission in order of position."""
        with self._at():
            rows = [row for row in self._latest(submission) if row.job.position > after]
            return [_arrival(row, row.arrived) for row in rows if row.arrived is not None][:most]

    def counts(self, submissions: Sequence[str]) -> Mapping[str, JobCounts]:
        """Counts of many submissions, from the inbox; zeros for one that nobody has made."""
        with self._at():
            return {name: _count(self._latest(name)) for name in submissions}

    def ended(self, *, since: float, queue: str = "") -> Mapping[str, Ended]:
        """Submissions all of whose jobs have ended for whoever waits, the last of them after ``since``."""
        with self._at():
            found = {}
            for name in {row.job.submission for row in self._of(queue)}:
                rows = self._latest(name)
                at = max(row.touched_at for row in rows)
                if at > since and all(row.arrived is not None for row in rows):
                    found[name] = Ended(counts=_count(rows), at=at)
            return found

    def arrived(self, job_ids: Sequence[str]) -> Mapping[str, JobState | None]:
        """How jobs have ended for whoever waits for them; None for those that have not. Unknown ones are left out."""
        with self._at():
            rows = self._named(job_ids)
            return {row.job.job_id: None if row.arrived is None else row.arrived.state for row in rows}

    # --- reconciler

    def unsent(self, *, older_than_seconds: float, most: int, queue: str = "") -> Sequence[Job]:
        """Jobs whose message was never sent, or was sent so long ago that it must be lost, and that nobody holds."""
        with self._at() as now:
            rows = [row for row in self._given_up(now, queue) if not out_of_time(row.job.expires_at, now)]
            return _overdue(rows, now - older_than_seconds, most)

    def unpublished(self, *, older_than_seconds: float, most: int, queue: str = "") -> Sequence[Job]:
        """Final jobs whose outcome has not arrived in the inbox, though it ended, or was published, that long ago."""
        with self._at() as now:
            rows = [row for row in self._of(queue) if row.job.state.final and row.arrived is None]
            return _overdue(rows, now - older_than_seconds, most)

    def published(self, job_ids: Sequence[str]) -> None:
        """Their outcomes were sent once more: :meth:`unpublished` leaves them alone for a while."""
        with self._at() as now:
            for row in self._named(job_ids):
                if row.job.state.final and row.arrived is None:
                    row.touched_at = now

    def prune(self, *, older_than_seconds: float, most: int, queue: str = "") -> Pruned:
        """Remove jobs whose outcome arrived that long ago, ``most`` positions at most, with all their generations."""
        with self._at() as now:
            before = now - older_than_seconds
            latest = [row for row in self._of(queue) if not row.superseded and row.arrived is not None]
            places = set([_place(row.job) for row in latest if row.touched_at < before][:most])
            gone = [row.job for row in self._rows.values() if _place(row.job) in places]
            for job in gone:
                del self._rows[job.job_id]
            self.unknown = {name: reply for name, reply in self.unknown.items() if reply.received_at >= before}
            contents = [content for job in gone for content in (job.payload, job.result) if content is not None]
            refs = {content.ref for content in contents if content.ref is not None}
            return Pruned(jobs=len(gone), refs=tuple(sorted(refs)))

    # ---

    @contextmanager
    def _at(self) -> Iterator[float]:
        """One transaction; what time it is in it."""
        with self._lock:
            self._require()
            if not self.available:
                raise StoreUnavailableError("the store is down")
            yield self._clock()

    def _named(self, job_ids: Sequence[str] | Mapping[str, object]) -> list[_Row]:
        return [self._rows[name] for name in job_ids if name in self._rows]

    def _latest(self, submission: str) -> list[_Row]:
        rows = [row for row in self._rows.values() if row.job.submission == submission and not row.superseded]
        return sorted(rows, key=lambda row: row.job.position)

    def _of(self, queue: str) -> list[_Row]:
        """The jobs of a deployment, and those of all."""
        return [row for row in self._rows.values() if row.job.queue in (queue, "")]

    def _given_up(self, now: float, queue: str) -> list[_Row]:
        """Open jobs that nobody holds."""
        rows = self._of(queue)
        return [row for row in rows if not row.job.state.final and not held(row.job.state, row.lease, now)]

    def _under_fence(self, job_id: str, owner: str, fence: int) -> _Row | None:
        row = self._rows.get(job_id)
        if row is None or row.job.state is not JobState.RUNNING:
            return None
        return row if (row.owner, row.job.fence) == (owner, fence) else None

    def _require_same(self, job: NewJob) -> None:
        there = self._rows.get(job.job_id)
        if there is not None and there.job.payload.sha256 != job.payload.sha256:
            raise JobMismatchError(f"job {job.job_id} was submitted before with another payload")

    def _insert(self, job: NewJob, now: float) -> Job:
        if job.job_id not in self._rows:
            for row in self._rows.values() if job.generation else ():
                if _place(row.job) == _place(job) and row.job.generation < job.generation:
                    row.superseded = True
            self._rows[job.job_id] = _Row(begun(job), submitted_at=now, touched_at=now)
        return self._rows[job.job_id].job

    def _end(self, row: _Row, outcome: Outcome, now: float, *, outdate: int = 1) -> None:
        """Record an outcome, unless there is one."""
        if not row.job.state.final:
            ended = replace(row.job, state=outcome.state, result=outcome.content, fence=row.job.fence + outdate)
            row.job = replace(ended, reason=outcome.reason, model=outcome.model)
            row.owner, row.lease, row.touched_at = "", Lease(), now


def _place(job: Job | NewJob) -> tuple[str, int]:
    return job.submission, job.position


def _arrival(row: _Row, outcome: Outcome) -> Arrival:
    return Arrival(job_id=row.job.job_id, outcome=outcome, position=row.job.position, arrived_at=row.touched_at)


def _count(rows: Sequence[_Row]) -> JobCounts:
    return count(len(rows), Counter(row.arrived.state for row in rows if row.arrived is not None))


def _overdue(rows: Sequence[_Row], before: float, most: int) -> list[Job]:
    overdue = sorted((row for row in rows if row.touched_at < before), key=lambda row: row.touched_at)
    return [row.job for row in overdue[:most]]
