"""The DAG files that ship with the package."""

from __future__ import annotations

import importlib.util
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from airflow.sdk import DAG, BaseOperator

from airflow_provider_ai.operators.batch_inference import RUN_DATE
from tests.support import clinical_data
from tests.support.processes import REPOSITORY


def load(path: Path) -> ModuleType:
    """The module of a DAG file, which no package contains."""
    spec = importlib.util.spec_from_file_location(f"dag_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def nightly() -> DAG:
    dag: DAG = load(REPOSITORY / "dags" / "batch_inference.py").dag
    return dag


def test_every_dag_file_holds_a_dag_that_can_be_stored() -> None:
    """And tells a person what it is for."""
    from airflow.serialization.serialized_objects import DagSerialization

    files = sorted((REPOSITORY / "dags").glob("*.py"))
    assert files
    for file in files:
        dags = [value for value in vars(load(file)).values() if isinstance(value, DAG)]
        assert dags, file
        for dag in dags:
            assert dag.doc_md
            assert DagSerialization.from_dict(DagSerialization.to_dict(dag)).dag_id == dag.dag_id


def test_the_nightly_run_waits_scores_and_checks(nightly: DAG) -> None:
    """In this order, retried, and only at night."""
    order = ["model_is_ready", "score.plan", "score.infer", "score.publish", "score.reconcile", "scores_are_valid"]
    assert [task.task_id for task in nightly.topological_sort()] == order
    assert all(task.retries >= 1 for task in nightly.tasks)
    assert nightly.catchup is False
    assert set(nightly.params) == {"ai_verb", "date"}


def test_the_nightly_run_asks_for_what_the_model_was_trained_on() -> None:
    """The columns of the clinical data, in the model's order."""
    module = load(REPOSITORY / "dags" / "batch_inference.py")
    assert list(module.MEASUREMENTS) == clinical_data.feature_columns()


DAY = datetime(2026, 3, 1, 2, tzinfo=UTC)
RUN = SimpleNamespace(run_after=datetime(2026, 3, 9, 13, tzinfo=UTC))


@pytest.mark.parametrize(
    ("context", "day"),
    [
        ({"params": {}, "logical_date": DAY, "partition_key": None}, "2026-03-01"),  # scheduled, or a backfill
        ({"params": {"date": "2026-02-14"}, "logical_date": DAY}, "2026-02-14"),  # asked for by a person
        ({"params": {"date": None}, "logical_date": DAY}, "2026-03-01"),
        ({"params": {}, "partition_key": "2026-03-05"}, "2026-03-05"),  # a partitioned run has no logical date
        ({"params": {}, "partition_key": None}, "2026-03-09"),  # triggered by hand, without a logical date
        ({"params": {}, "logical_date": None}, "2026-03-09"),
    ],
)
def test_the_day_of_a_run(context: dict[str, Any], day: str) -> None:
    """Rendered as Airflow renders it: an undefined name would be an error."""
    operator = BaseOperator(task_id="any", dag=DAG("any", schedule=None))
    assert operator.render_template(RUN_DATE, {"dag_run": RUN, **context}) == day


def test_the_dag_of_the_readme(tmp_path: Path) -> None:
    """What a newcomer copies first is a DAG file, as it stands there."""
    from airflow.dag_processing.dagbag import DagBag

    code = (REPOSITORY / "README.md").read_text().partition("```python\n")[2].partition("```")[0]
    (tmp_path / "readme.py").write_text(code)
    found = DagBag(tmp_path)
    assert found.import_errors == {}
    [dag] = found.dags.values()
    assert sorted(dag.task_ids) == ["score.infer", "score.plan", "score.publish", "score.reconcile"]


@pytest.fixture(scope="module")
def triage() -> DAG:
    dag: DAG = load(REPOSITORY / "dags" / "sync_call.py").dag
    return dag


def test_the_triage_asks_branches_and_loads(triage: DAG) -> None:
    """Retried where a retry helps; only opaque places of records are params."""
    assert triage.get_task("triage").downstream_task_ids == {"is_degraded", "load_answer", "human_review"}
    assert triage.get_task("is_degraded").downstream_task_ids == {"load_answer", "human_review"}
    assert all(task.retries >= 1 for task in triage.tasks)
    assert set(triage.params) == {"date", "row"}


def test_the_triage_asks_for_what_the_model_was_trained_on() -> None:
    """The columns of the clinical data, in the model's order."""
    module = load(REPOSITORY / "dags" / "sync_call.py")
    assert list(module.MEASUREMENTS) == clinical_data.feature_columns()


@pytest.fixture(scope="module")
def notes() -> ModuleType:
    return load(REPOSITORY / "dags" / "clinical_notes.py")


def test_the_notes_are_asked_about_in_each_pattern(notes: ModuleType) -> None:
    """One at once, all by workers, and as a batch; only opaque places of records are params."""
    order = {"ask_now", "land_now", "ask_workers", "score.plan", "score.infer", "score.publish", "score.reconcile"}
    assert set(notes.dag.task_ids) == order
    assert set(notes.dag.params) == {"ai_verb", "date", "row"}
    assert all(task.retries >= 1 for task in notes.dag.tasks)


def test_the_notes_parse_without_their_connections(tmp_path: Path) -> None:
    """A machine that parses DAGs has no secrets."""
    from airflow.dag_processing.dagbag import DagBag

    (tmp_path / "clinical_notes.py").write_text((REPOSITORY / "dags" / "clinical_notes.py").read_text())
    found = DagBag(tmp_path)
    assert found.import_errors == {}
    assert set(found.dags) == {"clinical_notes"}


@pytest.mark.parametrize("missing", ["columns=COLUMNS", 'output_uri=f"{LAKE}/_ai_outputs/"'])
def test_the_notes_do_not_parse_without_what_protects_them(
    missing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the switch on for the whole package, which a machine that parses DAGs knows."""
    from airflow.dag_processing.dagbag import DagBag

    code = (REPOSITORY / "dags" / "clinical_notes.py").read_text()
    assert missing in code
    monkeypatch.setenv("AIRFLOW__AI_PROVIDER__PHI", "True")
    for name, text in (("whole", code), ("weak", code.replace(f"{missing},", ""))):
        (tmp_path / name).mkdir()
        (tmp_path / name / "notes.py").write_text(text)
    assert DagBag(tmp_path / "whole").import_errors == {}
    [error] = DagBag(tmp_path / "weak").import_errors.values()
    assert "PhiPolicyError" in error
