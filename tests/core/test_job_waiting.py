"""When a wait is over, and how it ends."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_ai.core import job_waiting
from airflow_provider_ai.core.job_waiting import WaitPolicy, WaitState, WaitVerdict, decide, explain, poll_seconds
from airflow_provider_ai.core.jobs import JobCounts
from airflow_provider_ai.exceptions import SpecError

FAIL = WaitPolicy()
PATIENT = WaitPolicy(fail_fast=False)
TENTH = WaitPolicy(on_failed_jobs="quarantine", max_quarantined_fraction=0.1)


def counts(completed: int = 0, pending: int = 0, failed: int = 0, expired: int = 0, cancelled: int = 0) -> JobCounts:
    jobs = completed + pending + failed + expired + cancelled
    return JobCounts(
        jobs=jobs, completed=completed, pending=pending, failed=failed, expired=expired, cancelled=cancelled
    )


def decided(found: JobCounts | None, policy: WaitPolicy = FAIL, **given: Any) -> WaitVerdict:
    return decide(found, policy, **{"now": 100.0, "deadline": 200.0} | given)


@pytest.mark.parametrize(
    ("found", "policy", "state", "reason"),
    [
        (counts(completed=9, pending=1), FAIL, WaitState.WAITING, None),
        (counts(completed=10), FAIL, WaitState.COMPLETE, None),
        (counts(completed=3, pending=6, failed=1), FAIL, WaitState.FAILED, "jobs_failed"),  # at once
        (counts(completed=3, pending=6, expired=1), FAIL, WaitState.FAILED, "jobs_expired"),
        (counts(completed=3, pending=6, cancelled=1), FAIL, WaitState.FAILED, "jobs_cancelled"),
        (counts(completed=3, pending=6, failed=1), PATIENT, WaitState.WAITING, None),  # the others may still end
        (counts(completed=9, failed=1), PATIENT, WaitState.FAILED, "jobs_failed"),
        (counts(completed=9, failed=1), TENTH, WaitState.COMPLETE, None),  # exactly the fraction
        (counts(completed=7, pending=2, failed=1), TENTH, WaitState.WAITING, None),
        (counts(completed=6, pending=2, failed=2), TENTH, WaitState.FAILED, "jobs_failed"),  # it cannot end well
        (counts(completed=8, failed=1, expired=1), TENTH, WaitState.FAILED, "jobs_failed"),  # they count together
        (None, FAIL, WaitState.FAILED, "unknown_submission"),
        (counts(), FAIL, WaitState.FAILED, "unknown_submission"),
    ],
)  # fmt: skip
def test_counts_decide(found: JobCounts | None, policy: WaitPolicy, state: WaitState, reason: str | None) -> None:
    """Before the deadline nothing but the counts matters."""
    verdict = decided(found, policy)
    assert (verdict.state, verdict.reason) == (state, reason)
    assert verdict.over is (state is not WaitState.WAITING)


@pytest.mark.parametrize(
    ("found", "state"),
    [
        (counts(completed=1, pending=1), WaitState.TIMED_OUT),
        (counts(completed=2), WaitState.COMPLETE),  # what came in time counts, whenever it is looked at
        (counts(completed=1, failed=1), WaitState.FAILED),
    ],
)
def test_a_deadline_ends_only_what_is_pending(found: JobCounts, state: WaitState) -> None:
    """At the deadline itself it is over."""
    assert decided(found, now=200.0).state is state


def test_without_a_deadline_it_goes_on() -> None:
    """The jobs' own deadlines end it."""
    assert decided(counts(pending=1), now=1e12, deadline=None).state is WaitState.WAITING


@pytest.mark.parametrize(
    ("found", "expected", "state", "reason"),
    [
        (counts(completed=2), 3, WaitState.FAILED, "jobs_missing"),
        (counts(completed=3), 3, WaitState.COMPLETE, None),
        (counts(), 0, WaitState.COMPLETE, None),  # an input without requests
        (None, 1, WaitState.FAILED, "unknown_submission"),
    ],
)
def test_the_number_of_jobs_is_held_against_what_was_submitted(
    found: JobCounts | None, expected: int, state: WaitState, reason: str | None
) -> None:
    """A store that has lost jobs does not make a submission complete."""
    verdict = decided(found, expected=expected)
    assert (verdict.state, verdict.reason) == (state, reason)


def test_every_ending_is_explained() -> None:
    """With numbers, and what happens next."""
    words = {
        "10 of 10 jobs completed": decided(counts(completed=10)),
        "1 of 2 jobs are pending": decided(counts(completed=1, pending=1)),
        "a retry waits for the same jobs": decided(counts(pending=1), now=300.0),
        "2 of 10 jobs ended without a result (1 failed, 1 cancelled)": decided(
            counts(completed=8, failed=1, cancelled=1)
        ),
        "never submitted, or was pruned": decided(None),
        "has only 2 jobs": decided(counts(completed=2), expected=3),
    }
    for text, verdict in words.items():
        assert text in explain(verdict)


@pytest.mark.parametrize("settings", [{"on_failed_jobs": "ignore"}, {"max_quarantined_fraction": 1.5}])
def test_a_policy_is_checked(settings: dict[str, Any]) -> None:
    """Where it is made."""
    with pytest.raises(SpecError, match="must be"):
        WaitPolicy(**settings)


def test_polls_grow_apart() -> None:
    """Quick for short waits, slow for long ones, never beyond 5 s."""
    assert [poll_seconds(waited) for waited in (0.0, 10.0, 60.0, 7200.0)] == [0.25, 0.5, 3.0, 5.0]
    assert job_waiting.without_result(counts(failed=1, expired=2, cancelled=3)) == 6
