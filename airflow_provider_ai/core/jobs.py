"""A job of the asynchronous pattern: what it is called, what may become of it, and who may say so.

The identity of a job says everything that makes it this job and nothing of the attempt, so whoever submits it again
(a retry, a clear, a second scheduler) means the same one. Only a new generation is another job.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from enum import Enum
from uuid import UUID, uuid5

_NAMESPACE = UUID("6b8a1b0e-7f0c-5f0a-9c1d-2a5d0c6f4e11")


class JobState(Enum):
    """Where a job is. The last four are final: nothing changes them."""

    PENDING = "pending"  # submitted, and not begun, or given back
    RUNNING = "running"  # a worker holds its lease
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    EXPIRED = "expired"  # its time was over before it was begun
    CANCELLED = "cancelled"  # nobody waits for it any more

    @property
    def final(self) -> bool:
        """Whether nothing changes it any more."""
        return self not in (JobState.PENDING, JobState.RUNNING)


def submission_key(*parts: object) -> str:
    """Names all jobs of one submission: dag, task, run and map index, or what a shell was given. 32 hex digits.

    Opaque, for a run id may hold a name.
    """
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in parts)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def job_id(submission: str, position: int, *, generation: int = 0) -> str:
    """The id of the request at ``position`` of a submission: a UUID version 5 (RFC 9562), the same on every attempt."""
    return str(uuid5(_NAMESPACE, f"{submission}/{position}/{generation}"))


def origin_of(job: Job) -> str:
    """The id of a job's first generation, whose payload is that of all later ones."""
    return job_id(job.submission, job.position)


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """A payload or a result: ``inline`` bytes, or a claim check on them.

    :param sha256: of the bytes as they were before any codec, hex; keyed (HMAC) under one that encrypts
    :param ref: URI of the object that holds them, when they are not inline
    :param codec: name of the codec between these bytes and what is stored or sent
    """

    sha256: str
    inline: bytes | None = None
    ref: str | None = None
    codec: str = "identity"


@dataclass(frozen=True, slots=True, kw_only=True)
class NewJob:
    """A job to submit.

    :param submission: names the submission (:func:`submission_key`)
    :param position: of the request in it, from 0
    :param expires_at: epoch seconds after which it is not begun any more
    :param group: tenant: FIFO message group, or fair-queue group
    :param webhook: whether its result is also delivered to the webhook
    :param predecessor: the job that this one, of a later generation, takes the place of
    :param queue: name of the request queue that its message goes to: the deployment that answers for it
    """

    job_id: str
    submission: str
    position: int
    payload: Content
    expires_at: float | None = None
    generation: int = 0
    group: str | None = None
    webhook: bool = False
    predecessor: str | None = None
    queue: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A job as the store has it. Times are epoch seconds of the store's clock.

    :param fence: rises with every claim; what an older holder says is not believed
    :param abandoned: claims that ended without a word: whoever had it died, or was silent for too long
    :param sent: whether its message is known to have been put into the queue
    :param result: of a job that succeeded; it stays when the job is claimed no more
    :param reason: of one that did not: a word, never data
    :param model: what answered it (:class:`Outcome`)
    """

    job_id: str
    submission: str
    position: int
    generation: int
    state: JobState
    payload: Content
    attempts: int
    fence: int
    expires_at: float | None
    group: str | None = None
    webhook: bool = False
    abandoned: int = 0
    sent: bool = False
    result: Content | None = None
    reason: str | None = None
    model: str | None = None
    predecessor: str | None = None
    queue: str = ""

    @property
    def outcome(self) -> Outcome | None:
        """How it ended; None while it has not."""
        if not self.state.final:
            return None
        return Outcome(state=self.state, content=self.result, reason=self.reason, model=self.model)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a job ended, as recorded once and told as often as needed.

    :param state: a final one
    :param content: the result of a job that succeeded
    :param reason: of one that did not: one word
    :param model: what answered a job that succeeded, as its worker says: the endpoint's model, or the handler function
    """

    state: JobState
    content: Content | None = None
    reason: str | None = None
    model: str | None = None


class ClaimRefusal(Enum):
    """Why a worker may not begin a job."""

    FINISHED = "finished"  # publish the recorded outcome again, then delete the message
    HELD = "held"  # another worker's lease is alive: leave the message for later
    EXPIRED = "expired"  # just recorded as such: publish, then delete
    EXHAUSTED = "exhausted"  # just recorded as failed, for max_attempts were used up: dead letter, publish
    CANCELLED = "cancelled"  # delete the message
    UNKNOWN = "unknown"  # no such job in the store: dead letter
    MISMATCH = "mismatch"  # the payload is not the one that was submitted: dead letter


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """The answer to a claim: granted when ``refusal`` is None.

    :param job: as it is now; None when it is unknown
    :param fence: the fencing token of a granted claim
    :param held_seconds: how long the other worker's lease still lasts, of a job that is held
    """

    refusal: ClaimRefusal | None
    job: Job | None
    fence: int = 0
    held_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class JobCounts:
    """Jobs of a submission by state; ``pending`` holds the running ones too."""

    jobs: int = 0
    completed: int = 0
    failed: int = 0
    expired: int = 0
    cancelled: int = 0
    pending: int = 0
