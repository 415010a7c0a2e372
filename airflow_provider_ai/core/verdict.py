"""What a call's end means for its records, the concurrency limit and the circuit breaker. Decided from facts alone."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Failure(Enum):
    """How a call can end without an HTTP status."""

    CONNECT = "connect"  # no connection: the records never left, whatever is wrong is not their fault
    DISCONNECTED = "connection"  # the connection broke after the request was sent
    TIMEOUT = "timeout"  # the call's total deadline passed
    TOO_LARGE = "too_large"  # the answer exceeded max_response_bytes


class Action(Enum):
    """What happens to the records of a call."""

    DECODE = "decode"  # 2xx: look at the answer
    LATER = "later"  # come back without using up an attempt
    RETRY = "retry"  # use up an attempt and come back after a backoff
    REJECT = "reject"  # trying the same again cannot help


@dataclass(frozen=True, slots=True)
class Verdict:
    """``congestion`` shrinks the concurrency limit; ``outage`` is evidence for the circuit breaker."""

    action: Action
    error_class: str
    congestion: bool = False
    outage: bool = False


_DECODE = Verdict(Action.DECODE, "")
_THROTTLED = Verdict(Action.LATER, "throttled", congestion=True)
_SERVER_ERROR = Verdict(Action.RETRY, "server_error", outage=True)
_OVERLOADED = Verdict(Action.RETRY, "server_error", congestion=True, outage=True)
_REJECTED = Verdict(Action.REJECT, "rejected")
_FAILURES = {
    Failure.CONNECT: Verdict(Action.LATER, "connect", outage=True),
    Failure.DISCONNECTED: Verdict(Action.RETRY, "connection", outage=True),
    Failure.TIMEOUT: Verdict(Action.RETRY, "timeout", congestion=True, outage=True),
    Failure.TOO_LARGE: Verdict(Action.REJECT, "too_large"),
}


def judge(status: int | None, failure: Failure | None = None) -> Verdict:
    """The verdict on a call that ended with an HTTP ``status`` or a ``failure``."""
    if failure is not None:
        return _FAILURES[failure]
    if status is None:
        raise ValueError("a call ends with a status or a failure")
    if 200 <= status < 300:
        return _DECODE
    if status == 429:
        return _THROTTLED
    if status >= 500:
        return _OVERLOADED if status == 503 else _SERVER_ERROR
    return _REJECTED
