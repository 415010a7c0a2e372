"""Submit requests as jobs, and wait for them: the client's side of Request-Reply over queues.

Each group of jobs is in the store before its first message is sent, and marked as sent after that. So whoever is killed
anywhere in between leaves jobs that the same call, made again, completes: what is in the store is not inserted again,
what was marked is not sent again, and what was perhaps sent is sent twice rather than never. A payload too large for a
message lies in object storage before anything refers to it.

Groups go through several lanes side by side, each in a thread, so the store's commit of one is paid for while the
messages of another are on their way. Memory is bounded by lanes × group, however many requests there are.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

from airflow_provider_ai.core.config import is_whole, require
from airflow_provider_ai.core.job_messages import request_message
from airflow_provider_ai.core.job_ports import ContentCodec, JobStore, MessageQueue, OutgoingMessage
from airflow_provider_ai.core.job_reasons import REQUEST_REFUSED
from airflow_provider_ai.core.job_waiting import (
    STORE_UNAVAILABLE,
    WaitPolicy,
    WaitState,
    WaitVerdict,
    decide,
    poll_seconds,
)
from airflow_provider_ai.core.jobs import Job, JobCounts, JobState, NewJob, job_id
from airflow_provider_ai.core.manifest import Manifest
from airflow_provider_ai.core.ports import PartitionReader
from airflow_provider_ai.core.redaction import Necessary
from airflow_provider_ai.core.report import StopToken
from airflow_provider_ai.core.rowset import RowSet
from airflow_provider_ai.exceptions import (
    JobMismatchError,
    MessagesRefusedError,
    QueueUnavailableError,
    StoreUnavailableError,
)
from airflow_provider_ai.patterns.given_requests import GivenRequest, given_request, grouped
from airflow_provider_ai.patterns.patience import patiently, require_going_on
from airflow_provider_ai.patterns.waiting_hub import LAST_LOOK_SECONDS, CountsJobs

PAYLOAD = "payload"


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """What the jobs of a submission have in common.

    :param key: its name (:func:`airflow_provider_ai.core.jobs.submission_key`)
    :param expires_at: epoch seconds after which none of them is begun any more; jobs that are there keep their own
    :param generation: another one is other jobs: for requests that are to be answered anew
    :param group: tenant: FIFO message group, or fair-queue group
    :param webhook: whether results are also delivered to the webhook
    """

    key: str
    expires_at: float | None = None
    generation: int = 0
    group: str | None = None
    webhook: bool = False


@dataclass(frozen=True, slots=True)
class Submitted:
    """``jobs`` of the submission, and how many messages this call has sent for them."""

    jobs: int
    sent: int


class Submitter:
    """Submits requests. Calling it again with the same submission re-attaches.

    :param queue: of requests
    :param group_size: jobs that share a transaction of the store; about 4 MiB of payloads make a group, too
    :param lanes: groups under way at the same time; 1 keeps the order of requests
    """

    def __init__(
        self,
        *,
        store: JobStore,
        queue: MessageQueue,
        contents: ContentCodec,
        group_size: int = 500,
        lanes: int = 4,
    ) -> None:
        require(is_whole(group_size, 1), "group_size must be an integer ≥ 1", group_size)
        require(is_whole(lanes, 1), "lanes must be an integer ≥ 1", lanes)
        self._store = store
        self._queue = queue
        self._contents = contents
        self._group_size = group_size
        self._lanes = lanes
        self._writing = threading.Lock()  # SQLite has one writer at a time: here they wait without asking again

    def submit(
        self,
        submission: Submission,
        requests: Iterable[Any],
        *,
        necessary: Necessary | None = None,
        on_submitted: Callable[[Sequence[str]], None] | None = None,
        stop: StopToken | None = None,
    ) -> Submitted:
        """Submit ``requests``, each the inputs of one call, in their order; the n-th is job number n on every attempt.

        :param necessary: what of each may leave. One that must not leave at all becomes a job that has failed, with the
            reason, and nothing of it is stored or sent
        :param on_submitted: told the ids of each group, in order, once its messages are in the queue
        :raises InputError: a request has no JSON form; those before it may be submitted
        :raises JobMismatchError: another request was submitted at the same position before, or the submission has
            more jobs than there are requests now
        :raises StoreUnavailableError: for a minute; a retry goes on. So do QueueUnavailableError and
            ClaimCheckUnavailableError
        :raises EncryptionError: the payloads cannot be encrypted
        :raises StoppedError: when a stop was asked for
        """
        stop = stop or StopToken()
        patiently(lambda: self._contents.prepare(PAYLOAD), stop)
        jobs = sent = 0
        given = (given_request(position, request, necessary) for position, request in enumerate(requests))
        for ids, messages in self._side_by_side(submission, given, stop):
            jobs += len(ids)
            sent += messages
            if on_submitted is not None:
                on_submitted(ids)
        self._require_no_more(submission, jobs, stop)
        return Submitted(jobs, sent)

    def send(self, jobs: Sequence[Job], *, stop: StopToken | None = None) -> int:
        """Send the messages of jobs that are in the store already, and mark those that are in; how many."""
        return self._send(jobs, stop or StopToken())

    def _side_by_side(
        self, submission: Submission, requests: Iterable[GivenRequest], stop: StopToken
    ) -> Iterator[tuple[list[str], int]]:
        """What became of each group, in order."""
        running: deque[Future[tuple[list[str], int]]] = deque()
        with ThreadPoolExecutor(self._lanes, thread_name_prefix="ai-submit") as pool:
            try:
                for group in grouped(requests, self._group_size):
                    running.append(pool.submit(self._submit, submission, group, stop))
                    if len(running) > self._lanes:
                        yield running.popleft().result()
                while running:
                    yield running.popleft().result()
            finally:
                for waiting in running:
                    waiting.cancel()

    def _submit(self, submission: Submission, group: Sequence[GivenRequest], stop: StopToken) -> tuple[list[str], int]:
        require_going_on(stop)
        new = [patiently(partial(self._new_job, submission, request), stop) for request in group]
        refused = {job.job_id: given.refused for job, given in zip(new, group, strict=True) if given.refused}
        with self._writing:
            jobs = patiently(lambda: self._store.submit(new), stop)
            for name, reason in refused.items():
                patiently(partial(self._store.fail, name, reason=reason), stop)
        pending = [job for job in jobs if job.state is JobState.PENDING and not job.sent]
        return [job.job_id for job in new], self._send([job for job in pending if job.job_id not in refused], stop)

    def _new_job(self, submission: Submission, given: GivenRequest) -> NewJob:
        name = job_id(submission.key, given.position, generation=submission.generation)
        return NewJob(
            job_id=name,
            submission=submission.key,
            position=given.position,
            payload=self._contents.pack(
                given.payload, kind=PAYLOAD, job_id=name, origin=job_id(submission.key, given.position)
            ),
            expires_at=submission.expires_at,
            generation=submission.generation,
            group=submission.group,
            webhook=submission.webhook,
            queue=self._queue.name,
        )

    def _send(self, jobs: Sequence[Job], stop: StopToken) -> int:
        """Send the jobs' messages, and mark those that are in; how many."""
        waiting = {job.job_id: request_message(job, now=time.time()) for job in jobs}
        total = 0
        while waiting:
            sent = patiently(partial(self._send_some, waiting), stop)
            with self._writing:
                patiently(partial(self._store.sent, sent), stop)
            total += len(sent)
        return total

    def _send_some(self, waiting: dict[str, OutgoingMessage]) -> Sequence[str]:
        """Send what is waiting; what is in, or never will be, waits no more."""
        try:
            sent = self._queue.send(list(waiting.values()))
        except MessagesRefusedError as error:
            for key in error.refused:
                self._store.fail(key, reason=REQUEST_REFUSED)
                del waiting[key]
            sent = error.sent
        else:
            if not sent:
                raise QueueUnavailableError(f"{self._queue.name}: no message was taken; a retry sends them")
        for key in sent:
            del waiting[key]
        return sent

    def _require_no_more(self, submission: Submission, jobs: int, stop: StopToken) -> None:
        more = patiently(lambda: self._store.jobs(submission.key, after=jobs - 1, most=1), stop)
        if more:
            raise JobMismatchError(
                f"the submission has more jobs than the {jobs} requests there are now: the input has lost some since"
            )


