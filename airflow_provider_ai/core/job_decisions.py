"""What a worker does next with a delivery and its job. Decided from facts alone; the worker carries it out.

Two rules stand above all: a message is deleted only when what it asks for is recorded, and what is recorded is told
again as often as it is asked for, without any further work.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from airflow_provider_ai.core import job_reasons
from airflow_provider_ai.core.backoff import full_jitter
from airflow_provider_ai.core.job_handling import Ending, EndingKind
from airflow_provider_ai.core.jobs import Claim, ClaimRefusal, Job, JobState, Outcome

MOST_TOGETHER = 2
"""How often a job may be abandoned before it is done apart from others like it."""

HELD_MARGIN_SECONDS = 0.5
"""How long after the end of another worker's lease a message shows up again: not before it, that would be in vain."""

LEAST_PAUSE_SECONDS = 0.05
"""Before a job in hand is tried again, however small the jitter."""


class Fate(Enum):
    """What becomes of a message."""

    RUN = "run"  # the job is ours: do it
    DELETE = "delete"
    BURY = "bury"  # dead letter first, then delete
    LEAVE = "leave"  # it shows up again after a while
    ABANDON = "abandon"  # nothing: it is somebody else's now


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What to do with a message.

    :param publish: the outcome to put into the result queue before that
    :param reason: of a dead letter
    :param seconds: of one that is left
    """

    fate: Fate
    publish: Outcome | None = None
    reason: str | None = None
    seconds: float = 0.0


RUN = Step(fate=Fate.RUN)
DELETE = Step(fate=Fate.DELETE)
ABANDON = Step(fate=Fate.ABANDON)
_NO_SUCH_JOB = {
    ClaimRefusal.UNKNOWN: job_reasons.UNKNOWN_JOB,
    ClaimRefusal.MISMATCH: job_reasons.PAYLOAD_MISMATCH,
}


def after_claim(claim: Claim, *, lease_seconds: float) -> Step:
    """What the answer to a claim means for the message that led to it.

    :param lease_seconds: what leases last here, for another worker's lease of which the end is not known
    """
    refused = claim.refusal
    if refused is None:
        return RUN
    if refused in _NO_SUCH_JOB:
        return Step(fate=Fate.BURY, reason=_NO_SUCH_JOB[refused])
    if refused is ClaimRefusal.CANCELLED:
        return DELETE
    if refused is ClaimRefusal.HELD:
        left = lease_seconds if claim.held_seconds is None else claim.held_seconds
        return Step(fate=Fate.LEAVE, seconds=left + HELD_MARGIN_SECONDS)
    return after_recording(None if claim.job is None else claim.job.outcome)


def is_suspect(job: Job, *, max_attempts: int) -> bool:
    """Whether a job may be what its workers died of, and so must not be in flight beside others of that kind.

    What was in flight with such a job comes back when it does, and would be with it again and again until none has an
    attempt left. So it must come to this before the last attempt.
    """
    return job.abandoned >= max(1, min(MOST_TOGETHER, max_attempts - 1))


def after_recording(recorded: Outcome | None) -> Step:
    """What follows once a job has an outcome; None: it has none, for somebody else has it now.

    A message of a job that failed becomes a dead letter however often it comes: a worker may have died between
    recording the failure and putting the message aside.
    """
    if recorded is None:
        return ABANDON
    if recorded.state is JobState.FAILED:
        return Step(fate=Fate.BURY, publish=recorded, reason=recorded.reason)
    if recorded.state is JobState.CANCELLED:
        return DELETE
    return Step(fate=Fate.DELETE, publish=recorded)


class Move(Enum):
    """What to do with a job after a try."""

    RECORD = "record"
    GIVE_BACK = "give_back"
    WAIT = "wait"  # keep it, and try again after a pause


@dataclass(frozen=True, slots=True, kw_only=True)
class Next:
    """What to do with a job after a try.

    :param state: to record, with the ``reason`` of a failure
    :param counts: whether a job that is given back has used up an attempt
    :param seconds: until the next try
    """

    move: Move
    state: JobState = JobState.PENDING
    reason: str | None = None
    counts: bool = True
    seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How failed tries are repeated.

    :param max_attempts: tries that count, the last included
    :param base_seconds: of full jitter; ``cap_seconds`` likewise
    :param wait_seconds: how long a worker keeps a job that is not let in before it gives it back
    """

    max_attempts: int
    base_seconds: float
    cap_seconds: float
    wait_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Tries:
    """What is known of a job's tries.

    :param attempts: that count, this one included
    :param put_off: how often in a row this worker was not let in, this time included
    :param waited_seconds: since it was first not let in
    """

    attempts: int
    put_off: int = 0
    waited_seconds: float = 0.0


def after_try(ending: Ending, tries: Tries, patience: Patience, *, random: float) -> Next:
    """What follows from how a try ended. ``random`` lies in ``[0, 1)``.

    A job that is not let in (429, no connection) stays with its worker: the slot that it keeps is what holds the
    worker back from fetching more, and no delivery is used up while the endpoint is down.
    """
    if ending.kind is EndingKind.DONE:
        return Next(move=Move.RECORD, state=JobState.SUCCEEDED)
    if ending.kind is EndingKind.REJECTED:
        return Next(move=Move.RECORD, state=JobState.FAILED, reason=ending.reason)
    later = ending.kind is EndingKind.LATER
    if not later and tries.attempts >= patience.max_attempts:
        return Next(move=Move.RECORD, state=JobState.FAILED, reason=ending.reason)
    seconds = full_jitter(
        tries.put_off if later else tries.attempts, base=patience.base_seconds, cap=patience.cap_seconds, random=random
    )
    seconds = max(seconds, ending.retry_after_seconds or 0.0)
    left = patience.wait_seconds - tries.waited_seconds
    if later and left > 0:
        return Next(
            move=Move.WAIT, reason=ending.reason, counts=False, seconds=max(min(seconds, left), LEAST_PAUSE_SECONDS)
        )
    return Next(move=Move.GIVE_BACK, reason=ending.reason, counts=not later, seconds=seconds)
