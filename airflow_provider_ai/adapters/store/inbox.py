"""The inbox, and what is asked of it: by dispatchers, by waiters, and by the reconciler.

An outcome that has arrived is a mark on the job's row, set once and never cleared: waiters read nothing but the store,
and however often a reply is delivered, and to however many dispatchers, it arrives once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow_provider_ai.adapters.store.inbox_statements import InboxStatements
from airflow_provider_ai.adapters.store.job_rows import arrival_of, job_of, outcome_values
from airflow_provider_ai.adapters.store.job_statements import JobStatements
from airflow_provider_ai.core.job_claims import FINAL, MOST_AT_ONCE, count
from airflow_provider_ai.core.job_ports import Arrival, Ended, Pruned
from airflow_provider_ai.core.jobs import Job, JobCounts, JobState, Outcome
from airflow_provider_ai.core.purposes import DEAD_LETTER

if TYPE_CHECKING:
    from airflow_provider_ai.adapters.store.store import Store


class StoredInbox:
    """The inbox on a store. Thread-safe. Errors are StoreError."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._run = JobStatements(store.database)
        self._inbox = InboxStatements(store.database)

    def receive(self, job_id: str, outcome: Outcome, *, via: str) -> bool:
        """Insert an outcome into the inbox unless one is there; False for an unknown job."""
        return bool(self.receive_many({job_id: outcome}, via=via))

    def receive_many(self, outcomes: Mapping[str, Outcome], *, via: str) -> set[str]:
        """:meth:`receive` for a batch, all or nothing (job id → outcome); the ids that are known."""
        if not outcomes:
            return set()
        moment = self._moment()
        with self._store.transaction() as session:
            known = session.run(self._inbox.lock, {"of_jobs": list(outcomes)}).scalars().all()
            if known:
                ends = [
                    {"of_job": job, "outdate": 1, **outcome_values(outcomes[job]), **moment} for job in sorted(known)
                ]
                session.run(self._run.end, ends)
                session.run(self._inbox.arrive, [{"of_job": job, "new_via": via, **moment} for job in sorted(known)])
        return set(known)

    def keep_unknown(self, message: bytes, *, job_id: str | None, via: str, reason: str) -> None:
        """Keep a reply that belongs to no job, for people to look at; one that comes again is kept once."""
        digest = self._store.codec.digest(message)
        row = {
            "digest": digest,
            "job_id": job_id,
            "via": via,
            "reason": reason,
            "message": self._store.codec.encode(message, context={"what": DEAD_LETTER, "digest": digest}),
        }
        with self._store.durable_session() as session:
            session.run(self._inbox.keep_unknown, {**row, **self._moment()})

    # --- waiters

    def jobs(self, submission: str, *, after: int = -1, most: int = 1000) -> Sequence[Job]:
        """Jobs of a submission in order of position, the latest generation of each, from ``after`` on."""
        values = {"of_submission": submission, "after": after, "most": most}
        return [job_of(row) for row in self._read(self._inbox.jobs, values)]

    def arrivals(self, submission: str, *, after: int = -1, most: int = 1000) -> Sequence[Arrival]:
        """The inbox of a submission in order of position."""
        values = {"of_submission": submission, "after": after, "most": most}
        return [arrival_of(row) for row in self._read(self._inbox.arrivals, values)]

    def counts(self, submissions: Sequence[str]) -> Mapping[str, JobCounts]:
        """Counts of many submissions in one query, from the inbox; zeros for one that nobody has made."""
        found = dict.fromkeys(submissions, JobCounts())
        if submissions:
            for row in self._read(self._inbox.counts, {"of_submissions": list(submissions)}):
                found[row.submission] = _counted(row)
        return found

    def ended(self, *, since: float, queue: str = "") -> Mapping[str, Ended]:
        """Submissions all of whose jobs have ended for whoever waits, the last of them after ``since``."""
        rows = self._read(self._inbox.ended, {"since": since, "of_queue": queue})
        return {row.submission: Ended(counts=_counted(row), at=row.at) for row in rows}

    def arrived(self, job_ids: Sequence[str]) -> Mapping[str, JobState | None]:
        """How jobs have ended for whoever waits for them; None for those that have not. Unknown ones are left out."""
        found: dict[str, JobState | None] = {}
        for some in in_slices(job_ids):
            rows = self._read(self._inbox.arrived, {"of_jobs": some})
            found |= {row.job_id: row.inbox_state and JobState(row.inbox_state) for row in rows}
        return found

    # --- reconciler

    def unsent(self, *, older_than_seconds: float, most: int, queue: str = "") -> Sequence[Job]:
        """Jobs whose message was never sent, or was sent so long ago that it must be lost, and that nobody holds."""
        return self._overdue(self._inbox.unsent, older_than_seconds, most, queue)

    def unpublished(self, *, older_than_seconds: float, most: int, queue: str = "") -> Sequence[Job]:
        """Final jobs whose outcome has not arrived in the inbox, though it ended, or was published, that long ago."""
        return self._overdue(self._inbox.unpublished, older_than_seconds, most, queue)

    def published(self, job_ids: Sequence[str]) -> None:
        """Their outcomes were sent once more: :meth:`unpublished` leaves them alone for a while."""
        self._mark(self._inbox.published, job_ids)

    # --- upkeep

    def prune(self, *, older_than_seconds: float, most: int, queue: str = "") -> Pruned:
        """Remove jobs whose outcome arrived that long ago, ``most`` positions at most, with all their generations."""
        values = {"older_than": older_than_seconds, "most": most, **self._moment()}
        with self._store.transaction() as session:
            gone = session.run(self._inbox.prune, {**values, "of_queue": queue}).all()
            session.run(self._inbox.prune_unknown, values)
        refs = {ref for row in gone for ref in (row.payload_ref, row.result_ref) if ref is not None}
        return Pruned(jobs=len(gone), refs=tuple(sorted(refs)))

    # --- for these and the jobs

    def _overdue(self, statement: Any, older_than_seconds: float, most: int, queue: str) -> Sequence[Job]:
        values = {"older_than": older_than_seconds, "most": most, "of_queue": queue, **self._moment()}
        return [job_of(row) for row in self._read(statement, values)]

    def _read(self, statement: Any, values: dict[str, Any]) -> Sequence[Any]:
        with self._store.session() as session:
            return session.run(statement, values).all()

    def _mark(self, statement: Any, job_ids: Sequence[str]) -> None:
        for some in in_slices(job_ids):
            with self._store.session() as session:
                session.run(statement, {"of_jobs": some, **self._moment()})

    def _moment(self) -> dict[str, float]:
        return self._store.database.moment()


def _counted(row: Any) -> JobCounts:
    return count(row.jobs, {state: getattr(row, state.value) for state in FINAL})


def in_slices(job_ids: Sequence[str], size: int = MOST_AT_ONCE) -> list[Sequence[str]]:
    """What one statement can name: SQLite takes 32,766 parameters, PostgreSQL 65,535."""
    return [job_ids[start : start + size] for start in range(0, len(job_ids), size)]
