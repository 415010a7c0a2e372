"""The audit in memory: one chain, hashed as the real one is, whose events a test can look at."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from airflow_provider_ai.core.audit import AuditAction, AuditEvent, AuditOutcome, Position
from airflow_provider_ai.core.audit_chain import Row, next_row, start_of
from airflow_provider_ai.exceptions import AuditUnavailableError


class InMemoryAudit:
    """An :class:`~airflow_provider_ai.core.audit_ports.AuditLog`.

    ``available = False`` makes it raise AuditUnavailableError until it is True again.
    """

    on = True

    def __init__(self, writer: str = "20260101T000000Z-000000000000") -> None:
        self.available = True
        self.closed = False
        self.events: list[AuditEvent] = []
        self.rows: list[Row] = []
        self._end = start_of(writer)
        self._lock = threading.Lock()

    def append(self, events: Sequence[AuditEvent]) -> None:
        """Keep events, all or none."""
        with self._lock:
            if not self.available:
                raise AuditUnavailableError("audit: the store is down")
            for event in events:
                row = next_row(self._end, event)
                self._end = Position(row.writer, row.sequence, row.hash)
                self.rows.append(row)
                self.events.append(event)

    def prepare(self) -> None:
        """As a real one begins its chain."""
        if not self.available:
            raise AuditUnavailableError("audit: the store is down")

    def close(self) -> None:
        """Note it."""
        self.closed = True

    def told(self) -> list[tuple[AuditAction, AuditOutcome, int]]:
        """What was done, how it went, and how many records it covers, in order."""
        return [(event.action, event.outcome, event.records) for event in self.events]
