"""The worker on a virtual clock: what becomes of a delivery, of a try, and of a worker that is told to stop."""

from __future__ import annotations

import asyncio

import pytest

from airflow_provider_ai.core.job_claims import begun
from airflow_provider_ai.core.job_handling import Ending, EndingKind, HandledJob
from airflow_provider_ai.core.job_ports import OutgoingMessage
from airflow_provider_ai.core.jobs import Job, JobState, NewJob, Outcome, job_id
from airflow_provider_ai.core.messages import decode_result
from airflow_provider_ai.exceptions import (
    KeyAccessError,
    KeyRevokedError,
    KeyUnavailableError,
    StoreUnavailableError,
    UnknownKeyError,
)
from airflow_provider_ai.patterns.dead_letters import SOURCE_QUEUE
from tests.patterns.job_harness import REJECTED, SUBMISSION, Scene, done, later, now, play, retry, taking

SUCCEEDED, FAILED = JobState.SUCCEEDED, JobState.FAILED


def test_every_job_is_handled_once_published_once_and_its_message_deleted() -> None:
    """The flow: claim, handler, complete, publish, delete; the result is what the handler gave."""

    async def main() -> None:
        scene = Scene()
        jobs = scene.submit(300)
        scene.handler.script = taking(0.2)
        scene.start()
        await scene.until(lambda: scene.drained())
        await scene.stop_all()
        assert scene.handler.calls == {job.job_id: 1 for job in jobs}
        assert scene.states() == [SUCCEEDED] * 300
        assert sorted(scene.published()) == sorted((job.job_id, SUCCEEDED, None) for job in jobs)
        assert scene.store.jobs(SUBMISSION)[7].result.inline == b'{"double":14}'  # type: ignore[union-attr]
        assert scene.dead.depth() == 0

    play(main)


def test_whether_it_works_is_known_after_a_look_that_does_not_wait() -> None:
    """It is ready then; later looks wait for messages."""

    async def main() -> None:
        scene = Scene(poll_seconds=5.0)
        worker = scene.start()
        assert not worker.ready
        await scene.until(lambda: len(scene.requests.waits) > 2)
        assert worker.ready
        assert scene.requests.waits[:3] == [0.0, 5.0, 5.0]
        await scene.stop_all()

    play(main)


def test_what_answered_is_recorded_and_told_with_the_result() -> None:
    """Of a job that succeeded; a failure was answered by nothing."""

    async def main() -> None:
        scene = Scene()
        scene.handler.script = lambda job: REJECTED if job.payload["n"] else done(job)
        scene.submit(2)
        scene.start(served_by="risk-1")
        await scene.until(scene.drained)
        await scene.stop_all()
        assert [job.model for job in scene.store.jobs(SUBMISSION)] == ["risk-1", None]
        told = [decode_result(delivery.body).outcome for delivery in scene.results.peek(most=9)]
        assert {(each.state, each.model) for each in told} == {(SUCCEEDED, "risk-1"), (FAILED, None)}

    play(main)


def test_it_handles_and_fetches_only_what_it_has_slots_for() -> None:
    """Never more handlers than slots, and the other messages stay visible to other workers."""

    async def main() -> None:
        scene = Scene(concurrency=5)
        scene.submit(40)
        scene.handler.script = taking(10.0)
        scene.start()
        await asyncio.sleep(5.0)
        assert scene.handler.running == 5
        assert len(scene.requests.peek(most=100)) == 35
        await scene.until(scene.all_final)
        await scene.stop_all()
        assert scene.handler.peak == 5
        assert max(scene.requests.asked) == 5

    assert play(main) == pytest.approx(80.0, abs=3.0)


def test_a_job_reaches_its_handler_with_the_same_key_on_every_attempt() -> None:
    """One job_id, one idempotency key; attempts count from 1."""

    async def main() -> None:
        scene = Scene()
        (job,) = scene.submit(1, expires_at=None)
        scene.handler.script = lambda job: done(job) if job.attempt == 3 else retry()
        scene.start()
        await scene.until(scene.drained)
        await scene.stop_all()
        assert [each.attempt for each in scene.handler.began] == [1, 2, 3]
        assert {each.idempotency_key for each in scene.handler.began} == {job.job_id}
        assert {each.payload["n"] for each in scene.handler.began} == {0}

    play(main)


