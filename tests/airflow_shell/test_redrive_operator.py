"""The operator that has the jobs of dead letters done once more."""

from __future__ import annotations

from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException

from airflow_provider_ai.core.job_ports import DeadLetter
from airflow_provider_ai.core.jobs import JobState, job_id
from airflow_provider_ai.operators.dead_letters import AIRedriveOperator
from tests.airflow_shell.job_deployment import JobDeployment, jobs
from tests.airflow_shell.test_jobs_trigger import submit

__all__ = ["jobs"]
IDS = [job_id("s", position) for position in range(3)]


@pytest.fixture
def dead(jobs: JobDeployment) -> JobDeployment:
    """Three jobs: two are dead letters for different reasons, one is answered."""
    submit(jobs, "s", 3)
    jobs.finish("s", [JobState.FAILED, JobState.FAILED, {"a": 1}])
    with jobs.store() as store:
        store.dead_letters().keep(
            DeadLetter(letter_id=str(n), job_id=IDS[n], reason=reason, source="requests", message=b"{}")
            for n, reason in enumerate(["rejected", "handler_error"])
        )
    return jobs


def redrive(**given: Any) -> dict[str, int]:
    return AIRedriveOperator(task_id="redrive", **given).execute({})


def pending(jobs: JobDeployment) -> list[int]:
    with jobs.store() as store:
        return [job.position for job in store.jobs().jobs("s") if job.state is JobState.PENDING]


def test_all_are_redriven_and_their_letters_gone(dead: JobDeployment) -> None:
    """Twice is once."""
    assert redrive() == {"letters": 2, "jobs": 2, "sent": 2, "skipped": 0}
    assert pending(dead) == [0, 1]
    assert redrive() == {"letters": 0, "jobs": 0, "sent": 0, "skipped": 0}
    assert len(dead.requests()) == 2


@pytest.mark.parametrize("given", [{"reason": "rejected"}, {"job_ids": [IDS[0]]}])
def test_those_that_are_asked_for(dead: JobDeployment, given: dict[str, Any]) -> None:
    """The other one stays."""
    assert redrive(**given)["jobs"] == 1
    assert pending(dead) == [0]


def test_ids_are_a_list(dead: JobDeployment) -> None:
    """One text would be taken for its letters."""
    with pytest.raises(AirflowFailException, match="job_ids must be a list"):
        redrive(job_ids=IDS[0])
