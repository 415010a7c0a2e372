"""One contract for the inbox of every store, and for its fake: what arrives, what is missing, and what is removed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from airflow_provider_ai.adapters.store.store import Store
from airflow_provider_ai.core.job_ports import Arrival, Ended, JobStore, Pruned
from airflow_provider_ai.core.jobs import Content, JobCounts, JobState, Outcome
from airflow_provider_ai.testing import InMemoryStore
from tests.adapters.store.conftest import TestClock
from tests.adapters.store.jobs import FAILED, SUBMISSION, claim, done, finish, granted, new_job, new_jobs


@pytest.fixture
def jobs(store: Store | InMemoryStore) -> JobStore:
    return store.jobs()


def ids(found: object) -> list[str]:
    return [job.job_id for job in found]  # type: ignore[attr-defined]


# --- receive


def test_an_outcome_arrives_once(jobs: JobStore, clock: TestClock) -> None:
    """However often it is delivered, and whatever is delivered later."""
    job = new_job(7)
    jobs.submit([job])
    finish(jobs, job)
    clock.now += 5
    arrived_at = clock.now
    for outcome in (done(), done(), FAILED):
        assert jobs.receive(job.job_id, outcome, via="queue")
        clock.now += 5
        [arrival] = jobs.arrivals(SUBMISSION)
        assert arrival == Arrival(job_id=job.job_id, outcome=done(), position=7, arrived_at=arrived_at)


def test_the_recorded_outcome_is_the_one_that_arrives(jobs: JobStore) -> None:
    """A reply that says something else cannot change what was recorded first."""
    job = new_job()
    jobs.submit([job])
    finish(jobs, job)
    assert jobs.receive(job.job_id, FAILED, via="webhook")
    assert jobs.arrivals(SUBMISSION)[0].outcome == done()


@pytest.mark.parametrize("begun", [False, True])
def test_an_outcome_from_elsewhere_ends_its_job(jobs: JobStore, begun: bool) -> None:
    """A worker without this store has done it; whoever has begun it here is told so."""
    job = new_job()
    jobs.submit([job])
    fence = granted(jobs, job) if begun else 0
    result = Outcome(state=JobState.SUCCEEDED, content=Content(sha256="1" * 64, ref="s3://claims/x", codec="other"))
    assert jobs.receive(job.job_id, result, via="webhook")
    assert jobs.arrivals(SUBMISSION)[0].outcome == result
    found = claim(jobs, job, "w2").job
    assert found is not None
    assert found.outcome == result
    assert jobs.complete(job.job_id, owner="w1", fence=fence, outcome=done()) == result


def test_a_batch_of_replies(jobs: JobStore) -> None:
    """Known ones arrive, unknown ones are named by their absence."""
    wanted = new_jobs(5)
    jobs.submit(wanted)
    outcomes = {job.job_id: finish(jobs, job) for job in wanted[:3]}
    known = jobs.receive_many({**outcomes, "unknown": done()}, via="queue")
    assert known == set(outcomes)
    assert [arrival.position for arrival in jobs.arrivals(SUBMISSION)] == [0, 1, 2]
    assert not jobs.receive("unknown", done(), via="queue")


def test_unknown_replies_are_kept(jobs: JobStore) -> None:
    """Without disturbing anything else, however often they come."""
    for _ in range(2):
        jobs.keep_unknown(b"{}", job_id="x", via="queue", reason="unknown")
        jobs.keep_unknown(b"\0\xff", job_id=None, via="webhook", reason="undecodable")


# --- waiters


def test_counts_are_those_of_the_inbox(jobs: JobStore) -> None:
    """A job is final for whoever waits when its outcome is there; before that it is pending, in work or not."""
    wanted = new_jobs(9)
    jobs.submit([*wanted, new_job(0, "other")])
    ends = [done(), done(), FAILED, Outcome(state=JobState.EXPIRED, reason="expired")]
    for job, outcome in zip(wanted, ends, strict=False):
        finish(jobs, job, outcome)
        jobs.receive(job.job_id, outcome, via="queue")
    finish(jobs, wanted[5])
    granted(jobs, wanted[6])
    assert jobs.counts([SUBMISSION, "other", "nobody's"]) == {
        SUBMISSION: JobCounts(jobs=9, completed=2, failed=1, expired=1, cancelled=0, pending=5),
        "other": JobCounts(jobs=1, pending=1),
        "nobody's": JobCounts(),
    }


def test_submissions_that_have_ended(jobs: JobStore, clock: TestClock) -> None:
    """Since a moment, and only when nothing of them is left to wait for."""
    first, second = new_jobs(2)
    jobs.submit([first, second])
    finish(jobs, first)
    jobs.receive(first.job_id, done(), via="queue")
    assert jobs.ended(since=0.0) == {}
    clock.now += 10
    jobs.receive(second.job_id, FAILED, via="queue")
    counts = JobCounts(jobs=2, completed=1, failed=1)
    assert jobs.ended(since=clock.now - 1) == {SUBMISSION: Ended(counts=counts, at=clock.now)}
    assert jobs.ended(since=clock.now) == {}


def test_single_jobs_have_arrived_or_not(jobs: JobStore) -> None:
    """What the worker has recorded does not count before it is in the inbox; of unknown jobs nothing is said."""
    first, second = new_jobs(2)
    jobs.submit([first, second])
    finish(jobs, first)
    assert jobs.arrived([first.job_id, second.job_id, "other"]) == {first.job_id: None, second.job_id: None}
    jobs.receive(first.job_id, done(), via="queue")
    assert jobs.arrived([second.job_id, first.job_id]) == {first.job_id: JobState.SUCCEEDED, second.job_id: None}
    assert jobs.arrived([]) == {}


def test_arrivals_come_in_pages(jobs: JobStore) -> None:
    """In order of position, whatever the order they came in."""
    wanted = new_jobs(6)
    jobs.submit(wanted)
    for job in (wanted[5], wanted[0], wanted[3], wanted[2]):
        jobs.receive(job.job_id, finish(jobs, job), via="queue")
    assert [arrival.position for arrival in jobs.arrivals(SUBMISSION, most=2)] == [0, 2]
    assert [arrival.position for arrival in jobs.arrivals(SUBMISSION, after=2, most=2)] == [3, 5]
    assert jobs.arrivals(SUBMISSION, after=5) == []
    assert jobs.arrivals("other") == []


# --- reconciler


def test_messages_that_are_missing(jobs: JobStore, clock: TestClock) -> None:
    """Never sent, or sent long ago; not of jobs in work, at their end, or out of time. Marked, they are let be."""
    wanted = [new_job(position, expires_at=clock.now + 50 if position == 5 else None) for position in range(6)]
    unsent, sent, running, abandoned, ended, late = wanted
    jobs.submit(wanted)
    clock.now += 30
    jobs.sent([sent.job_id])
    granted(jobs, running, lease=600)
    granted(jobs, abandoned, lease=10)
    finish(jobs, ended)
    assert ids(jobs.unsent(older_than_seconds=20, most=9)) == [unsent.job_id, late.job_id]
    clock.now += 30
    found = jobs.unsent(older_than_seconds=20, most=9)
    assert sorted(ids(found)) == sorted(ids([unsent, sent, abandoned]))
    assert ids(found)[0] == unsent.job_id
    assert ids(jobs.unsent(older_than_seconds=20, most=1)) == [unsent.job_id]
    jobs.sent([unsent.job_id, abandoned.job_id])
    assert ids(jobs.unsent(older_than_seconds=20, most=9)) == [sent.job_id]


def test_outcomes_that_are_missing(jobs: JobStore, clock: TestClock) -> None:
    """Recorded, and not arrived for a while; marked, they are let be. What arrived or was cancelled is not missing."""
    wanted = new_jobs(4)
    completed, failed, arrived, running = wanted
    jobs.submit([*wanted, new_job(0, "other")])
    jobs.cancel("other")
    finish(jobs, completed)
    jobs.receive(arrived.job_id, finish(jobs, arrived), via="queue")
    granted(jobs, running)
    clock.now += 10
    jobs.fail(failed.job_id, reason="dead_letter")
    clock.now += 10
    assert ids(jobs.unpublished(older_than_seconds=15, most=9)) == [completed.job_id]
    clock.now += 10
    assert ids(jobs.unpublished(older_than_seconds=15, most=9)) == [completed.job_id, failed.job_id]
    assert ids(jobs.unpublished(older_than_seconds=15, most=1)) == [completed.job_id]
    jobs.published([completed.job_id, "unknown"])
    [left] = jobs.unpublished(older_than_seconds=15, most=9)
    assert (left.job_id, left.reason) == (failed.job_id, "dead_letter")
    jobs.receive(failed.job_id, FAILED, via="queue")
    assert jobs.unpublished(older_than_seconds=15, most=9) == []


def test_deployments_that_share_a_store(jobs: JobStore, clock: TestClock) -> None:
    """Each looks after its own jobs, and after those that name no deployment."""
    mine, theirs, anyones = (
        [new_job(n, f"s-{queue}", queue=queue, expires_at=clock.now + 90 if n == 2 else None) for n in range(4)]
        for queue in ("mine", "theirs", "")
    )
    for some in (mine, theirs, anyones):
        jobs.submit(some)
        finish(jobs, some[1])
        jobs.receive(some[3].job_id, finish(jobs, some[3]), via="queue")
    clock.now += 60

    def looked_after(position: int) -> set[str]:
        return {mine[position].job_id, anyones[position].job_id}

    unsent = jobs.unsent(older_than_seconds=20, most=99, queue="mine")
    assert set(ids(unsent)) == looked_after(0) | looked_after(2)
    assert [job.queue for job in unsent if job.submission == "s-mine"] == ["mine"] * 2
    assert set(ids(jobs.unpublished(older_than_seconds=20, most=99, queue="mine"))) == looked_after(1)
    clock.now += 60
    assert set(ids(jobs.expire(most=99, queue="mine"))) == looked_after(2)
    assert jobs.prune(older_than_seconds=20, most=99, queue="mine").jobs == 2
    assert [job.position for job in jobs.jobs("s-theirs")] == [0, 1, 2, 3]
    [again] = jobs.redrive([mine[2].job_id])
    assert again.queue == "mine"


def test_submissions_of_deployments_that_share_a_store(jobs: JobStore) -> None:
    """Only one's own have ended for it."""
    for name in ("mine", "theirs"):
        job = new_job(0, f"s-{name}", queue=name)
        jobs.submit([job])
        jobs.receive(job.job_id, finish(jobs, job), via="queue")
    assert set(jobs.ended(since=0.0, queue="mine")) == {"s-mine"}


