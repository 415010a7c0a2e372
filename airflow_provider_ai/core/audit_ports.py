"""Where audit events go. Methods block and may be called from any thread."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from airflow_provider_ai.core.audit import AuditEvent


class AuditLog(Protocol):
    """A chain of events. ``on``: whether it keeps any."""

    on: bool

    def append(self, events: Sequence[AuditEvent]) -> None:
        """Keep events, all or none, in order; durable when this returns.

        :raises AuditUnavailableError: when the same may succeed later; they may be kept all the same
        :raises AuditError: when they are refused
        """
        ...

    def prepare(self) -> None:
        """Get ready now instead of at the first event."""
        ...

    def close(self) -> None:
        """Say that nothing comes any more."""
        ...


class NullAuditLog:
    """The audit is off."""

    on = False

    def append(self, events: Sequence[AuditEvent]) -> None:
        """Nothing."""

    def prepare(self) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""
