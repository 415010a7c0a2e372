"""What the asynchronous pattern needs from the outside: a store of jobs with an inbox, queues, and claim checks.

Methods block and may be called from any thread. They raise StoreError and QueueError; ``…UnavailableError`` means that
the same call may succeed later.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from airflow_provider_ai.core.jobs import Claim, Content, Job, JobCounts, JobState, NewJob, Outcome

# --- the store


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """A row of the inbox: an outcome that has arrived for a job and is durable. ``arrived_at``: epoch seconds."""

    job_id: str
    outcome: Outcome
    position: int
    arrived_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """How a job ended, as its holder says."""

    job_id: str
    fence: int
    outcome: Outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """A submission whose jobs have all ended. ``at``: when its last outcome arrived, epoch seconds."""

    counts: JobCounts
    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Pruned:
    """What was removed: how many jobs, and the claim checks of their payloads and results, which nobody needs now."""

    jobs: int = 0
    refs: tuple[str, ...] = ()


class JobStore(Protocol):
    """Jobs, leases and the inbox. The clock is the store's own.

    Every method is one transaction, except that ``submit``, ``sent``, ``heartbeat`` and ``cancel`` take more than a
    thousand jobs in several. What submit, complete, fail, expire, redrive and the inbox have written survives a power
    cut; leases and attempts may not.

    Several deployments may share a store. A job belongs to the one whose request queue it names, and what looks
    after jobs without being told their ids takes the ``queue`` of its own. Jobs that name none belong to all of them.
    """

    def submit(self, jobs: Sequence[NewJob]) -> Sequence[Job]:
        """Insert those that are not there yet; all of them as they are then, in order.

        A job that is there with another payload is an error (JobMismatchError): the id is bound to the payload's hash.
        Nothing of the thousand that it is among is inserted then.
        """
        ...

    def sent(self, job_ids: Sequence[str]) -> None:
        """Their messages are in the queue; the reconciler sends again what was never marked so."""
        ...

    def claim(self, job_id: str, *, sha256: str, owner: str, lease_seconds: float, max_attempts: int) -> Claim:
        """Begin a job, or say why not. A granted claim counts an attempt and raises the fence, in one statement; and
        one claim more as abandoned, if the job was taken from someone whose lease had run out.
        """
        ...

    def claim_many(
        self, payloads: Mapping[str, str], *, owner: str, lease_seconds: float, max_attempts: int
    ) -> Mapping[str, Claim]:
        """:meth:`claim` for several jobs (job id → sha256), in one transaction."""
        ...

    def heartbeat(self, claims: Mapping[str, int], *, owner: str, lease_seconds: float) -> set[str]:
        """Prolong leases (job id → fence); the ids that are still held by ``owner`` under that fence."""
        ...

    def complete(self, job_id: str, *, owner: str, fence: int, outcome: Outcome) -> Outcome | None:
        """Record how a job ended, if ``owner`` still holds it under ``fence``; else change nothing.

        The recorded outcome; None when it has none yet (someone else holds it).
        """
        ...

    def complete_many(self, completions: Sequence[Completion], *, owner: str) -> Sequence[Outcome | None]:
        """:meth:`complete` for several jobs, in one transaction; in order."""
        ...

    def give_back(self, job_id: str, *, owner: str, fence: int, count_attempt: bool) -> bool:
        """Make a held job pending again (SIGTERM, a failed try); whether it was held."""
        ...

    def fail(self, job_id: str, *, reason: str, spare_held: bool = False) -> Job | None:
        """Record a job as failed that is not final yet, whoever holds it (its message is a dead letter); the job.

        :param spare_held: unless somebody holds it
        """
        ...

    def cancel(self, submission: str) -> int:
        """Cancel the jobs of a submission that have not begun; how many. That is in the inbox at once."""
        ...

    def expire(self, *, most: int, queue: str = "") -> Sequence[Job]:
        """Record jobs whose time is over and that nobody holds as expired; at most so many of them."""
        ...

    def redrive(self, job_ids: Sequence[str]) -> Sequence[Job]:
        """Submit jobs that ended without a result once more, as the next generation: no attempts, as much time.

        The successors, in order, those of an earlier redrive included. Jobs that are unknown, still open or succeeded
        have none.
        """
        ...

    def job(self, job_id: str) -> Job | None:
        """One job."""
        ...

    def jobs(self, submission: str, *, after: int = -1, most: int = 1000) -> Sequence[Job]:
        """Jobs of a submission in order of position, the latest generation of each, from ``after`` on."""
        ...

    def counts(self, submissions: Sequence[str]) -> Mapping[str, JobCounts]:
        """Counts of many submissions in one query, from the inbox: a job is final for whoever waits once its outcome
        has arrived there. Latest generation of each position.
        """
        ...

    def arrived(self, job_ids: Sequence[str]) -> Mapping[str, JobState | None]:
        """How jobs have ended for whoever waits for them, in one query; None for those that have not. Unknown ones are
        left out.
        """
        ...

    def ended(self, *, since: float, queue: str = "") -> Mapping[str, Ended]:
        """Submissions all of whose jobs have ended for whoever waits, the last of them after ``since``."""
        ...

    # --- inbox

    def receive(self, job_id: str, outcome: Outcome, *, via: str) -> bool:
        """Insert an outcome into the inbox unless one is there; False for an unknown job (kept aside, see below).

        A job has one outcome: where another is recorded for it, that one is what arrives. A job that has none yet (its
        worker does not use this store) ends with this one.
        """
        ...

    def receive_many(self, outcomes: Mapping[str, Outcome], *, via: str) -> set[str]:
        """:meth:`receive` for a batch, all or nothing (job id → outcome); the ids that are known."""
        ...

    def keep_unknown(self, message: bytes, *, job_id: str | None, via: str, reason: str) -> None:
        """Keep a reply that belongs to no job, for people to look at."""
        ...

    def arrivals(self, submission: str, *, after: int = -1, most: int = 1000) -> Sequence[Arrival]:
        """The inbox of a submission in order of position."""
        ...

    # --- reconciler

    def unsent(self, *, older_than_seconds: float, most: int, queue: str = "") -> Sequence[Job]:
        """Jobs whose message was never sent, or was sent so long ago that it must be lost, and that nobody holds.

        Once sent again and marked so they are left alone for that long. Those whose time is over are not among them.
        """
        ...

    def unpublished(self, *, older_than_seconds: float, most: int, queue: str = "") -> Sequence[Job]:
        """Final jobs whose outcome has not arrived in the inbox, though it ended, or was published, that long ago."""
        ...

    def published(self, job_ids: Sequence[str]) -> None:
        """Their outcomes were sent once more: :meth:`unpublished` leaves them alone for a while."""
        ...

    # --- upkeep

    def prune(self, *, older_than_seconds: float, most: int, queue: str = "") -> Pruned:
        """Remove jobs whose outcome arrived that long ago, ``most`` positions at most, with all their generations;
        likewise replies that belong to no job.

        A submission that is made again after that is a new one: keep them longer than anyone retries.
        """
        ...


# --- dead letters


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """A message that could not be dealt with, as it is kept for people.

    :param letter_id: 32 hex digits; the same message put aside again for the same reason is the same letter
    :param job_id: what it says it is for; None when it does not say
    :param reason: one word
    :param source: name of the queue that it was in
    :param message: as it was
    :param received_at: epoch seconds of the store's clock; 0 before it is kept
    """

    letter_id: str
    job_id: str | None
    reason: str
    source: str
    message: bytes = field(repr=False)
    received_at: float = 0.0


class DeadLetterStore(Protocol):
    """Dead letters that were taken out of their queue."""

    def keep(self, letters: Sequence[DeadLetter]) -> None:
        """Keep those that are not there yet, durably, all or nothing."""
        ...

    def letters(self, *, most: int, after: DeadLetter | None = None) -> Sequence[DeadLetter]:
        """Letters in the order in which they came, from ``after`` on."""
        ...

    def letter(self, letter_id: str) -> DeadLetter | None:
        """One letter."""
        ...

    def remove(self, letter_ids: Sequence[str]) -> int:
        """Forget letters; how many there were."""
        ...


# --- queues


@dataclass(frozen=True, slots=True, kw_only=True)
class OutgoingMessage:
    """``body``: JSON text in UTF-8; ``key``: the job's id (FIFO deduplication, Kafka key); ``group``: the tenant."""

    key: str
    body: bytes
    attributes: Mapping[str, str] = field(default_factory=dict)
    group: str | None = None
    delay_seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """A message that was received and not yet deleted.

    :param receives: how often it was delivered, this time included; 0 where the queue does not count
    :param handle: the adapter's own
    """

    body: bytes
    attributes: Mapping[str, str]
    receives: int
    handle: object = field(repr=False)


