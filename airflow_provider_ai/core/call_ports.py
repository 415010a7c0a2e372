"""What a synchronous call needs from the outside, beyond the ports of :mod:`airflow_provider_ai.core.ports`.

Everything here blocks and may hang: the pattern gives each of these calls a thread that it can leave behind.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any, Literal, Protocol

from airflow_provider_ai.core.circuit_breaker import BreakerState
from airflow_provider_ai.core.ports import Reply


class Evidence(Enum):
    """What the end of a call says about its endpoint."""

    ALIVE = "alive"  # it answered as it should, or refused this one request
    FAILING = "failing"  # deadline, connection error, 5xx, invalid output
    NONE = "none"  # the call was never sent


@dataclass(frozen=True, slots=True, kw_only=True)
class Admission:
    """Whether a call may go out, as decided in the store for all processes together.

    :param endpoint: the endpoint's name in the store
    :param state: of its circuit breaker
    :param refused: why the call may not go out; None when it may
    :param probe: whether this call is the one that half-open lets through
    :param slot: bulkhead slot it holds until it is settled or the lease ends
    :param lease: names the holder of probe and slot; a late one changes nothing
    :param version: of the breaker it was decided on; the call counts in the window of that version only
    """

    endpoint: str
    state: BreakerState
    refused: Literal["breaker_open", "bulkhead_full"] | None = None
    probe: bool = False
    slot: int | None = None
    lease: str = ""
    version: int = 0


class CallGate(Protocol):
    """Circuit breakers and bulkheads in the store. Methods may raise anything and may hang."""

    def admit(self, endpoint: str) -> Admission:
        """Ask to send one call. An admitted call must be settled; a killed process's lease ends by itself."""
        ...

    def settle(self, admission: Admission, evidence: Evidence) -> BreakerState:
        """Give the slot back and count the call; the breaker's state after that."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class GoodAnswer:
    """A kept answer. ``age_seconds``: since it was given; ``model``: whose it is."""

    output: Any
    model: str
    age_seconds: float


class GoodAnswers(Protocol):
    """The last good answers, by a key over endpoint and input. Methods may raise anything and may hang."""

    def load(self, key: str) -> GoodAnswer | None:
        """The answer kept under ``key``, however old; None when there is none."""
        ...

    def save(self, key: str, output: Any, *, model: str) -> None:
        """Keep an answer in place of an older one."""
        ...


class BlockingEndpoint(Protocol):
    """Sends one call from the calling thread."""

    def post(self, path: str, body: bytes, *, deadline_seconds: float) -> Reply:
        """The answer, or CallFailedError after at most ``deadline_seconds``."""
        ...
