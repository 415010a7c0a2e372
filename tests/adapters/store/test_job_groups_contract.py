"""One contract for what workers ask of a store in groups: as the single forms, for each job of the group by itself."""

from __future__ import annotations

import pytest

from airflow_provider_ai.adapters.store.store import Store
from airflow_provider_ai.core.job_ports import Completion, JobStore
from airflow_provider_ai.core.jobs import Claim, ClaimRefusal, JobState, NewJob, job_id
from airflow_provider_ai.testing import InMemoryStore
from tests.adapters.store.conftest import TestClock
from tests.adapters.store.jobs import FAILED, SUBMISSION, claim, done, finish, granted, new_job, new_jobs


@pytest.fixture
def jobs(store: Store | InMemoryStore) -> JobStore:
    return store.jobs()


def claim_all(jobs: JobStore, some: list[NewJob], owner: str = "w1", *, attempts: int = 5) -> dict[str, Claim]:
    payloads = {job.job_id: job.payload.sha256 for job in some}
    return dict(jobs.claim_many(payloads, owner=owner, lease_seconds=30, max_attempts=attempts))


def test_a_group_of_claims_is_granted_as_each_would_be(jobs: JobStore) -> None:
    """Every job runs, under a fence and with an attempt of its own, with its payload."""
    some = new_jobs(1200)
    jobs.submit(some)
    again = granted(jobs, some[3])
    jobs.give_back(some[3].job_id, owner="w1", fence=again, count_attempt=True)
    claims = claim_all(jobs, some)
    assert claims.keys() == {job.job_id for job in some}
    assert {each.refusal for each in claims.values()} == {None}
    assert claims[some[3].job_id].fence == claims[some[4].job_id].fence + 1
    for job in some[:5]:
        there = claims[job.job_id].job
        assert there is not None
        assert (there.state, there.payload, there.fence) == (
            JobState.RUNNING,
            job.payload,
            claims[job.job_id].fence,
        )
    assert set(jobs.heartbeat({name: each.fence for name, each in claims.items()}, owner="w1", lease_seconds=30)) == {
        job.job_id for job in some
    }


def test_each_claim_of_a_group_is_refused_for_its_own_reason(jobs: JobStore, clock: TestClock) -> None:
    """Whatever is wrong with one job says nothing of the others."""
    free, finished, held, expired, exhausted, cancelled, mismatch = (
        new_job(position, submission=f"{SUBMISSION}-{position}", expires_at=clock.now + 5 if position == 3 else None)
        for position in range(7)
    )
    unknown = new_job(99)
    jobs.submit([free, finished, held, expired, exhausted, cancelled, mismatch])
    finish(jobs, finished)
    claim(jobs, held, "other", lease=40)
    jobs.give_back(exhausted.job_id, owner="w0", fence=granted(jobs, exhausted, "w0"), count_attempt=True)
    jobs.cancel(cancelled.submission)
    clock.now += 10
    payloads = {
        job.job_id: job.payload.sha256 for job in (free, finished, held, expired, exhausted, cancelled, unknown)
    }
    claims = jobs.claim_many({**payloads, mismatch.job_id: "0" * 64}, owner="w1", lease_seconds=30, max_attempts=1)
    assert {name: each.refusal for name, each in claims.items()} == {
        free.job_id: None,
        finished.job_id: ClaimRefusal.FINISHED,
        held.job_id: ClaimRefusal.HELD,
        expired.job_id: ClaimRefusal.EXPIRED,
        exhausted.job_id: ClaimRefusal.EXHAUSTED,
        cancelled.job_id: ClaimRefusal.CANCELLED,
        unknown.job_id: ClaimRefusal.UNKNOWN,
        mismatch.job_id: ClaimRefusal.MISMATCH,
    }
    assert claims[held.job_id].held_seconds == pytest.approx(30, abs=0.01)
    ended = claims[expired.job_id].job
    assert ended is not None
    assert ended.state is JobState.EXPIRED


def test_a_group_of_completions_is_recorded_as_each_would_be(jobs: JobStore) -> None:
    """Results and failures of those that are held; in the order they were given in."""
    some = new_jobs(150)
    jobs.submit(some)
    claims = claim_all(jobs, some)
    outcomes = [FAILED if job.position % 7 == 0 else done(b"%d" % job.position) for job in some]
    completions = [
        Completion(job_id=job.job_id, fence=claims[job.job_id].fence, outcome=outcome)
        for job, outcome in zip(some, outcomes, strict=True)
    ]
    assert list(jobs.complete_many(completions, owner="w1")) == outcomes
    assert [job.outcome for job in jobs.jobs(SUBMISSION)] == outcomes
    assert list(jobs.complete_many(completions, owner="w1")) == outcomes


def test_whoever_does_not_hold_a_job_of_the_group_changes_nothing_of_it(jobs: JobStore) -> None:
    """A stale fence, a wrong owner, a finished and an unknown job: what is recorded there comes back, or None."""
    mine, stale, finished, failed = some = new_jobs(4)
    jobs.submit(some)
    fences = {job.job_id: granted(jobs, job) for job in (mine, stale, finished)}
    jobs.give_back(stale.job_id, owner="w1", fence=fences[stale.job_id], count_attempt=True)
    granted(jobs, stale, "w2")
    jobs.complete(finished.job_id, owner="w1", fence=fences[finished.job_id], outcome=done(b"first"))
    jobs.fail(failed.job_id, reason="model_error")
    unknown = job_id("nobody", 0)
    completions = [
        Completion(job_id=name, fence=fences.get(name, 1), outcome=done(b"late"))
        for name in (stale.job_id, mine.job_id, unknown, finished.job_id, failed.job_id)
    ]
    assert list(jobs.complete_many(completions, owner="w1")) == [None, done(b"late"), None, done(b"first"), FAILED]
    assert jobs.job(stale.job_id).state is JobState.RUNNING  # type: ignore[union-attr]


def test_an_empty_group_is_no_error(jobs: JobStore) -> None:
    """Nothing in, nothing out."""
    assert jobs.claim_many({}, owner="w1", lease_seconds=30, max_attempts=5) == {}
    assert list(jobs.complete_many([], owner="w1")) == []
