"""When a wait for jobs is over, and how it ends: decided from counts and the time, by whoever waits and however.

A wait always ends. Jobs that nobody will ever answer are final too (failed, expired, cancelled), a submission that the
store does not know is an error at once, and a deadline covers the rest.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum
from typing import Literal

from airflow_provider_ai.core.config import is_number, require
from airflow_provider_ai.core.jobs import JobCounts

OnFailedJobs = Literal["fail", "quarantine"]

JOBS_FAILED = "jobs_failed"
JOBS_EXPIRED = "jobs_expired"
JOBS_CANCELLED = "jobs_cancelled"
JOBS_MISSING = "jobs_missing"
UNKNOWN_SUBMISSION = "unknown_submission"
DEADLINE = "deadline"
STORE_UNAVAILABLE = "store_unavailable"

_FIRST_POLL_SECONDS = 0.25
_SLOWEST_POLL_SECONDS = 5.0
_SHARE_OF_THE_WAIT = 0.05


class WaitState(Enum):
    """Where a wait is."""

    WAITING = "waiting"  # go on
    COMPLETE = "complete"  # every job is final, and no more of them without a result than the policy allows
    FAILED = "failed"
    TIMED_OUT = "timed_out"


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitPolicy:
    """What jobs without a result mean to whoever waits.

    :param on_failed_jobs: ``fail``: none is allowed; ``quarantine``: ``max_quarantined_fraction`` of them is
    :param max_quarantined_fraction: of all jobs of the submission, ``[0, 1]``
    :param fail_fast: a wait that cannot end well ends at once; else when every job is final
    """

    on_failed_jobs: OnFailedJobs = "fail"
    max_quarantined_fraction: float = 0.01
    fail_fast: bool = True

    def __post_init__(self) -> None:
        known = self.on_failed_jobs in ("fail", "quarantine")
        require(known, "on_failed_jobs must be 'fail' or 'quarantine'", self.on_failed_jobs)
        fraction = self.max_quarantined_fraction
        require(is_number(fraction) and 0 <= fraction <= 1, "max_quarantined_fraction must be in [0, 1]", fraction)

    def allowance(self, jobs: int) -> int:
        """How many of so many jobs may end without a result."""
        if self.on_failed_jobs == "fail":
            return 0
        return math.floor(self.max_quarantined_fraction * jobs + 1e-9)


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitVerdict:
    """Where a wait is, and why it failed: a word, never data."""

    state: WaitState
    counts: JobCounts
    reason: str | None = None

    @property
    def over(self) -> bool:
        """Whether there is nothing to wait for any more."""
        return self.state is not WaitState.WAITING


def without_result(counts: JobCounts) -> int:
    """Jobs that ended without a result."""
    return counts.failed + counts.expired + counts.cancelled


def decide(
    counts: JobCounts | None, policy: WaitPolicy, *, now: float, deadline: float | None, expected: int | None = None
) -> WaitVerdict:
    """Whether to go on waiting.

    :param counts: of the submission; None, or no jobs at all, when the store does not know it
    :param now: epoch seconds, as ``deadline``; no deadline: none but the jobs' own
    :param expected: how many jobs were submitted, if the caller knows
    """
    counts = counts or JobCounts()
    reason = _why_not(counts, policy, expected)
    if reason is not None:
        return WaitVerdict(state=WaitState.FAILED, counts=counts, reason=reason)
    if counts.pending == 0:
        return WaitVerdict(state=WaitState.COMPLETE, counts=counts)
    if deadline is not None and now >= deadline:
        return WaitVerdict(state=WaitState.TIMED_OUT, counts=counts, reason=DEADLINE)
    return WaitVerdict(state=WaitState.WAITING, counts=counts)


def explain(verdict: WaitVerdict) -> str:
    """How a wait ended, for people, and what happens next."""
    counts = verdict.counts
    if verdict.state is WaitState.COMPLETE:
        return f"{counts.completed} of {counts.jobs} jobs completed"
    if verdict.state is WaitState.WAITING:
        return f"{counts.pending} of {counts.jobs} jobs are pending"
    if verdict.state is WaitState.TIMED_OUT:
        return (
            f"{counts.pending} of {counts.jobs} jobs are still pending at the deadline. They go on; a retry waits for "
            "the same jobs and submits none twice"
        )
    if verdict.reason == UNKNOWN_SUBMISSION:
        return "the store knows no job of this submission: it was never submitted, or was pruned. A retry submits it"
    if verdict.reason == JOBS_MISSING:
        return f"the store has only {counts.jobs} jobs of this submission: submit it again, which adds the others"
    return (
        f"{without_result(counts)} of {counts.jobs} jobs ended without a result ({_kinds(counts)}). A plain retry "
        "cannot help: remove the cause and redrive them, which submits them again, or allow a larger fraction"
    )


def poll_seconds(waited_seconds: float) -> float:
    """How long to pause before the next look: a twentieth of the wait so far, between 0.25 s and 5 s."""
    return min(_SLOWEST_POLL_SECONDS, max(_FIRST_POLL_SECONDS, _SHARE_OF_THE_WAIT * waited_seconds))


def _why_not(counts: JobCounts, policy: WaitPolicy, expected: int | None) -> str | None:
    if counts.jobs == 0 and expected != 0:
        return UNKNOWN_SUBMISSION
    if expected is not None and counts.jobs < expected:
        return JOBS_MISSING
    too_many = without_result(counts) > policy.allowance(counts.jobs)
    if not too_many or (counts.pending and not policy.fail_fast):
        return None
    if counts.failed:
        return JOBS_FAILED
    return JOBS_EXPIRED if counts.expired else JOBS_CANCELLED


def _kinds(counts: JobCounts) -> str:
    kinds = {"failed": counts.failed, "expired": counts.expired, "cancelled": counts.cancelled}
    return ", ".join(f"{number} {kind}" for kind, number in kinds.items() if number)
