"""Circuit breakers and bulkheads shared by all processes that use one store.

A call on a closed breaker locks nothing that another call needs for longer than one statement: the breaker is read,
counters are added to in place, and a slot that is just being taken is passed over. What the breaker should become is
decided by :mod:`airflow_provider_ai.core.shared_breaker` from what was read, and written only over what was read:
whoever comes second reads again.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from airflow_provider_ai.adapters.store.database import Session
from airflow_provider_ai.adapters.store.gate_statements import CHANGES, GateStatements
from airflow_provider_ai.core.call_ports import Admission, Evidence
from airflow_provider_ai.core.call_settings import BreakerSettings
from airflow_provider_ai.core.circuit_breaker import BreakerState
from airflow_provider_ai.core.shared_breaker import Breaker, Window, after_call, after_probe, ask, bucket_seconds

if TYPE_CHECKING:
    from airflow_provider_ai.adapters.store.store import Store

_KEPT_WINDOWS = 2
Decide = Callable[[Breaker, float], Breaker]


class SharedGate:
    """The call gate on a store. Thread-safe. Errors are StoreError.

    :param max_concurrent_calls: slots of each endpoint's bulkhead
    """

    def __init__(self, store: Store, *, breaker: BreakerSettings, max_concurrent_calls: int) -> None:
        self._store = store
        self._settings = breaker
        self._slots = max_concurrent_calls
        self._run = GateStatements(store.database)

    def admit(self, endpoint: str) -> Admission:
        """Ask to send one call: at the breaker, then at the bulkhead."""
        lease = os.urandom(8).hex()
        with self._store.session() as session:
            breaker = self._decide(session, endpoint, lambda seen, now: ask(seen, self._settings, now=now, lease=lease))
            if breaker.refuses(lease):
                return Admission(endpoint=endpoint, state=breaker.state, refused="breaker_open")
            probe = breaker.lease == lease
            slot = self._claim(session, endpoint, lease)
            if slot is None:
                if probe:
                    self._end_probe(session, endpoint, lease, Evidence.NONE)
                return Admission(endpoint=endpoint, state=breaker.state, refused="bulkhead_full")
        return Admission(
            endpoint=endpoint, state=breaker.state, probe=probe, slot=slot, lease=lease, version=breaker.version
        )

    def settle(self, admission: Admission, evidence: Evidence) -> BreakerState:
        """Give the slot back and count the call, once; the breaker's state after that."""
        endpoint = admission.endpoint
        with self._store.session() as session:
            held = admission.slot is not None and self._release(session, admission)
            if admission.probe:
                return self._end_probe(session, endpoint, admission.lease, evidence)
            if held and evidence is not Evidence.NONE:
                self._count(session, admission, evidence)
                if evidence is Evidence.FAILING:
                    return self._after_failure(session, admission)
            return self._look(session, endpoint)[0].state

    # --- breaker

    def _decide(self, session: Session, endpoint: str, decide: Decide) -> Breaker:
        """What the breaker is after a decision; one that was made on what is no longer so is made again."""
        while True:
            seen, now = self._look(session, endpoint)
            wanted = decide(seen, now)
            if wanted is seen or self._swap(session, endpoint, seen, wanted):
                return wanted

    def _look(self, session: Session, endpoint: str) -> tuple[Breaker, float]:
        values = {"of_endpoint": endpoint, **self._store.database.moment()}
        row = session.run(self._run.look, values).first()
        if row is None:
            self._prepare(session, endpoint)
            row = session.run(self._run.look, values).one()
        return _breaker(row), row.seen_at

    def _swap(self, session: Session, endpoint: str, seen: Breaker, wanted: Breaker) -> bool:
        changes = {f"new_{name}": getattr(wanted, name) for name in CHANGES} | {"new_state": wanted.state.value}
        values = {"of_endpoint": endpoint, "seen_version": seen.version, **changes}
        return session.run(self._run.swap, values).rowcount == 1

    def _end_probe(self, session: Session, endpoint: str, lease: str, evidence: Evidence) -> BreakerState:
        ended = self._decide(
            session, endpoint, lambda seen, now: after_probe(seen, evidence, self._settings, now=now, lease=lease)
        )
        return ended.state

    def _after_failure(self, session: Session, admission: Admission) -> BreakerState:
        values = {
            "of_endpoint": admission.endpoint,
            "window_seconds": self._settings.window_seconds,
            **self._store.database.moment(),
        }
        row = session.run(self._run.look_at_window, values).one()
        seen, window = _breaker(row), Window(alive=row.alive, failing=row.failing)
        wanted = after_call(seen, window, self._settings, now=row.seen_at, version=admission.version)
        if wanted is seen or self._swap(session, admission.endpoint, seen, wanted):
            return wanted.state
        return self._look(session, admission.endpoint)[0].state

    def _count(self, session: Session, admission: Admission, evidence: Evidence) -> None:
        """Whoever begins a bucket removes those that no window reaches any more."""
        endpoint, moment = admission.endpoint, self._store.database.moment()
        one = {
            "of_endpoint": endpoint,
            "of_version": admission.version,
            "width": bucket_seconds(self._settings),
            "one_alive": int(evidence is Evidence.ALIVE),
            "one_failing": int(evidence is Evidence.FAILING),
        }
        if session.run(self._run.count, {**one, **moment}).scalar_one() == 1:
            kept = _KEPT_WINDOWS * self._settings.window_seconds
            session.run(self._run.forget, {"of_endpoint": endpoint, "kept_seconds": kept, **moment})

    # --- bulkhead

    def _claim(self, session: Session, endpoint: str, lease: str) -> int | None:
        values = {"of_endpoint": endpoint, "limit": self._slots, "holder": lease, **self._store.database.moment()}
        slot = session.run(self._run.claim, values).scalar()
        if slot is None and self._missing_slots(session, endpoint):
            self._prepare(session, endpoint)
            slot = session.run(self._run.claim, values).scalar()
        return slot

    def _missing_slots(self, session: Session, endpoint: str) -> bool:
        """Whether ``max_concurrent_calls`` has been raised since the slots were made."""
        values = {"of_endpoint": endpoint, "limit": self._slots}
        return bool(session.run(self._run.slots, values).scalar_one() < self._slots)

    def _release(self, session: Session, admission: Admission) -> bool:
        values = {"of_endpoint": admission.endpoint, "held": admission.slot, "holder": admission.lease}
        return session.run(self._run.release, values).rowcount == 1

    def _prepare(self, session: Session, endpoint: str) -> None:
        """Rows for an endpoint that the store has not seen."""
        closed = {name: getattr(Breaker(), name) for name in CHANGES} | {"state": BreakerState.CLOSED.value}
        session.run(self._run.add_slots, {"of_endpoint": endpoint, "limit": self._slots})
        session.run(self._run.add_breaker, {"endpoint": endpoint, **closed})


def _breaker(row: Any) -> Breaker:
    return Breaker(
        version=row.version,
        state=BreakerState(row.state),
        failed_probes=row.failed_probes,
        probe_at=row.probe_at,
        lease=row.lease,
        lease_until=row.lease_until,
    )
