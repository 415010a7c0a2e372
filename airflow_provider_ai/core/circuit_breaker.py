"""A circuit breaker for a batch: while the endpoint is down the run pauses instead of burning attempts.

Evidence of an outage is a run of failures without a success between them. A record that failed before proves nothing by
failing again (at the end of a run only the hopeless ones are left), so only first tries count, except that a refused
connection always counts. Half open, one call goes out, and one more for each call sent before the outage that succeeds:
it tells how the endpoint was when it was sent, so it does not close the breaker, but where only one of many replicas
died, the others are kept busy. Connection failures are waited for until ``max_outage_seconds``; an endpoint that
answers, but only with errors, is believed after ``_PATIENCE_SECONDS``: then attempts count again, and what keeps
failing goes to quarantine. All times are monotonic seconds given by the caller.
"""

from __future__ import annotations

from enum import Enum

_EVIDENCE = 5
_FIRST_PAUSE_SECONDS = 0.25
_LONGEST_PAUSE_SECONDS = 2.0
_PATIENCE_SECONDS = 30.0


class BreakerState(Enum):
    """The classic three (Nygard, Release It!)."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class CircuitBreaker:
    """Tells when a call may go out and whether its failure counts against its records."""

    __slots__ = ("_evidence", "_max_outage", "_opened_at", "_pause", "_probe_at", "_trials", "_unreachable", "state")

    def __init__(self, *, max_outage_seconds: float) -> None:
        self.state = BreakerState.CLOSED
        self._max_outage = max_outage_seconds
        self._evidence = 0
        self._pause = _FIRST_PAUSE_SECONDS
        self._probe_at = 0.0
        self._opened_at: float | None = None
        self._unreachable = False
        self._trials = 0

    @property
    def doubtful(self) -> bool:
        """Whether it is open, or a few failures more would open it: a call that never failed then says most."""
        return self.state is not BreakerState.CLOSED or 0 < self._evidence < _EVIDENCE

    def wait(self, now: float) -> float | None:
        """Seconds until a call may go out: 0 now, None not before a call that is out has come back."""
        if self.state is BreakerState.CLOSED or self._trials:
            return 0.0
        return max(0.0, self._probe_at - now) if self.state is BreakerState.OPEN else None

    def sent(self) -> bool:
        """A call goes out. Whether it is a probe: while the breaker is not closed it is."""
        if self.state is BreakerState.CLOSED:
            return False
        if self._trials:
            self._trials -= 1
        else:
            self.state = BreakerState.HALF_OPEN
        return True

    def alive(self, *, probe: bool) -> None:
        """The endpoint gave an answer that is not a sign of an outage.

        :param probe: what :meth:`sent` said of the call
        """
        if self.state is not BreakerState.CLOSED and not probe:
            self._trials += 1
            return
        self.state = BreakerState.CLOSED
        self._evidence = 0
        self._trials = 0
        self._opened_at = None
        self._pause = _FIRST_PAUSE_SECONDS

    def failed(self, now: float, *, first_try: bool, unreachable: bool, probe: bool, random: float) -> bool:
        """A call failed in a way that may mean an outage. Whether that counts against its records.

        :param first_try: none of the records had failed before
        :param unreachable: no connection could be made
        :param probe: what :meth:`sent` said of it
        """
        self._unreachable = unreachable
        if self.state is BreakerState.HALF_OPEN and not probe:
            return False
        if self.state is BreakerState.CLOSED:
            self._evidence += first_try or unreachable
            if self._evidence < _EVIDENCE or self._believed(now):
                return True
            self._opened_at = now if self._opened_at is None else self._opened_at
        elif self.state is BreakerState.HALF_OPEN and self._believed(now):
            self.state = BreakerState.CLOSED
            return True
        self._open(now, random)
        return False

    def outage_seconds(self, now: float) -> float:
        """How long the endpoint has been down; 0 while it is not."""
        return 0.0 if self._opened_at is None else now - self._opened_at

    def hopeless(self, now: float) -> bool:
        """Whether the endpoint has been unreachable for longer than the run is willing to wait."""
        return self._unreachable and self.outage_seconds(now) > self._max_outage

    def _believed(self, now: float) -> bool:
        patience = min(_PATIENCE_SECONDS, self._max_outage)
        return not self._unreachable and self.outage_seconds(now) > patience

    def _open(self, now: float, random: float) -> None:
        if self.state is not BreakerState.OPEN:
            self._probe_at = now + self._pause * (0.5 + random / 2)
            self._pause = min(self._pause * 2, _LONGEST_PAUSE_SECONDS)
        self.state = BreakerState.OPEN
