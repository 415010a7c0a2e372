"""A token bucket for requests or model tokens per minute."""

from __future__ import annotations

_CLOCK_SECONDS = 1e-6  # a shorter wait could be lost in the rounding of a clock and asked for forever


class TokenBucket:
    """Refills at ``per_minute / 60`` a second and holds at most one second's worth (at least one).

    Spending may go below zero: a call larger than the bucket is let through when the bucket is full, and what it
    overdrew is waited for afterwards. Times are monotonic seconds given by the caller.
    """

    __slots__ = ("_at", "_capacity", "_level", "_rate")

    def __init__(self, per_minute: float, *, now: float) -> None:
        self._rate = per_minute / 60.0
        self._capacity = max(1.0, self._rate)
        self._level = self._capacity
        self._at = now

    def wait(self, amount: float, *, now: float) -> float:
        """Seconds until ``amount`` may be spent; 0 when it may be spent now. Spends nothing."""
        self._refill(now)
        seconds = (min(amount, self._capacity) - self._level) / self._rate
        return seconds if seconds > _CLOCK_SECONDS else 0.0

    def spend(self, amount: float, *, now: float) -> None:
        """Take ``amount`` out; negative amounts give back what an estimate took too much."""
        self._refill(now)
        self._level = min(self._capacity, self._level - amount)

    def _refill(self, now: float) -> None:
        self._level = min(self._capacity, self._level + (now - self._at) * self._rate)
        self._at = now