# --- what becomes of a delivery


def _finished(scene: Scene, job: Job) -> None:
    claim = scene.store.claim(job.job_id, sha256=job.payload.sha256, owner="other", lease_seconds=30, max_attempts=5)
    content = scene.contents.pack(b'"there"', kind="result", job_id=job.job_id)
    outcome = Outcome(state=SUCCEEDED, content=content)
    assert scene.store.complete(job.job_id, owner="other", fence=claim.fence, outcome=outcome) == outcome


def _failed(scene: Scene, job: Job) -> None:
    scene.store.fail(job.job_id, reason="rejected")


def _expired(scene: Scene, job: Job) -> None:
    pass


def _exhausted(scene: Scene, job: Job) -> None:
    for _ in range(5):
        claim = scene.store.claim(
            job.job_id, sha256=job.payload.sha256, owner="other", lease_seconds=30, max_attempts=5
        )
        scene.store.give_back(job.job_id, owner="other", fence=claim.fence, count_attempt=True)


def _cancelled(scene: Scene, job: Job) -> None:
    scene.store.cancel(SUBMISSION)


@pytest.mark.parametrize(
    ("before", "settings", "published", "buried"),
    [
        (_finished, {}, (SUCCEEDED, None), None),                                   # told again, nothing more
        (_failed, {}, (FAILED, "rejected"), "rejected"),                            # a worker may have died in between
        (_expired, {"expires_at": 1.0}, (JobState.EXPIRED, "expired"), None),
        (_exhausted, {}, (FAILED, "attempts_exhausted"), "attempts_exhausted"),
        (_cancelled, {}, None, None),
    ],
)  # fmt: skip
def test_a_job_that_may_not_be_begun_ends_without_its_handler(before, settings, published, buried) -> None:  # type: ignore[no-untyped-def]
    """Each refusal of a claim: what is published, what becomes a dead letter, and the message is gone."""

    async def main() -> None:
        scene = Scene()
        (job,) = scene.submit(1, **settings)
        before(scene, job)
        scene.start()
        await scene.until(scene.drained)
        await scene.stop_all()
        assert not scene.handler.calls
        assert scene.published() == ([] if published is None else [(job.job_id, *published)])
        assert scene.buried() == ([] if buried is None else [(job.job_id, buried)])

    play(main)


def test_a_job_that_another_worker_holds_is_left_until_its_lease_ends() -> None:
    """The message is not deleted, and comes back soon after the lease's end: no sooner, and not much later."""

    async def main() -> None:
        scene = Scene(visibility_timeout_seconds=30)
        (job,) = scene.submit(1)
        scene.store.claim(job.job_id, sha256=job.payload.sha256, owner="dead", lease_seconds=100, max_attempts=5)
        start = now()
        scene.start()
        await scene.until(scene.drained)
        assert 100 <= now() - start <= 103
        await scene.stop_all()
        assert scene.handler.calls == {job.job_id: 1}
        assert scene.handler.began[0].attempt == 2
        assert len(scene.requests.asked) > 10  # it looked for others meanwhile

    play(main)


def test_messages_of_no_job_become_dead_letters_at_once() -> None:
    """Undecodable, unknown and forged ones, each with its reason and where it came from; no job is touched."""

    async def main() -> None:
        scene = Scene()
        (job,) = scene.submit(1, send=False)
        forged = NewJob(job_id=job.job_id, submission=SUBMISSION, position=0, payload=scene.payload(99))
        unknown = NewJob(job_id=job_id("nobody", 0), submission="nobody", position=0, payload=scene.payload(0))
        scene.send(begun(forged), begun(unknown))
        scene.requests.send([OutgoingMessage(key="x", body=b"no message")])
        scene.start()
        await scene.until(scene.drained)
        await scene.stop_all()
        found = dict(scene.buried())
        assert set(found) == {None, job.job_id, unknown.job_id}
        assert found[job.job_id] == "payload_mismatch"
        assert found[unknown.job_id] == "unknown_job"
        letters = scene.dead.peek(most=3)
        assert {letter.attributes[SOURCE_QUEUE] for letter in letters} == {"requests"}
        assert b"no message" in {letter.body for letter in letters}
        assert not scene.handler.calls
        assert not scene.published()
        assert scene.states() == [JobState.PENDING]

    play(main)


