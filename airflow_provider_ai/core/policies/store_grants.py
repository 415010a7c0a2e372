"""What each role does in the store, by table and column, as the statements of ``adapters/store`` do it.

A column that a role has no business with is left out: a worker cannot move a job to another tenant or change its
request, a reader sees no payload, and who writes the audit can neither read nor change it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from airflow_provider_ai.core.policies.rights import RIGHTS, Rights
from airflow_provider_ai.core.policies.roles import Kind, Role

Columns = tuple[str, ...] | bool
"""Columns; True for all of them, those of later versions included, and False for none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """What may be done with one table."""

    select: Columns = False
    insert: Columns = False
    update: Columns = False
    delete: bool = False


REVISIONS, JOBS = "ai_alembic_version", "ai_jobs"
TABLES = (
    REVISIONS,
    "ai_breakers",
    "ai_breaker_buckets",
    "ai_bulkhead_slots",
    "ai_good_answers",
    JOBS,
    "ai_unknown_replies",
    "ai_dead_letters",
    "ai_audit_events",
    "ai_audit_heads",
)
TENANT = "tenant"
"""The column of ``ai_jobs`` that row-level security goes by."""

_REQUEST = (
    "job_id",
    "queue",
    "submission",
    "position",
    "generation",
    "predecessor",
    "submitted_at",
    "expires_at",
    TENANT,
    "webhook",
    "payload_sha256",
    "payload_codec",
    "payload_ref",
    "payload_inline",
)
_CLAIM = ("state", "owner", "fence", "attempts", "abandoned", "lease_until", "lease_seconds", "touched_at")
_RESULT = ("reason", "model", "result_sha256", "result_codec", "result_ref", "result_inline")
_INBOX = ("inbox_state", "inbox_via")
_PROGRESS = ("superseded", "sent")
_NEW_JOB = (*_REQUEST, *_CLAIM, *_PROGRESS)
_NO_PAYLOAD = (
    *(name for name in _REQUEST if name != "payload_inline"),
    *_CLAIM,
    *_PROGRESS,
    *_INBOX,
    "reason",
    "model",
)

_ENDS = (*_CLAIM, *_RESULT)
_CANCELS = ("state", "reason", "fence", "touched_at", *_INBOX)
_INSERT_ONLY = Grant(insert=True)
_READ_ONLY = Grant(select=True)
_AUDIT = ("ai_audit_events", "ai_audit_heads")
_SHARED_STATE = {
    "ai_breakers": Grant(select=True, insert=True, update=True),
    "ai_breaker_buckets": Grant(select=True, insert=True, update=True, delete=True),
    "ai_bulkhead_slots": Grant(select=True, insert=True, update=True),
    "ai_good_answers": Grant(select=True, insert=True, update=True, delete=True),
}
_CALLS_SEEN = {
    "ai_breakers": Grant(select=("endpoint", "state")),
    "ai_bulkhead_slots": Grant(select=("endpoint", "lease_until")),
    "ai_good_answers": Grant(select=("given_at",)),
}
_SEEN = {
    **_CALLS_SEEN,
    JOBS: Grant(select=_NO_PAYLOAD),
    "ai_unknown_replies": Grant(select=("digest", "via", "reason", "received_at")),
    "ai_dead_letters": Grant(select=("letter_id", "job_id", "reason", "source", "received_at", "codec")),
}
_ENVELOPES = {
    JOBS: Grant(select=("job_id", "payload_inline", "result_inline"), update=("payload_inline", "result_inline")),
    "ai_good_answers": Grant(select=("key", "output"), update=("output",)),
    "ai_dead_letters": Grant(select=("letter_id", "message"), update=("message",)),
    "ai_unknown_replies": Grant(select=("digest", "message"), update=("message",)),
}
_GRANTS: Mapping[tuple[Kind, Role], Mapping[str, Grant]] = {
    ("jobs", Role.SUBMITTER): {JOBS: Grant(select=True, insert=_NEW_JOB, update=(*_PROGRESS, *_CANCELS))},
    ("jobs", Role.WORKER): {JOBS: Grant(select=True, update=_ENDS)},
    ("jobs", Role.DISPATCHER): {
        JOBS: Grant(select=True, update=(*_ENDS, *_INBOX, "sent"), delete=True),
        "ai_unknown_replies": Grant(select=("digest", "received_at"), insert=True, delete=True),
        "ai_dead_letters": _INSERT_ONLY,
    },
    ("jobs", Role.OPERATOR): {
        JOBS: Grant(select=True, insert=_NEW_JOB, update=(*_ENDS, *_INBOX, *_PROGRESS)),
        "ai_dead_letters": Grant(select=True, insert=True, delete=True),
    },
    ("jobs", Role.READER): _SEEN,
    ("jobs", Role.ROTATOR): _ENVELOPES,
    ("call", Role.CALLER): _SHARED_STATE,
    ("call", Role.READER): _SEEN,
    ("call", Role.ROTATOR): _ENVELOPES,
}


def store_grants(kind: Kind, role: Role) -> dict[str, Grant]:
    """Table → what the role may do with it, the audit's tables aside; nothing for a role that has no use for any."""
    return dict(_GRANTS.get((kind, role), {}))


def audit_grants(kind: Kind, role: Role) -> dict[str, Grant]:
    """Likewise, for the audit's tables."""
    rights = RIGHTS.get((kind, role), Rights())
    if rights.verifies:
        return dict.fromkeys(_AUDIT, _READ_ONLY)
    return dict.fromkeys(_AUDIT, _INSERT_ONLY) if rights.audits else {}
