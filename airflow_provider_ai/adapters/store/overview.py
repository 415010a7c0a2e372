"""What stands in a store, for people: its tables' revision, breakers, bulkheads, and how many answers it keeps."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import sqlalchemy as sa

from airflow_provider_ai.adapters.store import schema
from airflow_provider_ai.adapters.store.tables import BREAKERS, GOOD_ANSWERS, SLOTS

if TYPE_CHECKING:
    from airflow_provider_ai.adapters.store.store import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointRow:
    """One endpoint. ``slots_taken``: calls under way, those of killed processes included until their leases end."""

    endpoint: str
    state: str
    slots_taken: int
    slots: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Overview:
    """A store as it is. ``revision``: None where there are no tables yet; ``needed``: this package's."""

    where: str
    revision: str | None
    needed: str = schema.HEAD
    endpoints: list[EndpointRow] = field(default_factory=list)
    good_answers: int = 0

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
    return Overview(where=store.where, revision=revision, endpoints=endpoints, good_answers=answers)
