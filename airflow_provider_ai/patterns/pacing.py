"""When the next call may go out, and what the end of a call teaches: limit, budgets, breaker and backoff in one place.

The parts decide in ``core``; here they are asked in turn and told the same facts. Times are monotonic seconds given by
the caller.
"""

from __future__ import annotations

import logging
import random
import time

from airflow_provider_ai.core.aimd import AdaptiveLimit
from airflow_provider_ai.core.backoff import full_jitter, retry_after_seconds
from airflow_provider_ai.core.circuit_breaker import BreakerState, CircuitBreaker
from airflow_provider_ai.core.config import Limits
from airflow_provider_ai.core.ports import Reply
from airflow_provider_ai.core.rate_limit import TokenBucket
from airflow_provider_ai.core.verdict import Action, Verdict
from airflow_provider_ai.patterns.work import Call

log = logging.getLogger(__name__)

_SHORTEST_DELAY_SECONDS = 0.05
_LONGEST_THROTTLE_SECONDS = 5.0  # without a wish of the server, and for everybody with one


class Pacing:
    """The pace of one run against one endpoint."""

    def __init__(self, limits: Limits, *, now: float, seed: int | None = None) -> None:
        self._limits = limits
        self._random = random.Random(seed)
        self._limit = AdaptiveLimit(limits.concurrency)
        self._breaker = CircuitBreaker(max_outage_seconds=limits.max_outage_seconds)
        self._requests = _bucket(limits.requests_per_minute, now)
        self._tokens = _bucket(limits.tokens_per_minute, now)
        self._round_trip = 0.25
        self._throttles = 0
        self._not_before = 0.0

    @property
    def concurrency(self) -> int:
        """Calls allowed in flight now."""
        return self._limit.value

    @property
    def doubtful(self) -> bool:
        """Whether the endpoint may be down: a call that never failed is then the one to send."""
        return self._breaker.doubtful

    def wait(self, call: Call, now: float) -> float | None:
        """Seconds until this call may go out; None not before a call that is out has come back."""
        wait = self._breaker.wait(now)
        if wait is None:
            return None
        wait = max(wait, self._not_before - now)
        if self._requests:
            wait = max(wait, self._requests.wait(1, now=now))
        if self._tokens and call.encoded:
            wait = max(wait, self._tokens.wait(call.encoded.estimated_tokens, now=now))
        return max(wait, 0.0)

    def sent(self, call: Call, now: float) -> None:
        """The call goes out."""
        call.probe = self._breaker.sent()
        if self._requests:
            self._requests.spend(1, now=now)
        if self._tokens and call.encoded:
            self._tokens.spend(call.encoded.estimated_tokens, now=now)

    def used(self, call: Call, tokens: int, now: float) -> None:
        """The tokens a call really used, in place of their estimate; 0 when the answer does not say."""
        if self._tokens and call.encoded and tokens:
            self._tokens.spend(tokens - call.encoded.estimated_tokens, now=now)

    def ended(self, call: Call, verdict: Verdict, now: float, *, round_trip: float, unreachable: bool) -> bool:
        """A call has ended. Whether a failure counts against its records.

        :param round_trip: seconds it took
        :param unreachable: no connection could be made
        """
        if verdict.congestion:
            self._limit.congested(now, round_trip=self._round_trip)
        elif verdict.action is Action.DECODE:
            self._round_trip += 0.1 * (round_trip - self._round_trip)
            self._throttles = 0
            self._limit.succeeded(now)
        if not verdict.outage:
            self._breaker.alive(probe=call.probe)
            return True
        before = self._breaker.state
        counts = self._breaker.failed(
            now,
            first_try=call.first_try,
            unreachable=unreachable,
            probe=call.probe,
            random=self._random.random(),
        )
        if before is BreakerState.CLOSED and self._breaker.state is BreakerState.OPEN:
            log.warning("endpoint seems down (%s): pausing, probing until it answers", verdict.error_class)
        return counts

    def hopeless_after(self, now: float) -> float | None:
        """Seconds for which the endpoint has been unreachable, once that is longer than the run is willing to wait."""
        return self._breaker.outage_seconds(now) if self._breaker.hopeless(now) else None

    def backoff(self, tries: int, *, outage: bool) -> float:
        """Seconds until a call that failed ``tries`` times is tried again."""
        jitter = full_jitter(
            tries,
            base=self._limits.backoff_base_seconds,
            cap=self._limits.backoff_cap_seconds,
            random=self._random.random(),
        )
        return max(jitter, self.hold()) if outage else jitter

    def hold(self) -> float:
        """Seconds in which the calls sent before a failure come back: until then they hide that an outage began."""
        return min(max(2 * self._round_trip, _SHORTEST_DELAY_SECONDS), self._limits.backoff_cap_seconds)

    def put_off(self, call: Call, reply: Reply | None, now: float) -> float:
        """Seconds until a call that was put off may be tried again; many in a row slow everybody down."""
        asked = None if reply is None else retry_after_seconds(reply.retry_after, now=time.time())
        jitter = full_jitter(
            call.throttled,
            base=self._limits.backoff_base_seconds,
            cap=_LONGEST_THROTTLE_SECONDS,
            random=self._random.random(),
        )
        wait = max(_SHORTEST_DELAY_SECONDS, jitter if asked is None else asked)
        if reply is not None and reply.status == 429:
            self._throttles += 1
            if self._throttles > self._limit.value:
                self._not_before = max(self._not_before, now + min(wait, _LONGEST_THROTTLE_SECONDS))
        return wait


def _bucket(per_minute: float | None, now: float) -> TokenBucket | None:
    return None if per_minute is None else TokenBucket(per_minute, now=now)