def test_a_second_copy_of_a_message_in_hand_is_left_and_then_only_told_again() -> None:
    """Duplicates that arrive while the job is handled: the handler is called once, both messages go."""

    async def main() -> None:
        scene = Scene(visibility_timeout_seconds=3)
        jobs = scene.submit(3)
        scene.send(*jobs)
        scene.handler.script = taking(20.0)
        scene.start()
        scene.start()
        await scene.until(scene.drained)
        await scene.stop_all()
        assert scene.handler.calls == {job.job_id: 1 for job in jobs}
        assert set(scene.published()) == {(job.job_id, SUCCEEDED, None) for job in jobs}

    play(main)


# --- what becomes of a try


@pytest.mark.parametrize(
    ("ending", "calls", "reason"),
    [
        (REJECTED, 1, "rejected"),        # the same again cannot help
        (retry("timeout"), 5, "timeout"),  # until the attempts are used up
        (Ending(kind=EndingKind.RETRY, reason="schema_mismatch"), 5, "schema_mismatch"),
    ],
)  # fmt: skip
def test_a_job_that_fails_is_recorded_published_and_put_aside(ending: Ending, calls: int, reason: str) -> None:
    """The reason is that of the last try, in the store, in the result message and in the dead letter."""

    async def main() -> None:
        scene = Scene()
        (job,) = scene.submit()
        scene.handler.script = lambda job: ending
        scene.start()
        await scene.until(scene.drained)
        await scene.stop_all()
        assert scene.handler.calls[job.job_id] == calls
        assert scene.published() == [(job.job_id, FAILED, reason)]
        assert scene.buried() == [(job.job_id, reason)]
        there = scene.store.job(job.job_id)
        assert there is not None
        assert (there.state, there.reason, there.attempts) == (FAILED, reason, calls)

    play(main)


def test_what_is_not_let_in_does_not_count_and_keeps_its_slot() -> None:
    """429 for ten minutes: no attempt and no delivery is used up, and nothing more is fetched meanwhile."""

    async def main() -> None:
        scene = Scene(concurrency=2, hold_seconds=1000)
        jobs = scene.submit(6)
        start = now()
        scene.handler.script = lambda job: done(job) if now() - start > 600 else later()
        worker = scene.start()
        await asyncio.sleep(500)
        assert len(scene.requests.peek(most=10)) == 4
        await scene.until(scene.drained)
        await scene.stop_all()
        assert {job.attempts for job in scene.store.jobs(SUBMISSION)} == {1}
        assert worker.metrics.redeliveries == 0
        assert sum(scene.handler.calls.values()) < 6 + 2 * 60  # it does not hammer
        assert len(scene.published()) == len(jobs)

    play(main)


def test_the_endpoints_own_word_for_how_long_is_heeded() -> None:
    """Retry-After is waited for, with the job in hand."""

    async def main() -> None:
        scene = Scene()
        scene.submit()
        start = now()
        scene.handler.script = lambda job: done(job) if now() > start + 1 else later(seconds=90.0)
        scene.start()
        await scene.until(scene.drained)
        assert 90 <= now() - start < 92
        await scene.stop_all()

    play(main)


def test_a_job_that_is_not_let_in_for_too_long_goes_back_uncounted() -> None:
    """After hold_seconds another worker may try; in the end it is done, as its first attempt."""

    async def main() -> None:
        scene = Scene(hold_seconds=20)
        (job,) = scene.submit()
        start = now()
        scene.handler.script = lambda job: done(job) if now() - start > 200 else later("connect")
        worker = scene.start()
        await scene.until(scene.drained)
        await scene.stop_all()
        assert worker.metrics.given_back >= 2
        there = scene.store.job(job.job_id)
        assert there is not None
        assert (there.state, there.attempts) == (SUCCEEDED, 1)

    play(main)


