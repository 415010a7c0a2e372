"""The statements of the inbox: outcomes that arrive, what waiters and the reconciler ask for, and upkeep."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy import bindparam

from airflow_provider_ai.adapters.store.database import Database
from airflow_provider_ai.adapters.store.job_statements import (
    IS_FINAL,
    IS_OPEN,
    LATEST,
    LIMIT,
    NOT_ARRIVED,
    OF_JOB,
    OF_JOBS,
    OF_QUEUE,
    OF_SUBMISSION,
    OUTCOME,
    J,
    held,
    is_one_of,
    once,
    rows_of,
)
from airflow_provider_ai.adapters.store.tables import JOBS, UNKNOWN_REPLIES
from airflow_provider_ai.core.job_claims import FINAL
from airflow_provider_ai.core.jobs import JobState

_AGE: sa.BindParameter[float] = bindparam("older_than", type_=sa.Double())


class InboxStatements:
    """Statements for one database; those that need the time take it from ``database.now``."""

    def __init__(self, database: Database) -> None:
        now = database.now
        before = now - _AGE
        self.lock = sa.select(J.job_id).where(OF_JOBS).order_by(J.job_id).with_for_update()
        self.arrive = (
            sa.update(JOBS)
            .where(OF_JOB, NOT_ARRIVED, IS_FINAL)
            .values(inbox_state=J.state, inbox_via=bindparam("new_via"), touched_at=now)
        )
        self.keep_unknown = database.insert(UNKNOWN_REPLIES).values(received_at=now).on_conflict_do_nothing()
        self.jobs = _page(sa.select(*J), LATEST)
        arrived = sa.select(J.job_id, J.position, J.touched_at, *OUTCOME)
        self.arrivals = _page(arrived, LATEST, J.inbox_state.is_not(None))
        self.counts = _counts()
        self.arrived = sa.select(J.job_id, J.inbox_state).where(OF_JOBS)
        self.ended = _ended()
        self.unsent = _unsent(now, before)
        self.unpublished = _oldest(sa.select(*J).where(OF_QUEUE, NOT_ARRIVED, IS_FINAL, J.touched_at < before))
        self.published = (
            sa.update(JOBS).where(J.job_id.in_(rows_of(OF_JOBS, NOT_ARRIVED, IS_FINAL))).values(touched_at=now)
        )
        self.prune = _prune(before)
        self.prune_unknown = _prune_unknown(before)


def _arrived(state: JobState) -> sa.ColumnElement[int]:
    return sa.func.sum(sa.case((J.inbox_state == state.value, 1), else_=0)).label(state.value)


def _counts() -> sa.Select[Any]:
    """One row per submission, all of it from the index on them: nothing is sorted."""
    return (
        sa.select(J.submission, sa.func.count().label("jobs"), *map(_arrived, FINAL))
        .where(J.submission.in_(bindparam("of_submissions", expanding=True)), LATEST)
        .group_by(J.submission)
    )


def _ended() -> sa.Select[Any]:
    """Only submissions are counted of which something has arrived lately."""
    since: sa.BindParameter[float] = bindparam("since", type_=sa.Double())
    arrived = (OF_QUEUE, is_one_of(J.inbox_state, FINAL), IS_FINAL)
    lately = sa.select(J.submission).where(*arrived, J.touched_at > since).distinct()
    return (
        sa.select(
            J.submission, sa.func.count().label("jobs"), sa.func.max(J.touched_at).label("at"), *map(_arrived, FINAL)
        )
        .where(J.submission.in_(lately), LATEST)
        .group_by(J.submission)
        .having(sa.func.count(J.inbox_state) == sa.func.count(), sa.func.max(J.touched_at) > since)
    )


def _page(found: sa.Select[Any], *condition: sa.ColumnElement[bool]) -> sa.Select[Any]:
    after = J.position > bindparam("after", type_=sa.Integer())
    return found.where(OF_SUBMISSION, after, *condition).order_by(J.position).limit(LIMIT)


def _oldest(found: sa.Select[Any]) -> sa.Select[Any]:
    return found.order_by(J.touched_at).limit(LIMIT)


def _unsent(now: sa.ColumnElement[Any], before: sa.ColumnElement[Any]) -> sa.Select[Any]:
    in_time = sa.or_(J.expires_at.is_(None), J.expires_at > now)
    return _oldest(sa.select(*J).where(OF_QUEUE, NOT_ARRIVED, IS_OPEN, J.touched_at < before, ~held(now), in_time))


def _prune(before: sa.ColumnElement[Any]) -> Any:
    """All generations of positions whose latest one arrived long ago: an older one alone would be submitted anew."""
    old = (OF_QUEUE, is_one_of(J.inbox_state, FINAL), IS_FINAL, J.touched_at < before)
    places = sa.select(J.submission, J.position).where(*old, LATEST).limit(LIMIT)
    return (
        sa.delete(JOBS)
        .where(sa.tuple_(J.submission, J.position).in_(once(places)))
        .returning(J.payload_ref, J.result_ref)
    )


def _prune_unknown(before: sa.ColumnElement[Any]) -> sa.Delete:
    old = sa.select(UNKNOWN_REPLIES.c.digest).where(UNKNOWN_REPLIES.c.received_at < before).limit(LIMIT)
    return sa.delete(UNKNOWN_REPLIES).where(UNKNOWN_REPLIES.c.digest.in_(once(old)))
