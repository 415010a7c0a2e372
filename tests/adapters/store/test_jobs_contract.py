"""One contract for the jobs of every store, and for their fake: submissions, leases, fences, and how jobs end."""

from __future__ import annotations

from dataclasses import replace

import pytest

from airflow_provider_ai.adapters.store.store import Store
from airflow_provider_ai.core.job_ports import JobStore
from airflow_provider_ai.core.jobs import ClaimRefusal, Content, Job, JobState, NewJob, Outcome, job_id
from airflow_provider_ai.exceptions import JobMismatchError
from airflow_provider_ai.testing import InMemoryStore
from tests.adapters.store.conftest import TestClock
from tests.adapters.store.jobs import FAILED, SUBMISSION, claim, content, done, finish, granted, new_job, new_jobs


@pytest.fixture
def jobs(store: Store | InMemoryStore) -> JobStore:
    return store.jobs()


@pytest.fixture
def one(jobs: JobStore) -> NewJob:
    """A job that has been submitted."""
    job = new_job()
    jobs.submit([job])
    return job


def state(jobs: JobStore, job: NewJob) -> JobState:
    return there(jobs, job).state


def there(jobs: JobStore, job: NewJob) -> Job:
    found = jobs.job(job.job_id)
    assert found is not None
    return found


# --- submit


def test_a_job_is_kept_as_it_was_submitted(jobs: JobStore, clock: TestClock) -> None:
    """Everything of it, and it is pending."""
    job = new_job(3, expires_at=clock.now + 60.5, group="tenant", webhook=True)
    kept = Job(
        job_id=job.job_id,
        submission=SUBMISSION,
        position=3,
        generation=0,
        state=JobState.PENDING,
        payload=job.payload,
        attempts=0,
        fence=0,
        expires_at=clock.now + 60.5,
        group="tenant",
        webhook=True,
    )
    assert jobs.submit([job]) == [kept]
    assert jobs.job(job.job_id) == kept


@pytest.mark.parametrize(
    "payload",
    [
        content(b""),
        content(b"\0\xff" * 40_000),
        Content(sha256="0" * 64, ref="s3://claims/payload/x", codec="aes-gcm"),
    ],
)
def test_payloads_come_back_as_they_were(jobs: JobStore, payload: Content) -> None:
    """Inline, also empty and binary, or as a claim check."""
    jobs.submit([new_job(payload=payload)])
    assert there(jobs, new_job()).payload == payload


def test_the_second_submission_attaches(jobs: JobStore, one: NewJob) -> None:
    """Whatever has become of the first; what is new is inserted, and the order is that of the request."""
    finish(jobs, one)
    found = jobs.submit([new_job(2), one, new_job(1)])
    assert [(job.position, job.state) for job in found] == [
        (2, JobState.PENDING),
        (0, JobState.SUCCEEDED),
        (1, JobState.PENDING),
    ]
    assert [job.position for job in jobs.jobs(SUBMISSION)] == [0, 1, 2]


def test_another_payload_is_refused(jobs: JobStore, one: NewJob) -> None:
    """With it all that is submitted together: nobody runs a part of it."""
    with pytest.raises(JobMismatchError, match="another payload"):
        jobs.submit([new_job(1), replace(one, payload=content(b"other"))])
    assert there(jobs, one).payload == one.payload
    assert jobs.job(new_job(1).job_id) is None


def test_the_same_job_twice_in_one_submission(jobs: JobStore) -> None:
    """It is one."""
    first, second = jobs.submit([new_job(), new_job()])
    assert first == second
    assert len(jobs.jobs(SUBMISSION)) == 1


def test_nothing_submitted(jobs: JobStore) -> None:
    """Empty batches are no trouble anywhere."""
    assert jobs.submit([]) == []
    jobs.sent([])
    jobs.published([])
    assert jobs.heartbeat({}, owner="w1", lease_seconds=30) == set()
    assert jobs.receive_many({}, via="queue") == set()
    assert jobs.redrive([]) == []
    assert jobs.counts([]) == {}


def test_a_thousand_and_more_at_once(jobs: JobStore) -> None:
    """More than a database takes in one statement; and they are read in pages."""
    wanted = new_jobs(2_500)
    assert [job.position for job in jobs.submit(wanted)] == list(range(2_500))
    jobs.sent([job.job_id for job in wanted])
    page = jobs.jobs(SUBMISSION, most=700)
    pages = [page]
    while page:
        page = jobs.jobs(SUBMISSION, after=page[-1].position, most=700)
        pages.append(page)
    assert [len(page) for page in pages] == [700, 700, 700, 400, 0]
    assert [job.position for page in pages for job in page] == list(range(2_500))
    assert all(job.sent for page in pages for job in page)
    assert jobs.counts([SUBMISSION])[SUBMISSION].pending == 2_500


