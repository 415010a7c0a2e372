"""The dispatcher, one round at a time, and its threads: replies, dead letters, and what was lost."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from airflow_provider_ai.core.job_claims import begun
from airflow_provider_ai.core.job_messages import request_message
from airflow_provider_ai.core.job_ports import Delivery, OutgoingMessage, Transport
from airflow_provider_ai.core.job_settings import DispatcherSettings
from airflow_provider_ai.core.jobs import Content, Job, JobState, NewJob, Outcome, job_id
from airflow_provider_ai.core.messages import ResultMessage, decode_request, encode_result
from airflow_provider_ai.exceptions import StoreUnavailableError
from airflow_provider_ai.patterns.dead_letters import REASON, SOURCE_QUEUE, dead_letter
from airflow_provider_ai.patterns.dispatcher import Dispatcher
from airflow_provider_ai.testing import InMemoryClaimChecks, InMemoryQueue, InMemoryStore
from tests.support.processes import wait_until

SUBMISSION = "submission"
SETTINGS = DispatcherSettings(
    poll_seconds=0.01, resend_after_seconds=900, deliver_after_seconds=30, keep_days=10, reconcile_seconds=0.05
)


class Clock:
    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


class Desk:
    """A dispatcher with everything around it in memory, on a clock of the test's."""

    def __init__(self, **settings: Any) -> None:
        self.clock = Clock()
        self.all = InMemoryStore(clock=self.clock)
        self.store = self.all.jobs()
        self.letters = self.all.dead_letters()
        self.requests, self.results, self.dead = (
            InMemoryQueue(name, clock=self.clock) for name in ("requests", "results", "dead")
        )
        self.claims = InMemoryClaimChecks()
        self.transport = Transport(requests=self.requests, results=self.results, dead_letters=self.dead)
        self.dispatcher = self.another()

    def another(self) -> Dispatcher:
        return Dispatcher(
            store=self.store,
            dead_letters=self.letters,
            transport=self.transport,
            settings=SETTINGS,
            epoch=self.clock,
            random=random.Random(7).random,
            claim_checks=self.claims,
        )

    def submit(self, number: int = 1, *, sent: bool = True, **more: Any) -> list[Job]:
        new = [
            NewJob(job_id=job_id(SUBMISSION, n), submission=SUBMISSION, position=n, payload=content(b"%d" % n), **more)
            for n in range(number)
        ]
        self.store.submit(new)
        if sent:
            self.store.sent([job.job_id for job in new])
        return list(self.store.jobs(SUBMISSION, most=100_000))

    def reply(self, name: str, outcome: Outcome) -> None:
        message = ResultMessage(job_id=name, source="/test", time=self.clock(), fence=1, outcome=outcome)
        self.results.send([OutgoingMessage(key=name, body=encode_result(message))])

    def request(self, job: Job) -> Delivery:
        """The request of a job, received."""
        self.requests.send([request_message(job, now=self.clock())])
        (delivery,) = self.requests.receive(most=1, wait_seconds=0, visibility_seconds=60)
        return delivery

    def bury(self, job: Job, reason: str) -> None:
        dead_letter(self.requests, self.dead, self.request(job), reason, job.job_id)

    def arrivals(self) -> dict[str, Outcome]:
        return {arrival.job_id: arrival.outcome for arrival in self.store.arrivals(SUBMISSION, most=100_000)}

    def requested(self) -> list[str]:
        return [decode_request(each.body).job_id for each in self.requests.peek(most=100_000)]


def content(data: bytes) -> Content:
    import hashlib

    return Content(sha256=hashlib.sha256(data).hexdigest(), inline=data)


def done(data: bytes = b'{"a":1}') -> Outcome:
    return Outcome(state=JobState.SUCCEEDED, content=content(data))


@pytest.fixture
def desk() -> Iterator[Desk]:
    made = Desk()
    yield made
    assert made.dispatcher.stop(timeout_seconds=10)


# --- results