def test_a_job_whose_time_runs_out_while_it_is_not_let_in_expires() -> None:
    """It is not tried any more, and recorded as what it is."""

    async def main() -> None:
        scene = Scene()
        (job,) = scene.submit(expires_at=1_700_000_000.0 + now() + 30)
        start = now()
        scene.handler.script = lambda job: later(seconds=7.0)
        scene.start()
        await scene.until(scene.drained)
        assert 30 <= now() - start < 33
        await scene.stop_all()
        assert scene.published() == [(job.job_id, JobState.EXPIRED, "expired")]

    play(main)


def test_a_handler_that_hangs_ends_at_the_deadline_and_counts() -> None:
    """Also one that does not stop when it is cancelled: it is left behind, and the job goes on without it."""

    async def main() -> None:
        scene = Scene(deadline_seconds=10, max_attempts=2, concurrency=1)

        async def stubborn(job: HandledJob) -> Ending:
            try:
                await asyncio.sleep(1000)
            except asyncio.CancelledError:
                await asyncio.sleep(300)
            return done(job)

        start = now()
        (job, other) = scene.submit(2)
        scene.handler.script = lambda job: stubborn(job) if job.payload["n"] == 0 else done(job)
        worker = scene.start()
        await scene.until(scene.all_final)
        assert now() - start < 40
        await scene.until(scene.drained)
        await scene.stop_all()
        assert worker.metrics.left_behind == 2
        assert set(scene.published()) == {(job.job_id, FAILED, "deadline"), (other.job_id, SUCCEEDED, None)}
        await asyncio.sleep(600)  # what it says in the end changes nothing
        assert scene.states() == [FAILED, SUCCEEDED]

    play(main)


def test_what_a_handler_raises_counts_and_is_not_told() -> None:
    """An exception is a failed attempt; of its text nothing is kept."""

    async def main() -> None:
        scene = Scene(max_attempts=1)
        (job,) = scene.submit()

        def raising(job: HandledJob) -> Ending:
            raise ValueError("Mrs Smith")

        scene.handler.script = raising
        scene.start()
        await scene.until(scene.drained)
        await scene.stop_all()
        assert scene.published() == [(job.job_id, FAILED, "handler_error")]

    play(main)


def test_a_payload_that_is_lost_fails_its_job_in_the_end() -> None:
    """A claim check that leads nowhere is looked for again on every attempt, then the job has failed."""

    async def main() -> None:
        scene = Scene(max_attempts=2)
        (job,) = scene.submit()
        scene.contents.lost = True
        scene.start()
        await scene.until(scene.drained)
        await scene.stop_all()
        assert not scene.handler.calls
        assert scene.published() == [(job.job_id, FAILED, "payload_lost")]

    play(main)


@pytest.mark.parametrize("error", [KeyRevokedError("disabled"), KeyUnavailableError("down"), UnknownKeyError("which")])
def test_without_its_key_a_job_is_left_for_later(error: KeyAccessError) -> None:
    """Nothing is called that could not be kept, and no attempt is counted; once the key is there it is done."""

    async def main() -> None:
        scene = Scene(max_attempts=2)
        (job,) = scene.submit()
        scene.contents.error = error
        scene.start()
        await asyncio.sleep(600)
        assert not scene.handler.calls
        assert scene.published() == []
        there = scene.store.job(job.job_id)
        assert there is not None
        assert (there.state, there.attempts) == (JobState.PENDING, 0)
        scene.contents.error = None
        await scene.until(scene.drained)
        await scene.stop_all()
        assert scene.handler.calls == {job.job_id: 1}

    play(main)


