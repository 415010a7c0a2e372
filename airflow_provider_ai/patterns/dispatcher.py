"""The dispatcher of the asynchronous pattern: it brings outcomes into the inbox, which is all that waiters look at.

Three kinds of work, each in daemon threads of its own, and each safe beside any number of other dispatchers:

- **results**: result queue → insert if absent → delete. A reply is deleted only after its row is durable. One that
  belongs to no job is kept aside, one that is no reply becomes a dead letter.
- **dead letters**: dead letter queue → the job ends as failed, with the reason, and whoever waits for it learns it at
  once; the message is kept in the store for people.
- **reconciling**: jobs whose time is over expire, requests that were lost are sent again, and outcomes whose reply was
  lost are taken from the store.

A plain object without signal handlers: a service runs it, and a triggerer may hold one. When a store or a queue is down
each thread waits and tries again; nothing was deleted, so nothing is lost.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypedDict

from airflow_provider_ai.core import job_reasons
from airflow_provider_ai.core.backoff import full_jitter
from airflow_provider_ai.core.dispatch_decisions import FORGOTTEN, to_resend
from airflow_provider_ai.core.job_messages import request_message
from airflow_provider_ai.core.job_metrics import DispatcherMetrics
from airflow_provider_ai.core.job_ports import (
    ClaimChecks,
    DeadLetter,
    DeadLetterStore,
    Delivery,
    JobStore,
    Transport,
)
from airflow_provider_ai.core.job_settings import DispatcherSettings
from airflow_provider_ai.core.jobs import Job, Outcome
from airflow_provider_ai.core.messages import ResultMessage, decode_result, id_in
from airflow_provider_ai.exceptions import AIProviderError, MessagesRefusedError, UndecodableMessageError
from airflow_provider_ai.patterns.dead_letters import TOO_MANY_RECEIVES, dead_letter, letter_of

QUEUE, DEAD, RECONCILER, EXPIRY = "queue", "dead_letter", "reconciler", "expiry"
"""The ways an outcome comes into the inbox."""
_SOURCE = "/airflow-ai/dispatcher"
_MOST = 100
_MOST_RECONCILED = 500
_NEVER_SENT_SECONDS = 60.0
_FIRST_PAUSE_SECONDS = 0.2
_LONGEST_PAUSE_SECONDS = 3.0
_SHORTEST_LOOK_SECONDS = 0.05
_DAY_SECONDS = 86_400.0
log = logging.getLogger(__name__)


class _Mine(TypedDict):
    """Which jobs to look after: those of this deployment, so many at a time."""

    queue: str
    most: int


class Dispatcher:
    """See the module. ``start()`` and ``stop()``, or one round of each kind of work by hand.

    :param claim_checks: what old jobs leave behind there is removed with them
    :param epoch: seconds since the epoch
    :param random: numbers in ``[0, 1)``, for jitter
    """

    def __init__(
        self,
        *,
        store: JobStore,
        dead_letters: DeadLetterStore,
        transport: Transport,
        settings: DispatcherSettings,
        epoch: Callable[[], float],
        random: Callable[[], float],
        claim_checks: ClaimChecks | None = None,
    ) -> None:
        self.metrics = DispatcherMetrics()
        self._store = store
        self._letters = dead_letters
        self._transport = transport
        self._settings = settings
        self._claim_checks = claim_checks
        self._epoch = epoch
        self._random = random
        self._stopped = threading.Event()
        self._threads: list[threading.Thread] = []
        self._down: dict[str, str] = {}
        self._counting = threading.Lock()

    # --- life

    def start(self) -> None:
        """Begin, in daemon threads."""
        every = self._settings.reconcile_seconds
        works: list[tuple[str, Callable[[], int], float]] = [
            *((f"results-{lane}", self.take_results, 0.0) for lane in range(self._settings.lanes)),
            ("dead-letters", self.take_dead_letters, 0.0),
            ("reconciler", self.reconcile, every),
        ]
        for name, work, pause in works:
            thread = threading.Thread(
                target=self._loop, args=(name, work, pause), name=f"ai-dispatcher-{name}", daemon=True
            )
            self._threads.append(thread)
            thread.start()

    def stop(self, *, timeout_seconds: float) -> bool:
        """Take nothing more, and wait for what is under way; whether it ended in time.

        What is left behind may still be carried out: every step of it is safe to be done twice.
        """
        self._stopped.set()
        end = time.monotonic() + timeout_seconds
        for thread in self._threads:
            thread.join(max(0.0, end - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    @property
    def ready(self) -> bool:
        """Whether it works, and everything that it needs does."""
        return bool(self._threads) and not self._stopped.is_set() and not self._down

    @property
    def alive(self) -> bool:
        """Whether all of its threads are."""
        return all(thread.is_alive() for thread in self._threads)

    def _loop(self, name: str, work: Callable[[], int], pause: float) -> None:
        failures = 0
        while not self._stopped.is_set():
            began = time.monotonic()
            try:
                found = work()
            except AIProviderError as error:
                self._fails(name, str(error), type(error).__name__)
                failures += 1
            except Exception as error:
                self._fails(name, f"unexpected {type(error).__name__}", type(error).__name__)
                log.debug("defect in the dispatcher", exc_info=error)
                failures += 1
            else:
                failures = 0
                if self._down.pop(name, None) is not None:
                    log.warning("%s: works again", name)
            if failures:
                jitter = full_jitter(
                    failures, base=_FIRST_PAUSE_SECONDS, cap=_LONGEST_PAUSE_SECONDS, random=self._random()
                )
                self._stopped.wait(jitter + _SHORTEST_LOOK_SECONDS)
            elif pause:
                self._stopped.wait(pause * (0.5 + self._random()))  # dispatchers that started together drift apart
            elif not found and time.monotonic() - began < _SHORTEST_LOOK_SECONDS:  # a queue that does not wait
                self._stopped.wait(_SHORTEST_LOOK_SECONDS)

    def _fails(self, name: str, text: str, kind: str) -> None:
        if self._down.get(name) != kind:
            log.warning("%s: trying again until it works: %s", name, text)
        self._down[name] = kind

    # --- results

    def take_results(self) -> int:
        """One look into the result queue; how many replies were taken."""
        queue, settings = self._transport.results, self._settings
        deliveries = queue.receive(
            most=_MOST,
            wait_seconds=settings.poll_seconds,
            visibility_seconds=settings.visibility_timeout_seconds,
        )
        replies: list[tuple[Delivery, ResultMessage]] = []
        for delivery in deliveries:
            try:
                replies.append((delivery, decode_result(delivery.body)))
            except UndecodableMessageError as error:
                self._put_aside(delivery, error.reason)
        if replies:
            outcomes = {reply.job_id: reply.outcome for _, reply in reversed(replies)}
            known = self._arrive(outcomes, via=QUEUE)
            for delivery, reply in replies:
                if reply.job_id not in known:
                    self._keep_unknown(delivery, reply.job_id)
            queue.delete([delivery for delivery, _ in replies])
        return len(deliveries)

    def _put_aside(self, delivery: Delivery, reason: str) -> None:
        log.warning("a message of the result queue is no reply (%s); it becomes a dead letter", reason)
        dead_letter(self._transport.results, self._transport.dead_letters, delivery, reason, id_in(delivery.body))
        with self._counting:
            self.metrics.malformed += 1

    def _keep_unknown(self, delivery: Delivery, job_id: str) -> None:
        log.warning("a reply belongs to no job of this store (%s); it is kept for people to look at", job_id)
        self._store.keep_unknown(delivery.body, job_id=job_id, via=QUEUE, reason=job_reasons.UNKNOWN_JOB)
        with self._counting:
            self.metrics.unknown += 1

    def _arrive(self, outcomes: dict[str, Outcome], *, via: str) -> set[str]:
        known = self._store.receive_many(outcomes, via=via) if outcomes else set()
        with self._counting:
            self.metrics.arrived[via] += len(known)
        return known

    # --- dead letters

    def take_dead_letters(self) -> int:
        """One look into the dead letter queue; how many were taken."""
        queue, settings = self._transport.dead_letters, self._settings
        deliveries = queue.receive(
            most=_MOST,
            wait_seconds=settings.poll_seconds,
            visibility_seconds=settings.visibility_timeout_seconds,
        )
        if not deliveries:
            return 0
        letters = [letter_of(delivery, self._transport) for delivery in deliveries]
        self._fail_jobs(letters)
        self._letters.keep(letters)
        queue.delete(deliveries)
        with self._counting:
            self.metrics.dead_letters.update(letter.reason for letter in letters)
        return len(deliveries)

    def _fail_jobs(self, letters: Sequence[DeadLetter]) -> None:
        """End the jobs of requests. A reply that is none says nothing of its job: the reconciler has the outcome."""
        outcomes: dict[str, Outcome] = {}
        for letter in letters:
            asks = letter.source == self._transport.requests.name and job_reasons.ends_job(letter.reason)
            if letter.job_id is None or not asks:
                continue
            # A copy of a message is received over and over while a worker has the job: that is no word on the job.
            spare = letter.reason == TOO_MANY_RECEIVES
            job = self._store.fail(letter.job_id, reason=letter.reason, spare_held=spare)
            if job is not None and job.outcome is not None:
                outcomes[job.job_id] = job.outcome
        self._arrive(outcomes, via=DEAD)

    # --- reconciling

    def reconcile(self) -> int:
        """One look for what was lost; how many jobs were concerned."""
        mine: _Mine = {"queue": self._transport.requests.name, "most": _MOST_RECONCILED}
        expired = self._store.expire(**mine)
        self._arrive(_outcomes(expired), via=EXPIRY)
        late = self._store.unpublished(older_than_seconds=self._settings.deliver_after_seconds, **mine)
        self._arrive(_outcomes(late), via=RECONCILER)
        resent = self._resend(mine)
        with self._counting:
            self.metrics.expired += len(expired)
            self.metrics.resent += resent
        return len(expired) + len(late) + resent + self._prune(mine)

    def _resend(self, mine: _Mine) -> int:
        span = self._settings.resend_after_seconds
        look = partial(self._store.unsent, **mine)
        never = [job for job in look(older_than_seconds=min(_NEVER_SENT_SECONDS, span)) if not job.sent]
        overdue = {job.job_id: job for job in look(older_than_seconds=span)}
        queued = self._transport.requests.depth() if overdue else 0
        forgotten = look(older_than_seconds=FORGOTTEN * span) if overdue else ()
        lost = {job.job_id: job for job in (*never, *to_resend(list(overdue.values()), queued=queued), *forgotten)}
        return self._send(list(lost.values())) if lost else 0

    def _send(self, jobs: Sequence[Job]) -> int:
        log.info("sending %d requests again that were not begun", len(jobs))
        try:
            sent = self._transport.requests.send(
                [request_message(job, now=self._epoch(), source=_SOURCE) for job in jobs]
            )
        except MessagesRefusedError as error:
            sent = error.sent
            for job_id in error.refused:
                self._refused(job_id)
        self._store.sent(list(sent))
        return len(sent)

    def _refused(self, job_id: str) -> None:
        job = self._store.fail(job_id, reason=job_reasons.REQUEST_REFUSED)
        if job is not None and job.outcome is not None:
            self._arrive({job_id: job.outcome}, via=RECONCILER)

    def _prune(self, mine: _Mine) -> int:
        days = self._settings.keep_days
        if days is None:
            return 0
        gone = self._store.prune(older_than_seconds=days * _DAY_SECONDS, **mine)
        if gone.refs and self._claim_checks is not None:
            self._claim_checks.delete(gone.refs)
        return gone.jobs


def _outcomes(jobs: Sequence[Job]) -> dict[str, Outcome]:
    return {job.job_id: job.outcome for job in jobs if job.outcome is not None}