def test_replies_arrive_once_and_are_deleted(desk: Desk) -> None:
    """Repetitions change nothing, the first one stays; the queue is empty only then."""
    jobs = desk.submit(250)
    for job in jobs:
        desk.reply(job.job_id, done(b"%d" % job.position))
        desk.reply(job.job_id, done(b"%d" % job.position))
    while desk.dispatcher.take_results():
        pass
    assert desk.results.depth() == 0
    assert desk.arrivals() == {job.job_id: done(b"%d" % job.position) for job in jobs}
    assert desk.store.counts([SUBMISSION])[SUBMISSION].completed == 250


def test_a_reply_is_not_deleted_before_it_is_in_the_inbox(desk: Desk) -> None:
    """The store fails: the message stays and comes again."""
    (job,) = desk.submit()
    desk.reply(job.job_id, done())
    desk.all.available = False
    with pytest.raises(StoreUnavailableError):
        desk.dispatcher.take_results()
    assert desk.results.depth() == 1
    desk.all.available = True
    desk.clock.now += 61
    assert desk.dispatcher.take_results() == 1
    assert desk.arrivals() == {job.job_id: done()}


def test_a_reply_of_no_job_is_kept_aside(desk: Desk) -> None:
    """Whole, with the id it names; the others of its batch arrive."""
    (job,) = desk.submit()
    desk.reply(job_id("nobody", 0), done())
    desk.reply(job.job_id, done())
    desk.dispatcher.take_results()
    (unknown,) = desk.store.unknown.values()
    assert (unknown.job_id, unknown.reason) == (job_id("nobody", 0), "unknown_job")
    assert b"ai.job.result" in unknown.message
    assert desk.arrivals() == {job.job_id: done()}
    assert (desk.results.depth(), desk.dispatcher.metrics.unknown) == (0, 1)


def test_a_message_that_is_no_reply_becomes_a_dead_letter_of_its_queue(desk: Desk) -> None:
    """Also a request that strayed there; no job ends by it."""
    (job,) = desk.submit()
    desk.results.send([OutgoingMessage(key="x", body=b"{}"), request_message(job, now=0.0)])
    desk.dispatcher.take_results()
    assert desk.results.depth() == 0
    found = desk.dead.peek(most=9)
    assert {each.attributes[REASON] for each in found} == {"not_an_event", "wrong_type"}
    assert {each.attributes[SOURCE_QUEUE] for each in found} == {"results"}
    desk.dispatcher.take_dead_letters()
    assert len(desk.letters.letters(most=9)) == 2
    assert desk.store.job(job.job_id).state is JobState.PENDING  # type: ignore[union-attr]


# --- dead letters


def test_a_dead_letter_ends_its_job_at_once_and_is_kept(desk: Desk) -> None:
    """Whoever waits sees the reason; the letter is in the store, with its message, and out of the queue."""
    jobs = desk.submit(2)
    desk.bury(jobs[1], "timeout")
    assert desk.dispatcher.take_dead_letters() == 1
    assert desk.arrivals() == {jobs[1].job_id: Outcome(state=JobState.FAILED, reason="timeout")}
    (letter,) = desk.letters.letters(most=9)
    assert (letter.job_id, letter.reason, letter.source) == (jobs[1].job_id, "timeout", "requests")
    assert decode_request(letter.message).job_id == jobs[1].job_id
    assert desk.dead.depth() == 0


def test_what_the_queue_itself_put_aside_ends_its_job_too(desk: Desk) -> None:
    """By its redrive policy, with no word from us."""
    (job,) = desk.submit()
    desk.dead.send([request_message(job, now=0.0)])
    desk.dispatcher.take_dead_letters()
    assert desk.arrivals() == {job.job_id: Outcome(state=JobState.FAILED, reason="too_many_receives")}


def test_a_copy_that_the_queue_put_aside_leaves_a_job_in_good_hands_alone(desk: Desk) -> None:
    """It was received again and again because a worker has the job for long; what we put aside ends it all the same."""
    jobs = desk.submit(2)
    for job in jobs:
        desk.store.claim(job.job_id, sha256=job.payload.sha256, owner="w", lease_seconds=30, max_attempts=5)
    desk.dead.send([request_message(jobs[0], now=0.0)])
    desk.bury(jobs[1], "rejected")
    desk.dispatcher.take_dead_letters()
    assert desk.arrivals() == {jobs[1].job_id: Outcome(state=JobState.FAILED, reason="rejected")}
    assert desk.store.job(jobs[0].job_id).state is JobState.RUNNING  # type: ignore[union-attr]
    assert len(desk.letters.letters(most=9)) == 2


