"""Settings of a synchronous call: the deadline, and the limits that all processes share."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta

from airflow_provider_ai.core.config import is_number, is_whole, require
from airflow_provider_ai.exceptions import SpecError

LONGEST_DEADLINE_SECONDS = 5.0
FLOOR_SECONDS = 0.03
"""Kept free before the deadline, to hand out the static answer. No call to an endpoint reaches into it."""


def seconds_of(value: timedelta | float) -> float:
    """A span of time as seconds; anything else comes back as it is, for a check to refuse."""
    return value.total_seconds() if isinstance(value, timedelta) else value


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerSettings:
    """When the circuit breaker of an endpoint opens, and for how long. Shared by all processes that use one store.

    :param window_seconds: length of the sliding window over which calls are counted
    :param minimum_calls: fewer calls in the window prove nothing
    :param failure_fraction: of the calls in the window, ``(0, 1]``; as many failures open the breaker
    :param open_seconds: from opening to the first probe; doubles with each failed probe up to ``longest_open_seconds``
    :param probe_lease_seconds: a probe whose process died is given up after this long. Longer than any deadline.
    """

    window_seconds: float = 30.0
    minimum_calls: int = 10
    failure_fraction: float = 0.5
    open_seconds: float = 5.0
    longest_open_seconds: float = 60.0
    probe_lease_seconds: float = 10.0

    def __post_init__(self) -> None:
        require(is_whole(self.minimum_calls, 1), "minimum_calls must be an integer ≥ 1", self.minimum_calls)
        share = self.failure_fraction
        require(is_number(share) and 0 < share <= 1, "failure_fraction must be in (0, 1]", share)
        for name in ("window_seconds", "open_seconds", "longest_open_seconds"):
            seconds = getattr(self, name)
            require(is_number(seconds) and seconds > 0, f"{name} must be a number > 0 (seconds)", seconds)
        lease = self.probe_lease_seconds
        long_enough = is_number(lease) and lease > LONGEST_DEADLINE_SECONDS
        require(long_enough, f"probe_lease_seconds must be a number > {LONGEST_DEADLINE_SECONDS:g}", lease)


@dataclass(frozen=True, slots=True, kw_only=True)
class CallSettings:
    """How long a call may take and how hard it may try.

    :param deadline_seconds: total time from the call to the answer, fallbacks included; at most 5
    :param attempt_timeout_seconds: of one try of the endpoint; ``None`` for all the time there is
    :param max_attempts: tries of the endpoint; a further one is made only when the time left allows it
    :param max_response_bytes: larger answers are refused
    :param max_concurrent_calls: bulkhead: calls to one endpoint at a time, over all processes; more are rejected
    :param store_timeout_seconds: what the store may take for one look, and never more than a tenth of the deadline;
        then the call goes on without it
    """

    deadline_seconds: float = 3.0
    attempt_timeout_seconds: float | None = None
    max_attempts: int = 1
    max_response_bytes: int = 4 * 1024 * 1024
    max_concurrent_calls: int = 64
    store_timeout_seconds: float = 0.25
    breaker: BreakerSettings = field(default_factory=BreakerSettings)

    def __post_init__(self) -> None:
        check_deadline(self.deadline_seconds)
        timeout = self.attempt_timeout_seconds
        require(
            timeout is None or (is_number(timeout) and timeout > 0),
            "attempt_timeout_seconds must be a number > 0 (seconds) or absent",
            timeout,
        )
        for name in ("max_attempts", "max_response_bytes", "max_concurrent_calls"):
            require(is_whole(getattr(self, name), 1), f"{name} must be an integer ≥ 1", getattr(self, name))
        cap = self.store_timeout_seconds
        require(is_number(cap) and 0 < cap <= 1, "store_timeout_seconds must be in (0, 1]", cap)

    @property
    def store_seconds(self) -> float:
        """What the store may take for one look."""
        return min(self.store_timeout_seconds, self.deadline_seconds / 10)


def check_deadline(seconds: object) -> None:
    """SpecError unless a deadline fits a synchronous call."""
    require(is_number(seconds) and seconds > FLOOR_SECONDS, "deadline must be a time > 0.03 s", seconds)  # type: ignore[operator]
    if seconds > LONGEST_DEADLINE_SECONDS:  # type: ignore[operator]
        raise SpecError(
            f"deadline must be at most {LONGEST_DEADLINE_SECONDS:g} s for a synchronous call, got {seconds:g} s: "
            "work that takes longer belongs in a queue, so use AISubmitAndWaitOperator"
        )