def test_sent_is_remembered(jobs: JobStore) -> None:
    """Of those that were, so that who submits again knows what is missing."""
    first, second = new_jobs(2)
    jobs.submit([first, second])
    jobs.sent([first.job_id, "unknown"])
    assert [job.sent for job in jobs.submit([first, second])] == [True, False]


# --- claim


def test_a_claim_is_granted_once(jobs: JobStore, one: NewJob) -> None:
    """With the job as it is then; the next worker waits."""
    first = claim(jobs, one)
    assert first.refusal is None
    assert first.job == replace(there(jobs, one), state=JobState.RUNNING, attempts=1, fence=first.fence)
    for owner in ("w1", "w2"):
        second = claim(jobs, one, owner)
        assert (second.refusal, second.fence) == (ClaimRefusal.HELD, 0)
    assert there(jobs, one).attempts == 1


def test_a_lease_that_is_over_gives_way(jobs: JobStore, one: NewJob, clock: TestClock) -> None:
    """At its very end, under a higher fence, as a second attempt."""
    fence = granted(jobs, one, lease=30)
    clock.now += 29.9
    assert claim(jobs, one, "w2").refusal is ClaimRefusal.HELD
    clock.now += 0.1
    assert granted(jobs, one, "w2") > fence
    assert there(jobs, one).attempts == 2


def test_a_clock_that_was_set_back_holds_no_lease(jobs: JobStore, one: NewJob, clock: TestClock) -> None:
    """One that ends later than any lease can is over; one that is only a little later is not."""
    granted(jobs, one, lease=30)
    clock.now -= 29
    assert claim(jobs, one, "w2").refusal is ClaimRefusal.HELD
    clock.now -= 3_600
    assert claim(jobs, one, "w2").refusal is None


def test_unknown_and_changed_jobs(jobs: JobStore, one: NewJob) -> None:
    """No lease on what was not submitted, or not so."""
    unknown = claim(jobs, new_job(9))
    assert (unknown.refusal, unknown.job) == (ClaimRefusal.UNKNOWN, None)
    changed = claim(jobs, replace(one, payload=content(b"other")))
    assert changed.refusal is ClaimRefusal.MISMATCH
    assert changed.job == there(jobs, one)
    assert state(jobs, one) is JobState.PENDING


@pytest.mark.parametrize("outcome", [done(), done(b""), FAILED])
def test_a_finished_job_is_not_begun_again(jobs: JobStore, one: NewJob, outcome: Outcome) -> None:
    """The refusal brings what to publish once more."""
    finish(jobs, one, outcome)
    refused = claim(jobs, one)
    assert refused.refusal is ClaimRefusal.FINISHED
    assert refused.job is not None
    assert refused.job.outcome == outcome


def test_a_job_whose_time_is_over_expires(jobs: JobStore, clock: TestClock) -> None:
    """It is recorded as such, whether it was never begun or given up by whoever had it."""
    never, given_up = new_jobs(2, expires_at=clock.now + 60)
    jobs.submit([never, given_up])
    granted(jobs, given_up, lease=30)
    clock.now += 60
    for job in (never, given_up):
        refused = claim(jobs, job)
        assert refused.refusal is ClaimRefusal.EXPIRED
        assert refused.job is not None
        assert refused.job.outcome == Outcome(state=JobState.EXPIRED, reason="expired")
        assert claim(jobs, job).refusal is ClaimRefusal.FINISHED


def test_a_job_in_work_may_outlast_its_time(jobs: JobStore, clock: TestClock) -> None:
    """Only its beginning is limited."""
    job = new_job(expires_at=clock.now + 10)
    jobs.submit([job])
    fence = granted(jobs, job, lease=30)
    clock.now += 20
    assert claim(jobs, job, "w2").refusal is ClaimRefusal.HELD
    assert jobs.complete(job.job_id, owner="w1", fence=fence, outcome=done()) == done()


