"""Events for tests of the audit."""

from __future__ import annotations

from airflow_provider_ai.adapters.audit.opening import epoch_us
from airflow_provider_ai.core.audit import Actor, AuditAction, AuditEvent, AuditOutcome, digest_of

ACTOR = Actor(kind="cli", role="submitter", user="u")


def event(number: int = 0, *, reference: str | None = None) -> AuditEvent:
    """An event about one record."""
    keys = number.to_bytes(16, "big")
    return AuditEvent(
        action=AuditAction.INFER,
        outcome=AuditOutcome.INTENDED,
        actor=ACTOR,
        at_us=epoch_us(),
        keys=keys,
        records=1,
        digest=digest_of(keys),
        model="m",
        reference=reference or f"r{number}",
    )
