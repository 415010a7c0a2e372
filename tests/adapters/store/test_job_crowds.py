"""Jobs among many processes: begun by one at a time, ended once; and the counting would notice a mistake."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from airflow_provider_ai.core.job_ports import JobStore
from airflow_provider_ai.core.jobs import JobCounts
from tests.adapters.store.conftest import OpenStore
from tests.adapters.store.crowd import TIMEOUT_SECONDS, crowd
from tests.adapters.store.jobs import SUBMISSION, new_jobs


def submitted(opened: OpenStore, number: int) -> JobStore:
    jobs = opened(timeout_seconds=TIMEOUT_SECONDS).jobs()
    jobs.submit(new_jobs(number))
    return jobs


def grants(url: str, seed: int, **order: Any) -> Counter[int]:
    """How often each of 500 jobs was granted to 16 processes."""
    seen = crowd(url, "claim_all", seed=seed, processes=16, jobs=500, **order)
    return Counter(position for member in seen for position in member["granted"])


def test_16_processes_claim_500_jobs(opened: OpenStore, url: str, seed: int) -> None:
    """Each is granted once, and has one attempt."""
    jobs = submitted(opened, 500)
    assert grants(url, seed) == dict.fromkeys(range(500), 1)
    assert Counter((job.attempts, job.fence) for job in jobs.jobs(SUBMISSION)) == {(1, 1): 500}


@pytest.mark.parametrize("mutant", ["no_lease_check", "look_then_claim"])
def test_a_job_granted_twice_would_be_noticed(mutant: str, opened: OpenStore, url: str, seed: int) -> None:
    """The same crowd on a broken store."""
    submitted(opened, 500)
    assert max(grants(url, seed, mutant=mutant).values()) > 1


def results(url: str, seed: int, **order: Any) -> tuple[Counter[int], dict[int, str], int]:
    """What 16 processes that often outlive their leases recorded: how often for each job, what; and what came late."""
    seen = crowd(url, "work", seed=seed, processes=16, jobs=100, **order)
    recorded = [(position, result) for member in seen for position, result in member["recorded"]]
    return Counter(position for position, _ in recorded), dict(recorded), sum(member["late"] for member in seen)


def test_each_job_ends_once_though_leases_run_out(opened: OpenStore, url: str, seed: int) -> None:
    """The result that a worker took for recorded is the one that is; others came too late and were told so."""
    jobs = submitted(opened, 100)
    times, recorded, late = results(url, seed)
    assert times == dict.fromkeys(range(100), 1)
    assert late > 0
    kept = {job.position: job.result for job in jobs.jobs(SUBMISSION)}
    assert {position: content and content.inline for position, content in kept.items()} == {
        position: result.encode() for position, result in recorded.items()
    }


def test_a_second_end_would_be_noticed(opened: OpenStore, url: str, seed: int) -> None:
    """The same crowd on a store that believes everyone."""
    submitted(opened, 100)
    times, _, _ = results(url, seed, mutant="no_fence_check")
    assert max(times.values()) > 1


def test_16_processes_submit_and_tell_the_same_jobs(opened: OpenStore, url: str, seed: int) -> None:
    """All at once, each in an order of its own: nobody waits for someone who waits for them, and each is there once."""
    seen = crowd(url, "submit_all", seed=seed, processes=16, jobs=300)
    assert seen == [{"found": True, "known": 300}] * 16
    jobs = opened().jobs()
    assert jobs.counts([SUBMISSION])[SUBMISSION] == JobCounts(jobs=300, completed=300)
    assert len(jobs.jobs(SUBMISSION)) == 300