def test_a_dead_letter_of_a_job_that_has_ended_changes_nothing_of_it(desk: Desk) -> None:
    """What is recorded is what arrives."""
    (job,) = desk.submit()
    claim = desk.store.claim(job.job_id, sha256=job.payload.sha256, owner="w", lease_seconds=30, max_attempts=5)
    desk.store.complete(job.job_id, owner="w", fence=claim.fence, outcome=done())
    desk.bury(job, "too_many_receives")
    desk.dispatcher.take_dead_letters()
    assert desk.arrivals() == {job.job_id: done()}


@pytest.mark.parametrize("reason", ["payload_mismatch", "unknown_job", "wrong_hash"])
def test_a_message_that_was_not_the_jobs_own_ends_nothing(desk: Desk, reason: str) -> None:
    """It is kept for people, and the job goes on."""
    (job,) = desk.submit()
    desk.bury(job, reason)
    desk.dispatcher.take_dead_letters()
    assert desk.arrivals() == {}
    assert [letter.reason for letter in desk.letters.letters(most=9)] == [reason]


def test_a_dead_letter_that_comes_twice_is_kept_once(desk: Desk) -> None:
    """A dispatcher that dies before it deletes has another one do the same again."""
    (job,) = desk.submit()
    delivery = desk.request(job)
    for _ in range(2):
        dead_letter(desk.requests, desk.dead, delivery, "timeout", job.job_id)
        desk.dispatcher.take_dead_letters()
    assert len(desk.letters.letters(most=9)) == 1


# --- reconciling


def test_a_request_that_was_never_sent_is_sent_soon(desk: Desk) -> None:
    """A submitter that died between the row and the message; a minute is enough."""
    (job,) = desk.submit(sent=False)
    desk.clock.now += 30
    desk.dispatcher.reconcile()
    assert desk.requested() == []
    desk.clock.now += 31
    desk.dispatcher.reconcile()
    assert desk.requested() == [job.job_id]
    desk.dispatcher.reconcile()
    assert desk.requested() == [job.job_id]


def test_a_request_that_was_lost_is_sent_again_but_not_into_a_full_queue(desk: Desk) -> None:
    """While the queue holds as many messages they may be in it; much later they are sent all the same."""
    jobs = desk.submit(3)
    desk.requests.send([request_message(job, now=0.0) for job in jobs])
    desk.clock.now += 901
    desk.dispatcher.reconcile()
    assert len(desk.requested()) == 3
    desk.requests.delete(desk.requests.receive(most=1, wait_seconds=0, visibility_seconds=0))
    desk.dispatcher.reconcile()
    assert len(desk.requested()) == 5
    desk.clock.now += 4 * 900 + 1
    desk.dispatcher.reconcile()
    assert len(desk.requested()) == 8


def test_deployments_that_share_a_store_leave_each_others_jobs_alone(desk: Desk) -> None:
    """Lost, late and old jobs of another request queue are its own dispatcher's; a message of this one is no help."""
    desk.submit(3, sent=False, queue="requests-of-others")
    desk.store.fail(job_id(SUBMISSION, 1), reason="rejected")
    desk.store.receive(job_id(SUBMISSION, 2), done(), via="test")
    desk.clock.now += 11 * 86_400
    desk.dispatcher.reconcile()
    assert desk.requested() == []
    assert [job.sent for job in desk.store.jobs(SUBMISSION)] == [False] * 3
    assert set(desk.arrivals()) == {job_id(SUBMISSION, 2)}


def test_jobs_whose_time_is_over_arrive_as_expired(desk: Desk) -> None:
    """Nobody has to deliver their message for that."""
    (job,) = desk.submit(expires_at=desk.clock.now + 100)
    desk.clock.now += 101
    desk.dispatcher.reconcile()
    assert desk.arrivals() == {job.job_id: Outcome(state=JobState.EXPIRED, reason="expired")}
    assert desk.requested() == []