def test_attempts_are_counted_here(jobs: JobStore, one: NewJob, clock: TestClock) -> None:
    """After the last of them the job has failed, and says why."""
    for _ in range(3):
        granted(jobs, one, lease=30, attempts=3)
        clock.now += 30
    refused = claim(jobs, one, attempts=3)
    assert refused.refusal is ClaimRefusal.EXHAUSTED
    assert refused.job is not None
    assert refused.job.outcome == Outcome(state=JobState.FAILED, reason="attempts_exhausted")
    assert claim(jobs, one, attempts=3).refusal is ClaimRefusal.FINISHED


def test_claims_that_said_nothing_are_counted(jobs: JobStore, one: NewJob, clock: TestClock) -> None:
    """A worker that died with the job, or was silent too long; not one that gave it back, whatever it counted."""
    assert there(jobs, one).abandoned == 0
    for counted in (True, False):
        fence = granted(jobs, one, lease=30)
        jobs.give_back(one.job_id, owner="w1", fence=fence, count_attempt=counted)
    for abandoned in range(3):
        assert claim(jobs, one, lease=30).job == there(jobs, one)
        assert there(jobs, one).abandoned == abandoned
        clock.now += 30
    claims = jobs.claim_many({one.job_id: one.payload.sha256}, owner="w2", lease_seconds=30, max_attempts=9)
    assert [claim.job and claim.job.abandoned for claim in claims.values()] == [3]
    jobs.give_back(one.job_id, owner="w2", fence=claims[one.job_id].fence, count_attempt=False)
    fence = granted(jobs, one, attempts=9)
    assert there(jobs, one).abandoned == 3


# --- heartbeat


def test_a_heartbeat_prolongs(jobs: JobStore, one: NewJob, clock: TestClock) -> None:
    """From now on, and for those that are held by this worker under this fence."""
    other, given_back = new_job(1), new_job(2)
    jobs.submit([other, given_back])
    fence, taken, back = granted(jobs, one), granted(jobs, other, "w2"), granted(jobs, given_back)
    jobs.give_back(given_back.job_id, owner="w1", fence=back, count_attempt=True)
    clock.now += 20
    claims = {one.job_id: fence, other.job_id: taken, given_back.job_id: back, "unknown": 1}
    assert jobs.heartbeat(claims, owner="w1", lease_seconds=30) == {one.job_id}
    assert jobs.heartbeat({one.job_id: fence + 1}, owner="w1", lease_seconds=300) == set()
    clock.now += 29.9
    assert claim(jobs, one, "w3").refusal is ClaimRefusal.HELD
    assert claim(jobs, other, "w3").refusal is None
    clock.now += 0.1
    assert claim(jobs, one, "w3").refusal is None


def test_a_late_heartbeat_saves_a_lease_nobody_took(jobs: JobStore, one: NewJob, clock: TestClock) -> None:
    """But not one that somebody did."""
    fence = granted(jobs, one, lease=30)
    clock.now += 40
    assert jobs.heartbeat({one.job_id: fence}, owner="w1", lease_seconds=30) == {one.job_id}
    assert claim(jobs, one, "w2").refusal is ClaimRefusal.HELD
    clock.now += 40
    granted(jobs, one, "w2")
    assert jobs.heartbeat({one.job_id: fence}, owner="w1", lease_seconds=30) == set()


def test_many_heartbeats_at_once(jobs: JobStore) -> None:
    """More than one statement names."""
    wanted = new_jobs(1_200)
    jobs.submit(wanted)
    claims = {job.job_id: granted(jobs, job) for job in wanted[:40]}
    beaten = jobs.heartbeat(claims | {job.job_id: 1 for job in wanted[40:]}, owner="w1", lease_seconds=30)
    assert beaten == set(claims)


# --- complete and give back


def test_an_outcome_is_recorded_once(jobs: JobStore, one: NewJob) -> None:
    """And told to whoever comes later, under whatever name; it has not arrived anywhere by that."""
    fence = granted(jobs, one)
    assert jobs.complete(one.job_id, owner="w1", fence=fence, outcome=done()) == done()
    for owner, other in (("w1", done(b"another")), ("w2", FAILED)):
        assert jobs.complete(one.job_id, owner=owner, fence=fence, outcome=other) == done()
    assert there(jobs, one).result == content(b"result")
    assert jobs.arrivals(SUBMISSION) == []


