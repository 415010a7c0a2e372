"""The synchronous skeletons of ``airflow-ai choose``, parsed by Airflow with the real package."""

from __future__ import annotations

from pathlib import Path

import pytest
from airflow.sdk import DAG

from airflow_provider_ai.core.needs import Effect, Needs
from airflow_provider_ai.core.skeletons import skeleton
from tests.airflow_shell.test_dags import load

pytest.importorskip("airflow_provider_ai.operators.sync_call", reason="the operator is not in this tree yet")


@pytest.mark.parametrize("phi", [False, True])
@pytest.mark.parametrize(("effect", "good"), [("read", "use_answer"), ("ehr-write", "write_to_ehr")])
def test_the_synchronous_skeleton_is_a_dag_that_can_be_stored(
    effect: Effect, good: str, phi: bool, tmp_path: Path
) -> None:
    """The call, the branch, and one path for good answers and one for degraded ones."""
    from airflow.serialization.serialized_objects import DagSerialization

    path = tmp_path / "skeleton.py"
    needs = Needs(latency_seconds=3, volume=1, freshness_seconds=60, effect=effect, phi=phi)
    path.write_text(skeleton("sync", needs))
    dag: DAG = load(path).dag
    assert set(dag.task_ids) == {"call", "is_degraded", good, "human_review"}
    assert dag.get_task("is_degraded").upstream_task_ids == {"call"}
    assert dag.get_task("is_degraded").downstream_task_ids == {good, "human_review"}
    assert DagSerialization.from_dict(DagSerialization.to_dict(dag)).dag_id == "triage"