def test_a_result_that_is_paid_for_waits_for_the_key() -> None:
    """The key was revoked while the model answered: the answer is kept as soon as it is back, and asked for once."""

    async def main() -> None:
        scene = Scene()
        (job,) = scene.submit()

        def revoked(_: HandledJob) -> Ending:
            scene.contents.error = KeyRevokedError("disabled")
            return Ending(kind=EndingKind.DONE, output=b"1")

        scene.handler.script = revoked
        scene.start(small_bytes=100)  # as small ones are packed, without a thread
        await asyncio.sleep(300)
        assert scene.published() == []
        scene.contents.error = None
        await scene.until(scene.drained)
        await scene.stop_all()
        assert scene.handler.calls == {job.job_id: 1}
        assert [found[:2] for found in scene.published()] == [(job.job_id, SUCCEEDED)]

    play(main)


# --- heartbeats and leases


def test_work_that_takes_longer_than_the_lease_is_kept_by_heartbeats() -> None:
    """A job of ten minutes under a lease of half a minute: one handler, one delivery, no second worker."""

    async def main() -> None:
        scene = Scene(deadline_seconds=1000, visibility_timeout_seconds=30)
        jobs = scene.submit(8)
        scene.handler.script = taking(600.0)
        workers = [scene.start(), scene.start()]
        await scene.until(scene.drained)
        await scene.stop_all()
        assert scene.handler.calls == {job.job_id: 1 for job in jobs}
        assert sum(worker.metrics.redeliveries for worker in workers) == 0
        assert len(scene.published()) == 8

    play(main)


def test_a_worker_that_lost_its_lease_stops_and_changes_nothing() -> None:
    """Cut off from the store past its lease, its handler is cancelled; the other worker's result stands."""

    async def main() -> None:
        scene = Scene(visibility_timeout_seconds=10, deadline_seconds=1000)
        (job,) = scene.submit()
        scene.handler.script = taking(300.0)
        zombie = scene.start(store=_CutOff(scene.store, since=now() + 1, until=now() + 60))
        await asyncio.sleep(2)
        second = type(scene.handler)(taking(200.0))
        scene.start(second)
        scene.send(job)
        await scene.until(lambda: zombie.metrics.lease_losses)
        await asyncio.sleep(0.1)
        assert scene.handler.cancelled == {job.job_id: 1}
        await scene.until(scene.drained)
        await scene.stop_all()
        assert second.ended == {job.job_id: 1}
        assert set(scene.published()) == {(job.job_id, SUCCEEDED, None)}
        there = scene.store.job(job.job_id)
        assert there is not None
        assert there.attempts == 2

    play(main)


def test_a_zombie_that_finishes_after_another_has_taken_over_overwrites_nothing() -> None:
    """Its completion is refused by the fence; the job's result is the one of who holds it."""

    async def main() -> None:
        scene = Scene(visibility_timeout_seconds=10, deadline_seconds=1000)
        (job,) = scene.submit()

        def saying(word: str) -> type[Ending] | Ending:
            return Ending(kind=EndingKind.DONE, output=b'"%s"' % word.encode())

        scene.handler.script = taking(40.0, lambda job: saying("zombie"))  # type: ignore[arg-type,return-value]
        scene.start(store=_CutOff(scene.store, since=now() + 1, until=now() + 39))
        await asyncio.sleep(2)
        second = type(scene.handler)(taking(60.0, lambda job: saying("second")))  # type: ignore[arg-type,return-value]
        scene.start(second)
        scene.send(job)
        await scene.until(scene.drained)
        await scene.stop_all()
        there = scene.store.job(job.job_id)
        assert there is not None
        assert there.result is not None
        assert there.result.inline == b'"second"'
        assert set(scene.published()) == {(job.job_id, SUCCEEDED, None)}

    play(main)


class _CutOff:
    """A store that one worker cannot reach for a while."""

    def __init__(self, store: object, *, since: float, until: float) -> None:
        self._store = store
        self._since, self._until = since, until

    def __getattr__(self, name: str) -> object:
        def call(*args: object, **settings: object) -> object:
            if self._since <= now() < self._until:
                raise StoreUnavailableError("cut off")
            return getattr(self._store, name)(*args, **settings)

        return call


# --- stopping