def test_an_outcome_whose_reply_was_lost_arrives_from_the_store(desk: Desk) -> None:
    """After a while: the reply may still be on its way."""
    (job,) = desk.submit()
    claim = desk.store.claim(job.job_id, sha256=job.payload.sha256, owner="w", lease_seconds=30, max_attempts=5)
    desk.store.complete(job.job_id, owner="w", fence=claim.fence, outcome=done())
    desk.dispatcher.reconcile()
    assert desk.arrivals() == {}
    desk.clock.now += 31
    desk.dispatcher.reconcile()
    assert desk.arrivals() == {job.job_id: done()}


def test_a_request_that_the_queue_never_takes_ends_its_job(desk: Desk) -> None:
    """Instead of being sent in vain for ever."""
    desk.requests = desk.transport.requests
    small = InMemoryQueue("requests", clock=desk.clock, largest_bytes=10)
    object.__setattr__(desk.transport, "requests", small)
    (job,) = desk.submit(sent=False)
    desk.clock.now += 61
    desk.dispatcher.reconcile()
    assert desk.arrivals() == {job.job_id: Outcome(state=JobState.FAILED, reason="request_refused")}


def test_old_jobs_go_with_their_claim_checks(desk: Desk) -> None:
    """When that is asked for, and only then."""
    ref = desk.claims.put("payload/x", b"large")
    job = NewJob(
        job_id=job_id(SUBMISSION, 0),
        submission=SUBMISSION,
        position=0,
        payload=Content(sha256="0" * 64, ref=ref),
    )
    desk.store.submit([job])
    desk.reply(job.job_id, done())
    desk.dispatcher.take_results()
    desk.clock.now += 9 * 86_400
    desk.dispatcher.reconcile()
    assert desk.claims.objects
    desk.clock.now += 2 * 86_400
    desk.dispatcher.reconcile()
    assert desk.store.job(job.job_id) is None
    assert not desk.claims.objects
    assert begun(job).payload.ref == ref


# --- threads


def test_any_number_of_dispatchers_bring_every_reply_once(desk: Desk) -> None:
    """Three at once, over a store that is down in between: none lost, none twice, and they end when told to."""
    before = set(threading.enumerate())
    jobs = desk.submit(500)
    others = [desk.another() for _ in range(2)]
    for dispatcher in (desk.dispatcher, *others):
        dispatcher.start()
    for job in jobs[:250]:
        desk.reply(job.job_id, done(b"%d" % job.position))
    wait_until(lambda: len(desk.arrivals()) > 50, deadline_seconds=20, what="some have arrived")
    desk.all.available = False
    wait_until(lambda: not desk.dispatcher.ready, deadline_seconds=20, what="it notices")
    for job in jobs[250:]:
        desk.reply(job.job_id, done(b"%d" % job.position))
    desk.all.available = True

    def all_there() -> bool:
        desk.clock.now += 5  # what was in hand shows up again
        return len(desk.arrivals()) == 500

    wait_until(all_there, deadline_seconds=20, what="all have arrived")
    assert desk.arrivals() == {job.job_id: done(b"%d" % job.position) for job in jobs}
    wait_until(lambda: desk.dispatcher.ready, deadline_seconds=20, what="it works again")
    assert desk.dispatcher.alive
    assert all(dispatcher.stop(timeout_seconds=10) for dispatcher in (desk.dispatcher, *others))
    begun = set(threading.enumerate()) - before
    assert not any(thread.name.startswith("ai-dispatcher") for thread in begun)


def test_a_defect_ends_no_thread(desk: Desk) -> None:
    """It is logged without its text, and the next round goes on."""
    (job,) = desk.submit()
    failures = iter([ValueError("Mrs Smith")])
    receive = desk.results.receive

    def sometimes(**settings: Any) -> Any:
        for failure in failures:
            raise failure
        return receive(**settings)

    desk.results.receive = sometimes  # type: ignore[method-assign]
    desk.reply(job.job_id, done())
    desk.dispatcher.start()
    wait_until(lambda: desk.arrivals() != {}, deadline_seconds=20, what="it goes on")
