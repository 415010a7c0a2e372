"""The batch skeleton of ``airflow-ai choose``, parsed by Airflow with the real package."""

from __future__ import annotations

from pathlib import Path

import pytest
from airflow.sdk import DAG

from airflow_provider_ai.core.needs import Effect, Needs
from airflow_provider_ai.core.skeletons import skeleton
from tests.airflow_shell.test_dags import load

TASKS = ["model_is_ready", "score.plan", "score.infer", "score.publish", "score.reconcile"]


@pytest.mark.parametrize(("effect", "more"), [("read", []), ("ehr-write", ["write_to_ehr"])])
def test_the_batch_skeleton_is_a_dag_that_can_be_stored(effect: Effect, more: list[str], tmp_path: Path) -> None:
    """With the tasks of a nightly run, and the write after the publication."""
    from airflow.serialization.serialized_objects import DagSerialization

    path = tmp_path / "skeleton.py"
    needs = Needs(latency_seconds=21_600, volume=250_000, freshness_seconds=86_400, effect=effect, phi=True)
    path.write_text(skeleton("batch", needs))
    dag: DAG = load(path).dag
    assert [task.task_id for task in dag.topological_sort()] == TASKS + more
    assert dag.doc_md
    assert DagSerialization.from_dict(DagSerialization.to_dict(dag)).dag_id == "risk_scores"
