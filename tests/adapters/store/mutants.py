"""Broken variants of the gate and the job store, each with a mistake that is easily made. The crowd must catch them."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import sqlalchemy as sa

from airflow_provider_ai.adapters.store import job_statements
from airflow_provider_ai.adapters.store.gate import SharedGate
from airflow_provider_ai.adapters.store.gate_statements import CHANGES, ENDPOINT, GateStatements
from airflow_provider_ai.adapters.store.jobs import StoredJobs
from airflow_provider_ai.adapters.store.tables import BREAKERS, BUCKETS, JOBS, SLOTS
from airflow_provider_ai.core import shared_breaker
from airflow_provider_ai.core.circuit_breaker import BreakerState
from airflow_provider_ai.core.jobs import Claim

_BETWEEN_SECONDS = 0.001  # what a busy machine puts between reading and writing


def blind_write() -> None:
    """A breaker is read, decided on and written, whatever others have written meanwhile."""
    real = GateStatements.__init__

    def init(self: GateStatements, database: Any) -> None:
        real(self, database)
        new = {name: sa.bindparam(f"new_{name}") for name in CHANGES}
        anything = sa.bindparam("seen_version") >= 0
        self.swap = sa.update(BREAKERS).where(BREAKERS.c.endpoint == ENDPOINT, anything).values(new)

    GateStatements.__init__ = init  # type: ignore[method-assign]


def no_lease() -> None:
    """Half-open lets everyone through, as breakers that keep their state in each process do."""
    shared_breaker._probe_due = lambda breaker, settings, now: (
        breaker.state is BreakerState.HALF_OPEN or now >= breaker.probe_at
    )


def get_then_set() -> None:
    """A counter is read, added to, and written."""

    def count(self: SharedGate, session: Any, admission: Any, evidence: Any) -> None:
        mine = sa.and_(BUCKETS.c.endpoint == admission.endpoint)
        row = session.run(sa.select(BUCKETS.c.alive, BUCKETS.c.failing).where(mine), {}).first()
        time.sleep(_BETWEEN_SECONDS)
        counts = {"alive": 0, "failing": 0} if row is None else {"alive": row.alive, "failing": row.failing}
        counts[evidence.value] += 1
        if row is None:
            place = {"endpoint": admission.endpoint, "version": 0, "starts_at": 0.0}
            insert = self._store.database.insert(BUCKETS).on_conflict_do_nothing()
            session.run(insert, {**place, **counts})
        else:
            session.run(sa.update(BUCKETS).where(mine).values(**counts), {})

    SharedGate._count = count  # type: ignore[method-assign]


def look_then_take() -> None:
    """A free slot is looked up and then taken, without looking again."""

    def claim(self: SharedGate, session: Any, endpoint: str, lease: str) -> int | None:
        now = time.time()
        free = sa.select(SLOTS.c.slot).where(SLOTS.c.endpoint == endpoint, SLOTS.c.lease_until <= now)
        slot: int | None = session.run(free.where(SLOTS.c.slot < self._slots).limit(1), {}).scalar()
        time.sleep(_BETWEEN_SECONDS)
        mine = sa.and_(SLOTS.c.endpoint == endpoint, SLOTS.c.slot == slot)
        session.run(sa.update(SLOTS).where(mine).values(lease=lease, lease_until=now + 10), {})
        return slot

    SharedGate._claim = claim  # type: ignore[method-assign]


def no_lease_check() -> None:
    """Whoever has the message may begin the job."""
    job_statements.held = lambda now: sa.false()  # type: ignore[assignment]


def look_then_claim() -> None:
    """A job is looked up and then taken, without looking again."""
    real = StoredJobs.claim

    def claim(self: StoredJobs, job_id: str, *, owner: str, lease_seconds: float, **rest: Any) -> Claim:
        job = self.job(job_id)
        if job is None or job.state.value != "pending":
            return real(self, job_id, owner=owner, lease_seconds=lease_seconds, **rest)
        time.sleep(_BETWEEN_SECONDS)
        fence = job.fence + 1
        taken = {"state": "running", "owner": owner, "fence": fence, "lease_until": time.time() + lease_seconds}
        with self._store.session() as session:
            mine = sa.update(JOBS).where(JOBS.c.job_id == job_id)
            session.run(mine.values(**taken, lease_seconds=lease_seconds, attempts=job.attempts + 1), {})
        return Claim(refusal=None, job=job, fence=fence)

    StoredJobs.claim = claim  # type: ignore[method-assign,assignment]


def no_fence_check() -> None:
    """Whoever has worked on a job may say how it ended."""
    job_statements._UNDER_FENCE = sa.and_(sa.bindparam("of_owner") != "", sa.bindparam("of_fence") > 0)


MUTANTS: dict[str, Callable[[], None]] = {
    mutant.__name__: mutant
    for mutant in (
        blind_write,
        no_lease,
        get_then_set,
        look_then_take,
        no_lease_check,
        look_then_claim,
        no_fence_check,
    )
}
