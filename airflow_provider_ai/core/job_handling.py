"""Between a worker and what does its work: the job that a handler gets, and how its try may end.

A handler may be asked for one job more than once: when a try failed, and when a worker died or was too slow to say so.
The key in ``idempotency_key`` is the same every time, so a handler that writes somewhere by itself writes under it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class HandledJob:
    """A job as its handler sees it.

    :param idempotency_key: the same on every attempt: one key, one effect
    :param attempt: from 1
    :param payload: plain JSON values
    :param expires_at: epoch seconds after which nobody waits for it; None for never
    """

    job_id: str
    idempotency_key: str
    attempt: int
    payload: Any = field(repr=False)
    expires_at: float | None = None


class EndingKind(Enum):
    """What a try led to."""

    DONE = "done"
    RETRY = "retry"  # it failed and counts; another may help
    LATER = "later"  # it was not let in and does not count
    REJECTED = "rejected"  # the same again cannot help


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """How a try ended.

    :param output: JSON of the result of one that is done
    :param reason: one word of one that is not
    :param retry_after_seconds: how long to keep away, where that was said
    """

    kind: EndingKind
    output: bytes | None = field(default=None, repr=False)
    reason: str | None = None
    retry_after_seconds: float | None = None


class Handler(Protocol):
    """Does the work of a job."""

    async def handle(self, job: HandledJob, *, deadline_seconds: float) -> Ending:
        """One try. Whoever waits may cancel it; after ``deadline_seconds`` it is."""
        ...


class RejectedJobError(Exception):
    """Raised by a handler function: this job can never be done. ``reason``: one word, shown to people; never data."""

    def __init__(self, reason: str = "rejected") -> None:
        super().__init__(reason)
        self.reason = reason


class PostponedJobError(Exception):
    """Raised by a handler function: not now, and the attempt does not count (a rate limit, a service that is down)."""

    def __init__(self, reason: str = "postponed", *, retry_after_seconds: float | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.retry_after_seconds = retry_after_seconds