def test_a_worker_that_is_stopped_finishes_what_it_can_in_its_grace() -> None:
    """It fetches nothing more, and returns as soon as its jobs are done."""

    async def main() -> None:
        scene = Scene(grace_seconds=20, concurrency=4)
        scene.submit(10)
        scene.handler.script = taking(5.0)
        worker = scene.start()
        await asyncio.sleep(1.0)
        start = now()
        await scene.stop(worker)
        assert now() - start == pytest.approx(4.0, abs=0.5)
        assert scene.states().count(SUCCEEDED) == 4
        assert len(scene.published()) == 4
        assert len(scene.requests.peek(most=10)) == 6
        assert not worker.ready

    play(main)


def test_what_is_not_finished_in_the_grace_is_given_back_at_once_and_uncounted() -> None:
    """The handler is cancelled, the job is pending with no attempt used up, and its message visible."""

    async def main() -> None:
        scene = Scene(grace_seconds=8, concurrency=4, deadline_seconds=1000)
        jobs = scene.submit(4)
        scene.handler.script = taking(500.0)
        worker = scene.start()
        await asyncio.sleep(1.0)
        start = now()
        await scene.stop(worker)
        assert now() - start <= 8
        assert scene.handler.cancelled == {job.job_id: 1 for job in jobs}
        assert {(job.state, job.attempts) for job in scene.store.jobs(SUBMISSION)} == {(JobState.PENDING, 0)}
        assert len(scene.requests.peek(most=10)) == 4
        scene.handler.script = done
        scene.start()
        await scene.until(scene.drained)
        await scene.stop_all()
        assert scene.states() == [SUCCEEDED] * 4

    play(main)


def test_jobs_that_wait_for_the_endpoint_are_given_back_at_once() -> None:
    """Nobody waits out a grace for what is not under way."""

    async def main() -> None:
        scene = Scene(grace_seconds=60)
        scene.submit(4)
        scene.handler.script = lambda job: later(seconds=1000.0)
        worker = scene.start()
        await asyncio.sleep(5.0)
        start = now()
        await scene.stop(worker)
        assert now() - start < 1
        assert len(scene.requests.peek(most=10)) == 4
        assert {job.attempts for job in scene.store.jobs(SUBMISSION)} == {0}

    play(main)


# --- outages


@pytest.mark.parametrize("part", ["store", "requests", "results", "dead"])
def test_an_outage_of_ten_seconds_loses_nothing_and_is_over_in_seconds(part: str) -> None:
    """Every job is handled once and published, soon after the part is back."""

    async def main() -> None:
        scene = Scene(concurrency=8, visibility_timeout_seconds=30)
        jobs = scene.submit(200)
        scene.handler.script = taking(0.5, lambda job: REJECTED if job.payload["n"] % 50 == 0 else done(job))
        workers = [scene.start(), scene.start()]
        await asyncio.sleep(2.0)
        assert all(worker.ready for worker in workers)
        getattr(scene, part).available = False
        await asyncio.sleep(10.0)
        if part in ("store", "requests"):
            assert not any(worker.ready for worker in workers)
        getattr(scene, part).available = True
        back = now()
        before = sum(scene.handler.ended.values())
        await scene.until(lambda: sum(scene.handler.ended.values()) > before or scene.all_final())
        assert now() - back < 4
        await scene.until(scene.drained)
        await scene.stop_all()
        assert scene.handler.calls == {job.job_id: 1 for job in jobs}
        assert len(scene.published()) == 200
        assert len(scene.buried()) == 4

    play(main)


# --- webhooks and heartbeats in detail


def test_results_of_jobs_that_ask_for_it_go_to_the_webhook_too() -> None:
    """The same message, after it is in the result queue; of other jobs nothing."""

    async def main() -> None:
        scene = Scene()
        (asking,) = scene.submit(1, webhook=True)
        scene.submit(1, first=1)
        delivered: dict[str, bytes] = {}

        class Webhook:
            def deliver(self, job_id: str, body: bytes) -> None:
                assert job_id in {name for name, _, _ in scene.published()}
                delivered[job_id] = body

        scene.start(webhook=Webhook())
        await scene.until(scene.drained)
        await scene.stop_all()
        assert set(delivered) == {asking.job_id}
        assert delivered[asking.job_id] in {each.body for each in scene.results.peek(most=9)}

    play(main)


