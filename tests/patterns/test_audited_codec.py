"""What was stored encrypted is handed out once it is on record."""

from __future__ import annotations

import time
from collections.abc import Mapping

import pytest

from airflow_provider_ai.adapters.codec import IdentityCodec
from airflow_provider_ai.core.audit import Actor, AuditAction, AuditOutcome
from airflow_provider_ai.exceptions import AuditUnavailableError
from airflow_provider_ai.patterns.audited_codec import AuditedCodec
from airflow_provider_ai.patterns.auditing import Auditor
from airflow_provider_ai.testing import InMemoryAudit

CONTEXT = {"what": "job-payload", "sha256": "ab"}


class Backwards(IdentityCodec):
    """A codec that a test can see through."""

    name = "backwards"

    def encode(self, data: bytes, *, context: Mapping[str, str]) -> bytes:
        return data[::-1]

    def decode(self, data: bytes, *, context: Mapping[str, str]) -> bytes:
        if not data:
            raise ValueError("CANARY")
        return data[::-1]


@pytest.fixture
def log() -> InMemoryAudit:
    return InMemoryAudit()


@pytest.fixture
def codec(log: InMemoryAudit) -> AuditedCodec:
    actor = Actor(kind="cli", role="reader")
    return AuditedCodec(Backwards(), Auditor(log, actor=actor, hmac_key=b"s" * 32, epoch=time.time))


def test_reading_is_on_record(codec: AuditedCodec, log: InMemoryAudit) -> None:
    """Writing is not: it shows nothing to anybody."""
    assert codec.name == "backwards"
    assert codec.decode(codec.encode(b"CANARY", context=CONTEXT), context=CONTEXT) == b"CANARY"
    assert log.told() == [(AuditAction.DECRYPT, AuditOutcome.SUCCEEDED, 1)]
    assert log.events[0].reference == "job-payload"
    codec.decode(b"x", context=dict(reversed(CONTEXT.items())))
    codec.decode(b"x", context={**CONTEXT, "sha256": "cd"})
    keys = [event.keys for event in log.events]
    assert keys[0] == keys[1] != keys[2]
    assert "CANARY" not in repr(log.rows)


def test_nothing_is_shown_while_the_audit_is_down(codec: AuditedCodec, log: InMemoryAudit) -> None:
    """The bytes stay where they are."""
    log.available = False
    with pytest.raises(AuditUnavailableError):
        codec.decode(b"YRANAC", context=CONTEXT)


def test_a_try_that_fails_is_on_record(codec: AuditedCodec, log: InMemoryAudit) -> None:
    """By the class of its error, whose text may quote what it failed on."""
    with pytest.raises(ValueError, match="CANARY"):
        codec.decode(b"", context=CONTEXT)
    assert (log.events[0].outcome, log.events[0].reason) == (AuditOutcome.FAILED, "ValueError")
