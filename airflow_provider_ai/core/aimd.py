"""How many calls may be in flight: additive increase, multiplicative decrease, and a recovery that takes seconds.

Plain AIMD climbs by one step a round trip and stays low for minutes after an outage. Here the step doubles with every
quiet quarter of a second, so a limit that fell from 64 to 1 is back within three seconds of the endpoint's recovery;
and where a limit was seen to be too high under load, the climb stops just below it for a while before it probes again.
Only a limit that was climbed to is taken for too high: cuts in a row are an outage and say nothing of the capacity.
"""

from __future__ import annotations

_CUT = 0.7
_RAISE_EVERY_SECONDS = 0.25
_PLATEAU = 0.95
_PLATEAU_SECONDS = 5.0


class AdaptiveLimit:
    """The concurrency limit. All times are monotonic seconds given by the caller."""

    __slots__ = (
        "_ceiling",
        "_climbed",
        "_cut_at",
        "_known",
        "_limit",
        "_raised_at",
        "_settled_at",
        "_step",
        "_successes",
    )

    def __init__(self, ceiling: int) -> None:
        self._ceiling = float(ceiling)
        self._limit = float(ceiling)
        self._known = float(ceiling)
        self._step = 1.0
        self._cut_at = float("-inf")
        self._raised_at = float("-inf")
        self._settled_at = float("-inf")
        self._climbed = True
        self._successes = 0

    @property
    def value(self) -> int:
        """Calls allowed in flight now, in ``[1, ceiling]``."""
        return int(self._limit)

    def congested(self, now: float, *, round_trip: float) -> bool:
        """The endpoint said 429 or timed out. One burst counts once: cuts are a round trip apart. Whether it cut."""
        if now < self._settled_at:
            return False
        if self._climbed and self._successes >= self._limit:
            self._known = self._limit
        self._climbed = False
        self._limit = max(1.0, self._limit * _CUT)
        self._step = 1.0
        self._successes = 0
        self._cut_at = self._raised_at = now
        self._settled_at = now + max(round_trip, _RAISE_EVERY_SECONDS)
        return True

    def succeeded(self, now: float) -> None:
        """A call came back well."""
        self._successes += 1
        if self._limit >= self._ceiling or now - self._raised_at < _RAISE_EVERY_SECONDS:
            return
        self._raised_at = now
        self._climbed |= now >= self._settled_at  # until then, answers are to calls of before the cut
        target = min(self._ceiling, self._limit + self._step)
        plateau = max(1.0, self._known * _PLATEAU)
        if now - self._cut_at < _PLATEAU_SECONDS and target > plateau and self._known < self._ceiling:
            self._limit = max(self._limit, plateau)
            self._step = 1.0
            return
        self._limit = target
        self._step *= 2