def test_jobs_that_end_while_a_beat_is_under_way_are_no_lost_leases() -> None:
    """Many short jobs over many beats: nothing is lost, nothing is cancelled."""

    async def main() -> None:
        scene = Scene(concurrency=64, visibility_timeout_seconds=1)
        scene.submit(2000)
        scene.handler.script = taking(0.3)
        worker = scene.start()
        await scene.until(scene.drained)
        await scene.stop_all()
        assert worker.metrics.lease_losses == 0
        assert not scene.handler.cancelled
        assert set(scene.handler.calls.values()) == {1}

    play(main)


# --- jobs that kill their worker


@pytest.mark.parametrize("max_attempts", [2, 3, 5])
def test_a_job_that_kills_its_worker_takes_no_other_with_it(max_attempts: int) -> None:
    """What was in flight comes back together with it, and would die with it each time: so twice is enough."""

    async def main() -> None:
        scene = Scene(concurrency=4, max_attempts=max_attempts, visibility_timeout_seconds=30)
        jobs = scene.submit(12)
        deaths = 0
        dead = asyncio.Event()

        async def script(job: HandledJob) -> Ending:
            if job.payload["n"] == 2:
                dead.set()
                await asyncio.sleep(3600)
            await asyncio.sleep(1)
            return done(job)

        scene.handler.script = script
        while not scene.all_final():
            worker = scene.start()
            dead.clear()
            await scene.until(lambda: dead.is_set() or scene.all_final())
            deaths += dead.is_set()
            await scene.kill(worker)
        assert deaths == max_attempts
        failed = [job.job_id for job in scene.store.jobs(SUBMISSION) if job.state is FAILED]
        assert failed == [jobs[2].job_id]

    play(main)


def test_suspects_are_done_one_after_the_other_and_others_beside_them() -> None:
    """They keep no lease while they wait, and use up no attempt."""

    async def main() -> None:
        scene = Scene(concurrency=4, visibility_timeout_seconds=30)
        jobs = scene.submit(6, send=False)
        suspects = {job.job_id for job in jobs[:3]}
        for _ in range(2):
            for job in jobs[:3]:
                scene.store.claim(job.job_id, sha256=job.payload.sha256, owner="dead", lease_seconds=1, max_attempts=5)
            await asyncio.sleep(1)
        beside: list[tuple[int, int]] = []

        async def script(job: HandledJob) -> Ending:
            await asyncio.sleep(40)
            held = {job.job_id for job in scene.store.jobs(SUBMISSION) if job.state is JobState.RUNNING}
            beside.append((len(held & suspects), len(held)))
            return done(job)

        scene.handler.script = script
        scene.send(*jobs)
        scene.start()
        await scene.until(scene.drained)
        await scene.stop_all()
        assert {number for number, _ in beside} == {1}
        assert max(number for _, number in beside) == 3
        assert [job.attempts for job in scene.store.jobs(SUBMISSION)] == [3, 3, 3, 1, 1, 1]
        assert scene.states() == [SUCCEEDED] * 6

    play(main)


def test_suspects_that_wait_are_given_back_when_the_worker_stops() -> None:
    """They have no attempt less, and their messages are visible."""

    async def main() -> None:
        scene = Scene(concurrency=4, visibility_timeout_seconds=30, grace_seconds=8)
        jobs = scene.submit(3, send=False)
        for _ in range(2):
            for job in jobs:
                scene.store.claim(job.job_id, sha256=job.payload.sha256, owner="dead", lease_seconds=1, max_attempts=5)
            await asyncio.sleep(1)
        scene.handler.script = taking(3)
        scene.send(*jobs)
        worker = scene.start()
        await scene.until(lambda: scene.handler.running)
        await scene.stop(worker)
        assert sorted(state.value for state in scene.states()) == ["pending", "pending", "succeeded"]
        assert len(scene.requests.peek(most=9)) == 2

    play(main)