class MessageQueue(Protocol):
    """One queue. Delivers at least once, in any order."""

    name: str

    def send(self, messages: Sequence[OutgoingMessage]) -> Sequence[str]:
        """Send any number, in the batches the service takes; the keys of those that are in. Others may be sent again.

        QueueUnavailableError only when none is in; MessagesRefusedError when it never takes some, and has the others.
        """
        ...

    def receive(self, *, most: int, wait_seconds: float, visibility_seconds: float) -> Sequence[Delivery]:
        """Up to ``most`` messages, waiting up to ``wait_seconds`` (≤ 20) for the first."""
        ...

    def delete(self, deliveries: Sequence[Delivery]) -> None:
        """They are done. A stale handle is no error: the message comes again, and is recognised."""
        ...

    def extend(self, deliveries: Sequence[Delivery], *, visibility_seconds: float) -> None:
        """Keep them hidden for that long from now; 0 gives them back at once. Where the queue has no such thing, a
        message that is given back is sent again.
        """
        ...

    def peek(self, *, most: int) -> Sequence[Delivery]:
        """Up to ``most`` messages without keeping them, for people to look at; their handles are of no use."""
        ...

    def depth(self) -> int:
        """Roughly how many messages it holds, hidden ones included; for metrics and people."""
        ...

    def close(self) -> None:
        """Let connections go; undeleted deliveries come again."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Transport:
    """The queues of a deployment."""

    requests: MessageQueue
    results: MessageQueue
    dead_letters: MessageQueue

    @property
    def names(self) -> tuple[str, str, str]:
        """Of the queues: requests, results, dead letters."""
        return self.requests.name, self.results.name, self.dead_letters.name

    def close(self) -> None:
        """Close all of them."""
        for queue in (self.requests, self.results, self.dead_letters):
            queue.close()


# --- claim checks


class ClaimChecks(Protocol):
    """Payloads and results that are too large for a message."""

    def put(self, name: str, data: bytes) -> str:
        """Store bytes under a name of ours; their URI. Writing the same name again is harmless."""
        ...

    def get(self, ref: str) -> bytes:
        """The bytes of a URI that :meth:`put` gave; ClaimCheckError when they are gone."""
        ...

    def delete(self, refs: Iterable[str]) -> None:
        """Remove objects; absent ones are no error."""
        ...


class ContentCodec(Protocol):
    """Between bytes and :class:`Content`: codec, hash, and a claim check when they are too many."""

    def prepare(self, kind: str) -> None:
        """See that content of this kind can be packed; EncryptionError when it cannot."""
        ...

    def pack(self, data: bytes, *, kind: str, job_id: str, origin: str | None = None) -> Content:
        """``kind``: ``payload`` or ``result``; ``origin``: the first generation of the job, if that matters."""
        ...

    def unpack(self, content: Content, *, kind: str, job_id: str, origin: str | None = None) -> bytes:
        """The bytes, checked against the hash."""
        ...
