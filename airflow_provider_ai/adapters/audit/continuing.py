"""``on_audit_failure = "continue"``: work goes on while events cannot be kept, and that is audited afterwards.

Events wait in memory, in order, for the log to work again; those that are too many for that are counted, and an event
says how many are lost. So it does for those that still wait at the end.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import islice

from airflow_provider_ai.core.audit import Actor, AuditAction, AuditEvent, AuditOutcome
from airflow_provider_ai.core.audit_ports import AuditLog
from airflow_provider_ai.exceptions import StoreError

MOST_WAITING = 10_000
_AT_ONCE = 500
_SKIP_SECONDS = 5.0  # a store that is down must not cost everyone its timeout
log = logging.getLogger(__name__)


class ContinuingLog:
    """A log that raises nothing.

    :param actor: who loses events
    :param epoch_us: microseconds since the epoch
    :param clock: monotonic seconds
    """

    on = True

    def __init__(
        self,
        inner: AuditLog,
        *,
        actor: Actor,
        epoch_us: Callable[[], int],
        most_waiting: int = MOST_WAITING,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._inner = inner
        self._actor = actor
        self._epoch_us = epoch_us
        self._most = most_waiting
        self._waiting: deque[AuditEvent] = deque()
        self._lost = 0
        self._clock = clock
        self._skip_until = float("-inf")
        self._lock = threading.Lock()

    def append(self, events: Sequence[AuditEvent]) -> None:
        """Keep events, now or later, if ever."""
        if self._works and self._tried(lambda: self._inner.append(events)):
            return
        with self._lock:
            room = max(0, self._most - len(self._waiting))
            self._waiting.extend(events[:room])
            self._lost += max(0, len(events) - room)
            if self._clock() >= self._skip_until:
                self._tried(self._catch_up)

    def prepare(self) -> None:
        """Begin, if that can be done now."""
        with suppress(StoreError):
            self._inner.prepare()

    def close(self) -> None:
        """A last try."""
        with self._lock, suppress(StoreError):
            self._catch_up()
        missing = len(self._waiting) + self._lost
        if missing:
            log.error("audit: %d events are lost", missing)
        self._inner.close()

    @property
    def _works(self) -> bool:
        return not self._waiting and not self._lost

    def _tried(self, work: Callable[[], None]) -> bool:
        try:
            work()
        except StoreError as error:
            self._skip_until = self._clock() + _SKIP_SECONDS
            log.warning("audit: going on without; events wait in memory: %s", error)
            return False
        return True

    def _catch_up(self) -> None:
        while self._waiting:
            some = list(islice(self._waiting, _AT_ONCE))
            self._inner.append(some)
            for _ in some:
                self._waiting.popleft()
        if self._lost:
            self._inner.append([self._loss(self._lost)])
            log.error("audit: works again; %d events are lost", self._lost)
            self._lost = 0

    def _loss(self, lost: int) -> AuditEvent:
        return AuditEvent(
            action=AuditAction.EVENTS_LOST,
            outcome=AuditOutcome.FAILED,
            actor=self._actor,
            at_us=self._epoch_us(),
            reason=f"lost_{lost}",
        )
