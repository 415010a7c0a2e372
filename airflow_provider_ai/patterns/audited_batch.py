"""A batch, audited by the block: what is read and about to be sent before the engine gets it, what became of it
whenever the journal is synced.

These are roll-ups: one event covers the records of a block, or of an interval, and names each of them by its key. How a
call ended is in the journal first, in the same step as ever: should the audit fail then, what was paid for is kept, and
the events wait for the next sync. A partition is sealed only once they are all durable; one that is resumed is not
audited again for what its checkpoint holds.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from airflow_provider_ai.core.audit import AuditAction, AuditEvent, AuditOutcome
from airflow_provider_ai.core.outcomes import Outcome, Succeeded
from airflow_provider_ai.core.ports import RowBlock
from airflow_provider_ai.core.report import StopToken
from airflow_provider_ai.exceptions import AuditUnavailableError
from airflow_provider_ai.patterns.auditing import FAILED, INTENDED, SUCCEEDED, Auditor
from airflow_provider_ai.patterns.patience import patiently
from airflow_provider_ai.patterns.work import Journal

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchFacts:
    """What the events of a partition have in common. ``reference``: its label."""

    model: str
    prompt_hash: str
    reference: str


class PartitionAudit:
    """Audits one partition.

    :param stop: ends waiting for a store that is down
    """

    def __init__(self, auditor: Auditor, facts: BatchFacts, *, id_column: str, stop: StopToken) -> None:
        self._auditor = auditor
        self._facts = facts
        self._id_column = id_column
        self._stop = stop
        self._keys: dict[int, str] = {}

    def blocks(self, blocks: Iterator[RowBlock]) -> Iterator[RowBlock]:
        """The blocks, each once it is on record that it was read and is about to be sent."""
        for block in blocks:
            keys = [self._auditor.key(record[self._id_column]) for record in block.records]
            self._keys.update(zip(block.rows, keys, strict=True))
            self.keep(
                self._event(AuditAction.READ, SUCCEEDED, keys),
                self._event(AuditAction.INFER, INTENDED, keys, by_digest=True),
            )
            yield block

    def journal(self, inner: Journal) -> AuditedJournal:
        """The journal, whose outcomes are audited."""
        return AuditedJournal(inner, self)

    def take_keys(self, rows: Sequence[int]) -> list[str]:
        """The keys of rows that were read; they are forgotten."""
        return [self._keys.pop(row) for row in rows if row in self._keys]

    def end(self, reason: str | None, keys: list[str]) -> AuditEvent:
        """How calls of some records ended: well, or with the reason why they were given up."""
        if reason is None:
            return self._event(AuditAction.INFER, SUCCEEDED, keys)
        return self._event(AuditAction.QUARANTINE, FAILED, keys, reason=reason)

    def keep(self, *events: AuditEvent) -> None:
        """Make events durable; waits for a store that is down, for a minute. Raises AuditError."""
        patiently(lambda: self._auditor.record(*events), self._stop)

    def keep_now(self, *events: AuditEvent) -> None:
        """Likewise, without waiting."""
        self._auditor.record(*events)

    def _event(
        self,
        action: AuditAction,
        outcome: AuditOutcome,
        keys: list[str],
        *,
        by_digest: bool = False,
        reason: str | None = None,
    ) -> AuditEvent:
        facts = self._facts
        return self._auditor.event(
            action,
            outcome,
            keys=keys,
            by_digest=by_digest,
            model=facts.model,
            prompt_hash=facts.prompt_hash,
            reference=facts.reference,
            reason=reason,
        )


class AuditedJournal:
    """A journal that audits its outcomes at each sync, and all of them before it is complete."""

    def __init__(self, inner: Journal, audit: PartitionAudit) -> None:
        self.succeeded = inner.succeeded
        self.given_up = inner.given_up
        self.given_up_before = inner.given_up_before
        self.round = inner.round
        self._inner = inner
        self._audit = audit
        self._fresh: list[tuple[str | None, list[str]]] = []
        self._waiting: list[AuditEvent] = []
        self._said = False

    def record(self, outcome: Outcome) -> None:
        """Keep an outcome; it is audited with the next sync."""
        self._inner.record(outcome)
        if isinstance(outcome, Succeeded):
            self._fresh.append((None, self._audit.take_keys(outcome.rows)))
        else:
            self._fresh.append((outcome.error_class, self._audit.take_keys([outcome.row])))

    def sync(self) -> None:
        """Make outcomes durable, then audit them; an audit that is down is tried again with the next one."""
        self._inner.sync()
        try:
            self._flush(wait=False)
        except AuditUnavailableError as error:
            if not self._said:
                log.warning("outcomes are kept, and audited later: %s", error)
            self._said = True

    def show_life(self) -> None:
        """See :class:`Journal`."""
        self._inner.show_life()

    def complete(self) -> object:
        """Audit what is left, then seal the partition. AuditError: it stays open, and holds all that was paid for."""
        self._flush(wait=True)
        return self._inner.complete()

    def close(self) -> None:
        """Make outcomes durable and let the partition go, then audit what is left."""
        self._inner.close()
        self._flush(wait=False)

    def _flush(self, *, wait: bool) -> None:
        fresh, self._fresh = self._fresh, []
        keys: dict[str | None, list[str]] = defaultdict(list)
        for reason, some in fresh:
            keys[reason] += some
        self._waiting += [self._audit.end(reason, found) for reason, found in keys.items() if found]
        if self._waiting:
            (self._audit.keep if wait else self._audit.keep_now)(*self._waiting)
            self._waiting = []
            self._said = False
