"""The statements that submit jobs, lease them and record how they end.

What a worker says holds only under its owner's name and fence, so both are in the condition of every statement that it
causes. Where a statement takes several rows it locks them in the order of their ids: two of them never wait for each
other. Built once per :class:`.jobs.StoredJobs`: SQLAlchemy then finds their compiled form in its cache.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import sqlalchemy as sa
from sqlalchemy import bindparam

from airflow_provider_ai.adapters.store.database import Database
from airflow_provider_ai.adapters.store.tables import JOBS
from airflow_provider_ai.core.job_claims import CANCELLED, EXPIRED, FINAL, OPEN
from airflow_provider_ai.core.jobs import JobState
from airflow_provider_ai.core.shared_breaker import CREDIBLE

J = JOBS.c
Condition = sa.ColumnElement[bool]


def is_one_of(column: sa.Column[str], states: Iterable[JobState]) -> Condition:
    """Spelt out: a list of parameters could not be executed for many rows at once."""
    return column.in_([sa.literal_column(f"'{state.value}'") for state in states])


OUTCOME = (J.state, J.reason, J.model, J.result_sha256, J.result_codec, J.result_ref, J.result_inline)
OF_JOB: Condition = J.job_id == bindparam("of_job", type_=sa.Text())
OF_JOBS: Condition = J.job_id.in_(bindparam("of_jobs", expanding=True))
IS_OPEN: Condition = is_one_of(J.state, OPEN)
IS_FINAL: Condition = is_one_of(J.state, FINAL)
OF_SUBMISSION: Condition = J.submission == bindparam("of_submission")
NOT_ARRIVED: Condition = J.inbox_state.is_(None)
LATEST: Condition = J.superseded == sa.false()
OF_QUEUE: Condition = J.queue.in_([bindparam("of_queue", type_=sa.Text()), sa.literal_column("''")])
_NO_LEASE: dict[Any, Any] = {"owner": "", "lease_until": 0.0, "lease_seconds": 0.0}
_UNDER_FENCE: Condition = sa.and_(
    J.owner == bindparam("of_owner"), J.fence == bindparam("of_fence"), J.state == JobState.RUNNING.value
)
LIMIT = bindparam("most", type_=sa.Integer())


class JobStatements:
    """Statements for one database; those that need the time take it from ``database.now``."""

    def __init__(self, database: Database) -> None:
        now = database.now
        self.insert = _insert(database)
        self.supersede = _supersede()
        self.load = sa.select(*J, now.label("seen_at")).where(OF_JOBS)
        self.load_locked = self.load.order_by(J.job_id).with_for_update()
        self.mark_sent = _update(OF_JOBS, IS_OPEN).values(sent=True, touched_at=now)
        self.claim = _claim(now)
        self.claim_many = _claim_many(now)
        self.heartbeat = _heartbeat(now)
        self.complete = _record(sa.update(JOBS).where(OF_JOB, _UNDER_FENCE), now)
        self.outcomes = sa.select(J.job_id, *OUTCOME).where(OF_JOBS)
        self.give_back = (
            sa.update(JOBS)
            .where(OF_JOB, _UNDER_FENCE)
            .values(
                state=JobState.PENDING.value, touched_at=now, attempts=J.attempts - bindparam("uncounted"), **_NO_LEASE
            )
        )
        self.end = _record(sa.update(JOBS).where(OF_JOB, IS_OPEN), now)
        self.end_unheld = _record(sa.update(JOBS).where(OF_JOB, IS_OPEN, ~held(now)), now)
        self.end_unclaimed = _record(
            sa.update(JOBS).where(OF_JOB, IS_OPEN, J.fence == bindparam("of_fence"), ~held(now)), now
        )
        self.cancel = _cancel(now)
        self.expire = _expire(now)


def _insert(database: Database) -> Any:
    """Insert a job (:func:`.job_rows.new_row`), or many. What is the same for all is no parameter: there are enough."""
    number: sa.ColumnElement[Any] = sa.literal_column("0")
    same = {
        "superseded": sa.false(),
        "state": sa.literal_column(f"'{JobState.PENDING.value}'"),
        "owner": sa.literal_column("''"),
        "sent": sa.false(),
        **dict.fromkeys(("fence", "attempts", "abandoned", "lease_until", "lease_seconds"), number),
        **dict.fromkeys(("submitted_at", "touched_at"), database.now),
    }
    return database.insert(JOBS).values(**same).on_conflict_do_nothing().returning(J.job_id)


def rows_of(*condition: Condition, some: bool = False) -> sa.Select[Any]:
    """The ids of rows, locked. ``some``: up to ``most`` of those that nobody else is just changing.

    Looked up once: PostgreSQL would else run it again for each row, and find others every time.
    """
    found = sa.select(J.job_id).where(*condition)
    if some:
        found = found.limit(LIMIT).with_for_update(skip_locked=True)
    else:
        found = found.order_by(J.job_id).with_for_update()
    return once(found)


def once(rows: sa.Select[Any]) -> sa.Select[Any]:
    """The same rows, looked up once."""
    return sa.select(rows.cte("found").prefix_with("MATERIALIZED"))


def _update(*condition: Condition) -> sa.Update:
    return sa.update(JOBS).where(J.job_id.in_(rows_of(*condition)))


def held(now: sa.ColumnElement[Any]) -> Condition:
    """Whether a worker has the job: :func:`airflow_provider_ai.core.job_claims.held`."""
    credible = J.lease_until <= now + CREDIBLE * J.lease_seconds
    return sa.and_(J.state == JobState.RUNNING.value, J.lease_until > now, credible)


def _out_of_time(now: sa.ColumnElement[Any]) -> Condition:
    return sa.and_(J.expires_at.is_not(None), J.expires_at <= now)


def _supersede() -> sa.Update:
    later = JOBS.alias("later")
    newer = sa.exists().where(
        later.c.submission == J.submission, later.c.position == J.position, later.c.generation > J.generation
    )
    same = sa.and_(J.submission == bindparam("of_submission"), J.position == bindparam("of_position"))
    return sa.update(JOBS).where(same, LATEST, newer).values(superseded=True)


def _claim(now: sa.ColumnElement[Any]) -> Any:
    """Begin a job that :func:`airflow_provider_ai.core.job_claims.refusal` has nothing against."""
    same = J.payload_sha256 == bindparam("of_sha256")
    return sa.update(JOBS).where(OF_JOB, same, *_may_begin(now)).values(_begun(now)).returning(*J)


def _claim_many(now: sa.ColumnElement[Any]) -> Any:
    """Likewise for several jobs."""
    same = sa.tuple_(J.job_id, J.payload_sha256).in_(bindparam("of_payloads", expanding=True))
    return _update(OF_JOBS, same, *_may_begin(now)).values(_begun(now)).returning(*J)


def _may_begin(now: sa.ColumnElement[Any]) -> tuple[Condition, ...]:
    return IS_OPEN, ~held(now), ~_out_of_time(now), J.attempts < bindparam("max_attempts")


def _begun(now: sa.ColumnElement[Any]) -> dict[Any, Any]:
    seconds: sa.BindParameter[float] = bindparam("for_seconds", type_=sa.Double())
    return {
        "state": JobState.RUNNING.value,
        "owner": bindparam("new_owner"),
        "fence": J.fence + 1,
        "attempts": J.attempts + 1,
        "abandoned": J.abandoned + sa.case((J.state == JobState.RUNNING.value, 1), else_=0),
        "lease_until": now + seconds,
        "lease_seconds": seconds,
        "touched_at": now,
    }


def _heartbeat(now: sa.ColumnElement[Any]) -> Any:
    seconds: sa.BindParameter[float] = bindparam("for_seconds", type_=sa.Double())
    claims = sa.tuple_(J.job_id, J.fence).in_(bindparam("of_claims", expanding=True))
    mine = (OF_JOBS, claims, J.owner == bindparam("of_owner"), J.state == JobState.RUNNING.value)
    return _update(*mine).values(lease_until=now + seconds, lease_seconds=seconds).returning(J.job_id)


def _record(update: sa.Update, now: sa.ColumnElement[Any]) -> Any:
    """Write an outcome (:func:`.job_rows.outcome_values`). A fence that rises outdates whoever holds the job."""
    outcome: dict[Any, Any] = {column.name: bindparam(f"new_{column.name}", type_=column.type) for column in OUTCOME}
    return update.values({**outcome, **_NO_LEASE, "fence": J.fence + bindparam("outdate"), "touched_at": now})


def _cancel(now: sa.ColumnElement[Any]) -> Any:
    found = rows_of(OF_SUBMISSION, NOT_ARRIVED, J.state == JobState.PENDING.value, some=True)
    cancelled = JobState.CANCELLED.value
    return (
        sa.update(JOBS)
        .where(J.job_id.in_(found), J.state == JobState.PENDING.value)
        .values(
            state=cancelled,
            reason=CANCELLED,
            inbox_state=cancelled,
            inbox_via="cancel",
            touched_at=now,
            fence=J.fence + 1,
        )
        .returning(J.job_id)  # sqlite3 does not count the rows of a statement that begins with WITH
    )


def _expire(now: sa.ColumnElement[Any]) -> Any:
    due = (OF_QUEUE, IS_OPEN, _out_of_time(now), ~held(now))
    found = rows_of(*due, some=True)
    ended = {"state": JobState.EXPIRED.value, "reason": EXPIRED, "fence": J.fence + 1, "touched_at": now}
    return sa.update(JOBS).where(J.job_id.in_(found), *due).values(**ended, **_NO_LEASE).returning(*J)
