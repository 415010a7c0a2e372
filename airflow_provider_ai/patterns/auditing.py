"""Who audits: events with an actor, a purpose and a time, from what a pattern does.

A pattern is wrapped, and knows nothing of it. The order is the same everywhere: what is about to be done is durable
first (``intended``), then it is done, then how it ended is durable. What cannot be audited raises AuditError before
anything was done; where it was done and paid for already, it is kept where it is, and the end is audited later or not
at all: an intention without an end means that it may have been done.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from airflow_provider_ai.core.audit import Actor, AuditAction, AuditEvent, AuditOutcome, digest_of, packed_keys
from airflow_provider_ai.core.audit_ports import AuditLog
from airflow_provider_ai.core.identity import record_key

INTENDED, SUCCEEDED = AuditOutcome.INTENDED, AuditOutcome.SUCCEEDED
FAILED, REFUSED = AuditOutcome.FAILED, AuditOutcome.REFUSED


class Auditor:
    """Makes events and keeps them. Thread-safe; methods block.

    :param hmac_key: record keys are made with it
    :param purpose: purpose of use
    :param epoch: seconds since the epoch
    """

    def __init__(
        self, log: AuditLog, *, actor: Actor, hmac_key: bytes, epoch: Callable[[], float], purpose: str | None = None
    ) -> None:
        self.log = log
        self.actor = actor
        self.purpose = purpose
        self._hmac_key = hmac_key
        self._epoch = epoch

    @property
    def on(self) -> bool:
        """Whether anything is kept."""
        return self.log.on

    def key(self, record_id: object) -> str:
        """What the audit calls a record."""
        return record_key(record_id, secret=self._hmac_key)

    def event(
        self,
        action: AuditAction,
        outcome: AuditOutcome,
        *,
        keys: Sequence[str] = (),
        by_digest: bool = False,
        model: str | None = None,
        prompt_hash: str | None = None,
        reference: str | None = None,
        reason: str | None = None,
    ) -> AuditEvent:
        """An event of now.

        :param keys: record keys, as :meth:`key` tells them
        :param by_digest: the keys lie beside another event with the same ones already
        """
        packed = packed_keys(keys)
        return AuditEvent(
            action=action,
            outcome=outcome,
            actor=self.actor,
            at_us=int(self._epoch() * 1_000_000),
            keys=b"" if by_digest else packed,
            records=len(keys),
            digest=digest_of(packed),
            purpose=self.purpose,
            model=model,
            prompt_hash=prompt_hash,
            reference=reference,
            reason=reason,
        )

    def record(self, *events: AuditEvent) -> None:
        """Keep events, all or none; durable when this returns.

        :raises AuditError: when they cannot be kept
        """
        self.log.append(events)

    def close(self) -> None:
        """Say that nothing comes any more."""
        self.log.close()