def dataset_requests(reader: PartitionReader, manifest: Manifest) -> Iterator[Any]:
    """The rows of a planned dataset as requests, in its order, a block at a time."""
    for partition in manifest.partitions:
        for block in reader.blocks(manifest, partition, done=RowSet(partition.rows)):
            yield from block.records


def wait(
    store: CountsJobs,
    submission: str,
    policy: WaitPolicy,
    *,
    deadline: float | None = None,
    expected: int | None = None,
    on_look: Callable[[JobCounts], None] | None = None,
    stop: StopToken | None = None,
    clock: Callable[[], float] = time.time,
) -> WaitVerdict:
    """Look at the store now and then until the jobs of a submission are final, or time is up.

    :param deadline: epoch seconds; None for none but the jobs' own
    :param expected: how many jobs were submitted, if the caller knows
    :param on_look: told the counts each time
    :raises StoppedError: when a stop was asked for
    """
    stop = stop or StopToken()
    began = clock()
    counts: JobCounts | None = None
    while True:
        require_going_on(stop)
        now = clock()
        try:
            counts = store.counts([submission]).get(submission)
        except StoreUnavailableError:
            if deadline is not None and now >= max(deadline, began) + LAST_LOOK_SECONDS:
                state = WaitState.TIMED_OUT
                return WaitVerdict(state=state, counts=counts or JobCounts(), reason=STORE_UNAVAILABLE)
        else:
            if on_look is not None:
                on_look(counts or JobCounts())
            verdict = decide(counts, policy, now=now, deadline=deadline, expected=expected)
            if verdict.over:
                return verdict
        stop.wait(_pause(poll_seconds(now - began), now, deadline))


def _pause(seconds: float, now: float, deadline: float | None) -> float:
    """The next look is not later than the deadline, if that is still to come."""
    return seconds if deadline is None or now >= deadline else min(seconds, deadline - now)
