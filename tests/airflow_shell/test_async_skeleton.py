"""The asynchronous skeletons of ``airflow-ai choose``, parsed by Airflow with the real package, and carried out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import DAG

from airflow_provider_ai.core.needs import Effect, Needs
from airflow_provider_ai.core.skeletons import skeleton
from tests.airflow_shell.job_deployment import JobDeployment, jobs
from tests.airflow_shell.test_dags import load

__all__ = ["jobs"]


def made(effect: Effect, folder: Path) -> DAG:
    path = folder / "skeleton.py"
    needs = Needs(latency_seconds=600, volume=1, freshness_seconds=3600, effect=effect, phi=True)
    path.write_text(skeleton("async", needs))
    return load(path).dag


@pytest.mark.parametrize(
    ("effect", "after"), [("read", {"use_summary"}), ("ehr-write", {"write_to_ehr", "human_review"})]
)
def test_the_asynchronous_skeleton_is_a_dag_that_can_be_stored(effect: Effect, after: set[str], tmp_path: Path) -> None:
    """The wait, and who comes after it: a person where there is no summary to write."""
    from airflow.serialization.serialized_objects import DagSerialization

    dag = made(effect, tmp_path)
    assert set(dag.task_ids) == {"summarise", *after}
    assert dag.get_task("summarise").downstream_task_ids == after
    assert dag.get_task("summarise").job_deadline_seconds == 600
    assert DagSerialization.from_dict(DagSerialization.to_dict(dag)).dag_id == "discharge_letters"


def test_the_task_after_it_finds_the_reply(jobs: JobDeployment, tmp_path: Path) -> None:
    """By the manifest that the operator returns, up to where the reader has to go on."""
    from tests.airflow_shell.test_jobs_trigger import submit

    submit(jobs, "s", 1)
    jobs.finish("s", [{"summary": "short"}])
    use_summary: Any = made("read", tmp_path).get_task("use_summary")
    with pytest.raises(NotImplementedError, match=r"show reply\.output"):
        use_summary.python_callable({"submission": "s"})