def test_what_answered_a_job_stays_with_it(jobs: JobStore) -> None:
    """As its worker has said, whatever a reply says later; a reply of a worker without this store says it, too."""
    first, second = new_jobs(2)
    jobs.submit([first, second])
    answered = replace(done(), model="m-1")
    assert finish(jobs, first, answered) == answered
    jobs.receive(first.job_id, replace(done(), model="m-2"), via="queue")
    jobs.receive(second.job_id, replace(done(), model="m-3"), via="queue")
    assert [arrival.outcome.model for arrival in jobs.arrivals(SUBMISSION)] == ["m-1", "m-3"]
    assert [job.model for job in jobs.jobs(SUBMISSION)] == ["m-1", "m-3"]


# --- upkeep


def test_old_jobs_are_removed(jobs: JobStore, clock: TestClock) -> None:
    """Once their outcome arrived that long ago, so many at a time, with the claim checks nobody needs then."""
    payload = Content(sha256="0" * 64, ref="s3://claims/payload")
    result = Outcome(state=JobState.SUCCEEDED, content=Content(sha256="1" * 64, ref="s3://claims/result"))
    large = new_job(0, payload=payload)
    small, pending, unarrived, young = (new_job(position) for position in range(1, 5))
    jobs.submit([large, small, pending, unarrived, young])
    for job, outcome in ((large, result), (small, FAILED)):
        jobs.receive(job.job_id, finish(jobs, job, outcome), via="queue")
    finish(jobs, unarrived)
    clock.now += 100
    jobs.receive(young.job_id, finish(jobs, young), via="queue")
    first, second = (jobs.prune(older_than_seconds=50, most=1) for _ in range(2))
    assert {first.jobs, second.jobs} == {1}
    assert sorted([*first.refs, *second.refs]) == ["s3://claims/payload", "s3://claims/result"]
    assert jobs.prune(older_than_seconds=50, most=9) == Pruned()
    assert ids(jobs.jobs(SUBMISSION)) == ids([pending, unarrived, young])


def test_generations_are_removed_together(jobs: JobStore, clock: TestClock) -> None:
    """An older one alone would be taken for the job; and while the latest is open, none is removed."""
    job = new_job(0, payload=Content(sha256="0" * 64, ref="s3://claims/payload"))
    jobs.submit([job])
    jobs.receive(job.job_id, finish(jobs, job, FAILED), via="queue")
    [again] = jobs.redrive([job.job_id])
    clock.now += 100
    assert jobs.prune(older_than_seconds=50, most=9) == Pruned()
    jobs.fail(again.job_id, reason="again")
    jobs.receive(again.job_id, FAILED, via="queue")
    clock.now += 100
    assert jobs.prune(older_than_seconds=50, most=9) == Pruned(jobs=2, refs=("s3://claims/payload",))
    assert jobs.job(job.job_id) is None
