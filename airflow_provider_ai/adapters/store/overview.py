"""What stands in a store, for people: its tables' revision, breakers, bulkheads, how many answers it keeps, and of the
asynchronous pattern how many jobs, outcomes and messages that were put aside. Numbers and reasons, no id, no payload.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import sqlalchemy as sa

from airflow_provider_ai.adapters.store import schema
from airflow_provider_ai.adapters.store.tables import (
    BREAKERS,
    DEAD_LETTERS,
    GOOD_ANSWERS,
    JOBS,
    SLOTS,
    UNKNOWN_REPLIES,
)
from airflow_provider_ai.core.jobs import JobState

if TYPE_CHECKING:
    from airflow_provider_ai.adapters.store.database import Session
    from airflow_provider_ai.adapters.store.store import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointRow:
    """One endpoint. ``slots_taken``: calls under way, those of killed processes included until their leases end."""

    endpoint: str
    state: str
    slots_taken: int
    slots: int


@dataclass(frozen=True, slots=True, kw_only=True)
class JobsOverview:
    """The jobs of all deployments that use a store, all generations of them.

    :param states: how many there are in each state
    :param arrived: of those that have ended, how many outcomes are in the inbox
    :param under_way: and how many are not yet
    :param dead_letters: by reason, most frequent first; so are ``unknown_replies``, refused webhooks among them
    """

    states: dict[str, int]
    arrived: int
    under_way: int
    dead_letters: dict[str, int]
    unknown_replies: dict[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Overview:
    """A store as it is. ``revision``: None where there are no tables yet; ``needed``: this package's."""

    where: str
    revision: str | None
    needed: str = schema.HEAD
    endpoints: list[EndpointRow] = field(default_factory=list)
    good_answers: int = 0
    jobs: JobsOverview | None = None

    @property
    def usable(self) -> bool:
        """Whether this package can use it."""
        return self.revision == self.needed


def overview(store: Store) -> Overview:
    """Look at a store; nothing is made or changed."""
    revision = store.revision()
    if revision != schema.HEAD:
        return Overview(where=store.where, revision=revision)
    taken = sa.func.count(sa.case((SLOTS.c.lease_until > store.database.now, 1)))
    slots = sa.select(SLOTS.c.endpoint, taken.label("taken"), sa.func.count().label("slots")).group_by(SLOTS.c.endpoint)
    counted = slots.subquery()
    rows = (
        sa.select(BREAKERS.c.endpoint, BREAKERS.c.state, counted.c.taken, counted.c.slots)
        .join(counted, counted.c.endpoint == BREAKERS.c.endpoint)
        .order_by(BREAKERS.c.endpoint)
    )
    with store.session() as session:
        endpoints = [
            EndpointRow(endpoint=row.endpoint, state=row.state, slots_taken=row.taken, slots=row.slots)
            for row in session.run(rows, store.database.moment())
        ]
        answers = session.run(sa.select(sa.func.count()).select_from(GOOD_ANSWERS), {}).scalar_one()
        jobs = _jobs(session)
    return Overview(where=store.where, revision=revision, endpoints=endpoints, good_answers=answers, jobs=jobs)


def _jobs(session: Session) -> JobsOverview:
    """Jobs are counted in an index alone: there may be millions of them."""
    columns = (JOBS.c.inbox_state, JOBS.c.state)
    rows = session.run(sa.select(*columns, sa.func.count().label("jobs")).group_by(*columns), {}).all()
    states = {state: sum(row.jobs for row in rows if row.state == state.value) for state in JobState}
    arrived = sum(row.jobs for row in rows if row.inbox_state is not None)
    return JobsOverview(
        states={state.value: jobs for state, jobs in states.items() if jobs},
        arrived=arrived,
        under_way=sum(jobs for state, jobs in states.items() if state.final) - arrived,
        dead_letters=_by_reason(session, DEAD_LETTERS),
        unknown_replies=_by_reason(session, UNKNOWN_REPLIES),
    )


def _by_reason(session: Session, table: sa.Table) -> dict[str, int]:
    number = sa.func.count().label("number")
    counted = sa.select(table.c.reason, number).group_by(table.c.reason).order_by(number.desc(), table.c.reason)
    return {row.reason: row.number for row in session.run(counted, {})}