def test_a_zombie_changes_nothing(jobs: JobStore, one: NewJob, clock: TestClock) -> None:
    """Someone else has the job: no outcome, no heartbeat, nothing given back; not even by the same name."""
    zombie = granted(jobs, one, lease=30)
    clock.now += 31
    fence = granted(jobs, one, "w2")
    for owner, old in (("w1", zombie), ("w2", zombie), ("w1", fence)):
        assert jobs.complete(one.job_id, owner=owner, fence=old, outcome=done(b"stale")) is None
        assert jobs.heartbeat({one.job_id: old}, owner=owner, lease_seconds=30) == set()
        assert not jobs.give_back(one.job_id, owner=owner, fence=old, count_attempt=True)
    assert jobs.complete(one.job_id, owner="w2", fence=fence, outcome=done()) == done()
    assert jobs.complete(one.job_id, owner="w1", fence=zombie, outcome=done(b"stale")) == done()


def test_completing_what_is_not_there(jobs: JobStore) -> None:
    """There is no outcome."""
    assert jobs.complete("unknown", owner="w1", fence=1, outcome=done()) is None


@pytest.mark.parametrize(("counted", "attempts"), [(True, 2), (False, 1)])
def test_a_job_given_back_is_pending(jobs: JobStore, one: NewJob, counted: bool, attempts: int) -> None:
    """Anyone may have it at once; a shutdown costs it no attempt."""
    fence = granted(jobs, one)
    assert jobs.give_back(one.job_id, owner="w1", fence=fence, count_attempt=counted)
    assert state(jobs, one) is JobState.PENDING
    assert not jobs.give_back(one.job_id, owner="w1", fence=fence, count_attempt=counted)
    assert jobs.complete(one.job_id, owner="w1", fence=fence, outcome=done()) is None
    assert granted(jobs, one, "w2") > fence
    assert there(jobs, one).attempts == attempts


# --- other ends


def test_a_dead_letter_fails_its_job(jobs: JobStore, one: NewJob) -> None:
    """Whoever has it: what that one says later is not believed."""
    fence = granted(jobs, one)
    failed = jobs.fail(one.job_id, reason="receives_exhausted")
    assert failed is not None
    outcome = Outcome(state=JobState.FAILED, reason="receives_exhausted")
    assert failed.outcome == outcome
    assert jobs.complete(one.job_id, owner="w1", fence=fence, outcome=done()) == outcome
    again = jobs.fail(one.job_id, reason="other")
    assert again is not None
    assert again.reason == "receives_exhausted"
    assert jobs.fail("unknown", reason="other") is None


def test_a_job_that_is_held_may_be_spared(jobs: JobStore, one: NewJob, clock: TestClock) -> None:
    """As long as somebody works on it; a copy of its message is not the one in that hand."""
    fence = granted(jobs, one, lease=30)
    spared = jobs.fail(one.job_id, reason="too_many_receives", spare_held=True)
    assert spared == there(jobs, one)
    assert spared.state is JobState.RUNNING
    clock.now += 30
    failed = jobs.fail(one.job_id, reason="too_many_receives", spare_held=True)
    assert failed is not None
    assert failed.reason == "too_many_receives"
    assert jobs.heartbeat({one.job_id: fence}, owner="w1", lease_seconds=30) == set()
    pending = new_job(1)
    jobs.submit([pending])
    ended = jobs.fail(pending.job_id, reason="too_many_receives", spare_held=True)
    assert ended is not None
    assert ended.state is JobState.FAILED
    assert jobs.fail("unknown", reason="other", spare_held=True) is None


def test_a_result_outlives_its_dead_letter(jobs: JobStore, one: NewJob) -> None:
    """A job that succeeded does not fail afterwards."""
    finish(jobs, one)
    found = jobs.fail(one.job_id, reason="receives_exhausted")
    assert found is not None
    assert found.outcome == done()


def test_what_has_not_begun_is_cancelled(jobs: JobStore) -> None:
    """And only that, in this submission; the inbox has it at once."""
    wanted = new_jobs(1_203)
    other = new_job(0, "other")
    jobs.submit([*wanted, other])
    fence = granted(jobs, wanted[0])
    finish(jobs, wanted[1])
    assert jobs.cancel(SUBMISSION) == 1_201
    assert jobs.cancel(SUBMISSION) == 0
    assert claim(jobs, wanted[2]).refusal is ClaimRefusal.CANCELLED
    assert jobs.complete(wanted[0].job_id, owner="w1", fence=fence, outcome=done()) == done()
    assert state(jobs, other) is JobState.PENDING
    assert jobs.counts([SUBMISSION])[SUBMISSION].cancelled == 1_201
    assert jobs.arrivals(SUBMISSION, most=1)[0].outcome == Outcome(state=JobState.CANCELLED, reason="cancelled")


