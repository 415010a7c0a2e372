"""The statements of the call gate. Each is complete in itself, so no transaction spans two round trips.

Built once per gate: SQLAlchemy then finds their compiled form in its cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy import bindparam

from airflow_provider_ai.adapters.store.database import Database
from airflow_provider_ai.adapters.store.tables import BREAKERS, BUCKETS, SLOTS
from airflow_provider_ai.core.shared_breaker import CREDIBLE, SLOT_LEASE_SECONDS

ENDPOINT: sa.BindParameter[str] = bindparam("of_endpoint", type_=sa.Text())
CHANGES = ("version", "state", "failed_probes", "probe_at", "lease", "lease_until")


class GateStatements:
    """Statements for one database; those that need the time take it from ``database.now``."""

    def __init__(self, database: Database) -> None:
        now = database.now
        self.look = _look(now)
        self.look_at_window = _look(now, *_window(now))
        self.swap = _swap()
        self.count = _count(database)
        self.forget = sa.delete(BUCKETS).where(
            BUCKETS.c.endpoint == ENDPOINT, BUCKETS.c.starts_at < now - bindparam("kept_seconds", type_=sa.Double())
        )
        self.claim = _claim(now)
        self.release = (
            sa.update(SLOTS)
            .where(
                SLOTS.c.endpoint == ENDPOINT, SLOTS.c.slot == bindparam("held"), SLOTS.c.lease == bindparam("holder")
            )
            .values(lease="", lease_until=0.0)
        )
        self.slots = sa.select(sa.func.count()).where(SLOTS.c.endpoint == ENDPOINT, SLOTS.c.slot < bindparam("limit"))
        self.add_breaker = database.insert(BREAKERS).on_conflict_do_nothing()
        self.add_slots = _add_slots(database)


def _look(now: sa.ColumnElement[Any], *more: sa.ColumnElement[Any]) -> sa.Select[Any]:
    columns = [BREAKERS.c[name] for name in CHANGES]
    return sa.select(*columns, now.label("seen_at"), *more).where(BREAKERS.c.endpoint == ENDPOINT)


def _window(now: sa.ColumnElement[Any]) -> Sequence[sa.ColumnElement[Any]]:
    """Calls of the breaker's present version that ended within the window."""

    def total(column: sa.Column[int]) -> sa.ColumnElement[Any]:
        start = now - bindparam("window_seconds", type_=sa.Double())
        found = sa.select(sa.func.coalesce(sa.func.sum(column), 0)).where(
            BUCKETS.c.endpoint == BREAKERS.c.endpoint,
            BUCKETS.c.version == BREAKERS.c.version,
            BUCKETS.c.starts_at > start,
        )
        return found.correlate(BREAKERS).scalar_subquery()

    return [total(BUCKETS.c.alive).label("alive"), total(BUCKETS.c.failing).label("failing")]


def _swap() -> sa.Update:
    """Write a breaker unless someone else has since it was read."""
    seen = sa.and_(BREAKERS.c.endpoint == ENDPOINT, BREAKERS.c.version == bindparam("seen_version"))
    return sa.update(BREAKERS).where(seen).values({name: bindparam(f"new_{name}") for name in CHANGES})


def _count(database: Database) -> Any:
    """Add one call to the bucket of this moment; what the bucket holds then."""
    width: sa.BindParameter[float] = bindparam("width", type_=sa.Double())
    row = database.insert(BUCKETS).values(
        endpoint=ENDPOINT,
        version=bindparam("of_version"),
        starts_at=sa.func.floor(database.now / width) * width,
        alive=bindparam("one_alive"),
        failing=bindparam("one_failing"),
    )
    both = {name: BUCKETS.c[name] + row.excluded[name] for name in ("alive", "failing")}
    return row.on_conflict_do_update(index_elements=list(BUCKETS.primary_key), set_=both).returning(
        BUCKETS.c.alive + BUCKETS.c.failing
    )


def _claim(now: sa.ColumnElement[Any]) -> Any:
    """Take a slot that nobody holds. One that another process is just taking is passed over, not waited for."""
    over = sa.or_(SLOTS.c.lease_until <= now, SLOTS.c.lease_until > now + CREDIBLE * SLOT_LEASE_SECONDS)
    free = (
        sa.select(SLOTS.c.slot)
        .where(SLOTS.c.endpoint == ENDPOINT, SLOTS.c.slot < bindparam("limit"), over)
        .order_by(SLOTS.c.slot)
        .limit(1)
        .with_for_update(skip_locked=True)
        .scalar_subquery()
    )
    return (
        sa.update(SLOTS)
        .where(SLOTS.c.endpoint == ENDPOINT, SLOTS.c.slot == free)
        .values(lease=bindparam("holder"), lease_until=now + SLOT_LEASE_SECONDS)
        .returning(SLOTS.c.slot)
    )


def _add_slots(database: Database) -> Any:
    """The first ``limit`` slots, free, in one statement; those that are there stay as they are."""
    numbers = sa.select(sa.literal(0).label("slot")).cte("numbers", recursive=True)
    following = sa.select(numbers.c.slot + 1).where(numbers.c.slot + 1 < bindparam("limit", type_=sa.Integer()))
    numbers = numbers.union_all(following)
    # SQLite needs a WHERE here: without one it takes ON CONFLICT for the condition of a join.
    rows = sa.select(ENDPOINT, numbers.c.slot, sa.literal(""), sa.literal(0.0)).where(sa.true())
    return (
        database.insert(SLOTS).from_select(["endpoint", "slot", "lease", "lease_until"], rows).on_conflict_do_nothing()
    )
