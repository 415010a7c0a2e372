"""The circuit breaker that all processes share: what a call may do, and what its end changes.

Each function takes the breaker as the store has it and gives the breaker as it should be; the same object when nothing
changes. The store writes it only if nobody else has written since (``version``), and asks again otherwise: so each
change is made by one process, however many decide at once. ``version`` also names the window that calls are counted
in: a new one, still empty, begins with each change, and what ends late counts in a window that nobody reads.

All times are epoch seconds of one clock, the store's, but read a little before they are used, so another's time may be
later than any setting can have put it. One that is far later, by the whole setting, comes from a clock that was set
back since: it counts as over.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from airflow_provider_ai.core.call_ports import Evidence
from airflow_provider_ai.core.call_settings import LONGEST_DEADLINE_SECONDS, BreakerSettings
from airflow_provider_ai.core.circuit_breaker import BreakerState

SLOT_LEASE_SECONDS = 2 * LONGEST_DEADLINE_SECONDS
"""How long a bulkhead slot is held at most. No call takes as long, so it is a killed process that holds it longer."""
CREDIBLE = 2.0
"""A time ahead by more than this many times its setting comes from a clock that was set back."""
_BUCKETS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Breaker:
    """A circuit breaker as the store keeps it; one that it does not know is closed.

    :param version: rises with each change
    :param failed_probes: in a row, since it opened
    :param probe_at: open: when the next probe may go out
    :param lease: half-open: who probes; empty when the next call is to
    :param lease_until: when that probe is given up
    """

    version: int = 0
    state: BreakerState = BreakerState.CLOSED
    failed_probes: int = 0
    probe_at: float = 0.0
    lease: str = ""
    lease_until: float = 0.0

    def refuses(self, lease: str) -> bool:
        """Whether the call that :func:`ask` was given ``lease`` for may not go out."""
        return self.state is not BreakerState.CLOSED and self.lease != lease


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """Calls that ended within the last ``window_seconds``."""

    alive: int = 0
    failing: int = 0


def bucket_seconds(settings: BreakerSettings) -> float:
    """Calls are counted per bucket of this length, so the window slides in steps of a tenth of its own."""
    return settings.window_seconds / _BUCKETS


def bucket_start(now: float, settings: BreakerSettings) -> float:
    """The start of the bucket that a call ending now is counted in."""
    return math.floor(now / bucket_seconds(settings)) * bucket_seconds(settings)


def ask(breaker: Breaker, settings: BreakerSettings, *, now: float, lease: str) -> Breaker:
    """A call wants to go out. It may, unless the result :meth:`~Breaker.refuses` it; it is the probe that holds the
    result's lease.
    """
    if breaker.state is BreakerState.CLOSED or not _probe_due(breaker, settings, now):
        return breaker
    until = now + settings.probe_lease_seconds
    return _changed(breaker, state=BreakerState.HALF_OPEN, lease=lease, lease_until=until)


def after_call(breaker: Breaker, window: Window, settings: BreakerSettings, *, now: float, version: int) -> Breaker:
    """A call failed and is counted in ``window``.

    :param version: of the breaker that let it go out
    """
    calls = window.alive + window.failing
    enough = calls >= settings.minimum_calls and window.failing >= settings.failure_fraction * calls
    if breaker.state is not BreakerState.CLOSED or breaker.version != version or not enough:
        return breaker
    return _changed(breaker, state=BreakerState.OPEN, failed_probes=0, probe_at=now + _pause(settings, 0))


def after_probe(breaker: Breaker, evidence: Evidence, settings: BreakerSettings, *, now: float, lease: str) -> Breaker:
    """A probe ended. Once its lease is over, or someone else's, it changes nothing."""
    if breaker.state is not BreakerState.HALF_OPEN or breaker.lease != lease or now >= breaker.lease_until:
        return breaker
    if evidence is Evidence.NONE:
        return _changed(breaker, lease="", lease_until=0.0)
    if evidence is Evidence.ALIVE:
        return Breaker(version=breaker.version + 1)
    failed = breaker.failed_probes + 1
    pause = _pause(settings, failed)
    return Breaker(version=breaker.version + 1, state=BreakerState.OPEN, failed_probes=failed, probe_at=now + pause)


def _probe_due(breaker: Breaker, settings: BreakerSettings, now: float) -> bool:
    if breaker.state is BreakerState.OPEN:
        return not 0 < breaker.probe_at - now <= CREDIBLE * _longest_pause(settings)
    return not breaker.lease or not 0 < breaker.lease_until - now <= CREDIBLE * settings.probe_lease_seconds


def _pause(settings: BreakerSettings, failed_probes: int) -> float:
    return min(settings.open_seconds * 2.0 ** min(failed_probes, 64), _longest_pause(settings))


def _longest_pause(settings: BreakerSettings) -> float:
    return max(settings.open_seconds, settings.longest_open_seconds)


def _changed(breaker: Breaker, **changes: object) -> Breaker:
    return replace(breaker, version=breaker.version + 1, **changes)  # type: ignore[arg-type]