def test_overdue_jobs_expire(jobs: JobStore, clock: TestClock) -> None:
    """At most so many at a time; not those that are in work, nor those with time left or without end."""
    due = new_jobs(3, expires_at=clock.now + 60)
    held = new_job(3, expires_at=clock.now + 60)
    others = [new_job(4, expires_at=clock.now + 61), new_job(5)]
    jobs.submit([*due, held, *others])
    granted(jobs, due[0], lease=30)
    granted(jobs, held, lease=90)
    clock.now += 60
    some, rest = jobs.expire(most=2), jobs.expire(most=2)
    assert [len(some), len(rest)] == [2, 1]
    assert {job.job_id for job in (*some, *rest)} == {job.job_id for job in due}
    assert {job.outcome for job in (*some, *rest)} == {Outcome(state=JobState.EXPIRED, reason="expired")}
    assert jobs.expire(most=2) == []


# --- generations


def test_a_redrive_is_the_next_generation(jobs: JobStore, clock: TestClock) -> None:
    """No attempts, as much time as before, and a link to what it takes the place of, which stays."""
    job = new_job(expires_at=clock.now + 60, group="tenant", webhook=True)
    jobs.submit([job])
    finish(jobs, job, FAILED)
    clock.now += 1_000
    [again] = jobs.redrive([job.job_id])
    assert again == Job(
        job_id=job_id(SUBMISSION, 0, generation=1),
        submission=SUBMISSION,
        position=0,
        generation=1,
        state=JobState.PENDING,
        payload=job.payload,
        attempts=0,
        fence=0,
        expires_at=clock.now + 60,
        group="tenant",
        webhook=True,
        predecessor=job.job_id,
    )
    assert jobs.jobs(SUBMISSION) == [again]
    assert there(jobs, job).outcome == FAILED


def test_a_redrive_that_is_repeated(jobs: JobStore) -> None:
    """Finds its successor, whatever became of that."""
    job = new_job()
    jobs.submit([job])
    finish(jobs, job, FAILED)
    [first] = jobs.redrive([job.job_id])
    jobs.fail(first.job_id, reason="again")
    [second] = jobs.redrive([job.job_id])
    assert (second.job_id, second.reason) == (first.job_id, "again")
    [third] = jobs.redrive([first.job_id])
    assert (third.generation, third.predecessor) == (2, first.job_id)


def test_only_what_ended_without_a_result_is_redriven(jobs: JobStore, clock: TestClock) -> None:
    """In the order of the request; a repeated id counts once."""
    wanted = [new_job(position, expires_at=clock.now + 60 if position == 4 else None) for position in range(6)]
    pending, running, succeeded, failed, expired, cancelled = wanted
    jobs.submit(wanted)
    granted(jobs, running, lease=600)
    finish(jobs, succeeded)
    finish(jobs, failed, FAILED)
    clock.now += 60
    jobs.expire(most=10)
    jobs.submit([new_job(0, "other")])
    jobs.cancel("other")
    ids = [job.job_id for job in (expired, pending, failed, running, succeeded, failed, new_job(0, "other"))]
    again = jobs.redrive(["unknown", *ids])
    assert [(job.submission, job.position) for job in again] == [(SUBMISSION, 4), (SUBMISSION, 3), ("other", 0)]
    assert cancelled.position == 5


def test_only_the_latest_generation_counts(jobs: JobStore) -> None:
    """For whoever waits: a redriven job is pending again, and what its predecessor still says changes nothing."""
    first, second = new_jobs(2)
    jobs.submit([first, second])
    finish(jobs, first, FAILED)
    [again] = jobs.redrive([first.job_id])
    jobs.receive(first.job_id, FAILED, via="queue")
    assert jobs.counts([SUBMISSION])[SUBMISSION].pending == 2
    assert jobs.arrivals(SUBMISSION) == []
    assert [job.job_id for job in jobs.jobs(SUBMISSION)] == [again.job_id, second.job_id]
    assert jobs.submit([first])[0].outcome == FAILED


def test_a_later_generation_may_be_submitted(jobs: JobStore, one: NewJob) -> None:
    """It takes the place of the one before it."""
    later = new_job(generation=1, predecessor=one.job_id, payload=content(b"changed"))
    jobs.submit([later])
    assert [job.job_id for job in jobs.jobs(SUBMISSION)] == [later.job_id]
    assert jobs.cancel(SUBMISSION) == 2
