"""The DAG of a synchronous call that ships with the package, in a real Airflow, against a real MLServer."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from airflow_provider_ai.adapters.store import open_store
from airflow_provider_ai.operators.sync_call import load_output
from tests.end_to_end.conftest import TRIAGE, BatchAirflow
from tests.end_to_end.test_batch_nightly import texts_with
from tests.support import clinical_data

DAY = "2026-04-01"
MARKED = 917.61803399  # a measurement of each visit; found nowhere but in the lake
PARTS = ("triage", "is_degraded", "load_answer", "human_review")


@dataclass(frozen=True, kw_only=True, slots=True)
class Triage:
    """A finished run of the DAG."""

    batch: BatchAirflow
    dag_id: str
    run_id: str

    @property
    def answer(self) -> dict[str, Any]:
        """What the call left in XCom."""
        value = self.batch.api.xcom(self.dag_id, self.run_id, "triage")
        return dict(json.loads(value) if isinstance(value, str) else value)

    @property
    def instances(self) -> dict[str, dict[str, Any]]:
        return {ti["task_id"]: ti for ti in self.batch.api.task_instances(self.dag_id, self.run_id)}

    @property
    def states(self) -> tuple[str, ...]:
        return tuple(self.instances[task]["state"] for task in PARTS)

    def rows(self, table: str, columns: str) -> list[tuple[Any, ...]]:
        """Its rows in the warehouse."""
        return self.batch.query(f"SELECT {columns} FROM {table} WHERE _run_id = %s", self.run_id)


@pytest.fixture(scope="module")
def runs(batch_airflow: BatchAirflow) -> dict[str, Triage]:
    """One run of the DAG on each of its connections, side by side."""
    visits = clinical_data.real_rows().slice(0, 20)
    marked = pa.array([MARKED] * visits.num_rows)
    visits = visits.set_column(visits.column_names.index("mean_area"), "mean_area", marked)
    folder = batch_airflow.lake / "visits" / f"dt={DAY}"
    folder.mkdir(parents=True)
    pq.write_table(visits, folder / "part-0.parquet")
    # As a deployment does: several tasks at once may otherwise find no tables yet, and the first go without the store.
    open_store(f"sqlite:///{batch_airflow.airflow.environment.home / 'ai_store.db'}").upgrade()
    api, conf = batch_airflow.api, {"date": DAY, "row": 17}
    started = {
        dag_id: Triage(batch=batch_airflow, dag_id=dag_id, run_id=api.trigger(dag_id, conf=conf)) for dag_id in TRIAGE
    }
    for run in started.values():
        api.wait_for_run(run.dag_id, run.run_id, deadline_seconds=120)
    return started


@pytest.mark.parametrize("dag_id", ["triage_visit", "over_grpc"])
def test_a_good_answer_is_loaded(runs: dict[str, Triage], dag_id: str) -> None:
    """Over REST and over gRPC: one row with the model's outputs and what they are."""
    run = runs[dag_id]
    assert run.states == ("success", "success", "success", "skipped")
    answer = run.answer
    assert (answer["degraded"], answer["reason"], answer["source"]) == (False, None, "primary")
    assert (answer["attempts"], answer["breaker_state"], answer["model"]) == (1, "closed", "breast-cancer")
    [(predict, probabilities, degraded, source, model)] = run.rows(
        "triage_answers", "predict, predict_proba, _degraded, _source, _model"
    )
    assert predict in (0, 1)
    assert abs(sum(json.loads(probabilities)) - 1) < 1e-6
    assert (degraded, source, model) == (False, "primary", "breast-cancer")
    assert load_output(answer)["predict"] == predict


def test_both_protocols_give_the_same_answer(runs: dict[str, Triage]) -> None:
    """The same record, the same model."""
    rest, grpc = (load_output(runs[dag_id].answer) for dag_id in ("triage_visit", "over_grpc"))
    assert rest["predict"] == grpc["predict"]
    assert rest["predict_proba"] == pytest.approx(grpc["predict_proba"])


@pytest.mark.parametrize(("dag_id", "reason"), [("dead", "connect"), ("hanging", "timeout")])
def test_a_degraded_answer_goes_to_a_person(runs: dict[str, Triage], dag_id: str, reason: str) -> None:
    """The tasks succeed, the other path is taken, and the row says why. A server that hangs costs the deadline."""
    run = runs[dag_id]
    assert run.states == ("success", "success", "skipped", "success")
    answer = run.answer
    assert (answer["degraded"], answer["reason"], answer["source"]) == (True, reason, "static")
    assert answer["elapsed_ms"] <= 3_100
    assert run.rows("triage_reviews", "_degraded, _reason, _source, _model") == [(True, reason, "static", None)]


def test_a_retry_leaves_one_row(runs: dict[str, Triage]) -> None:
    """Cleared from the load on, as an operator does it."""
    run = runs["triage_visit"]
    run.batch.api.clear(run.dag_id, run.run_id, ["load_answer"])
    run.batch.api.wait_for_run(run.dag_id, run.run_id, deadline_seconds=60)
    assert run.instances["load_answer"]["try_number"] == 2
    assert len(run.rows("triage_answers", "predict")) == 1


def test_xcom_and_rendered_fields_show_what_the_answer_is_and_no_more(runs: dict[str, Triage]) -> None:
    """A reference instead of the output; names instead of inputs."""
    for run in runs.values():
        answer = run.answer
        assert "output" not in answer
        assert set(answer["output_ref"]) == {"uri", "sha256", "bytes"}
        rendered = run.instances["triage"]["rendered_fields"]
        assert rendered["inputs"].startswith("1 record: mean_radius, mean_texture")
        branch = run.instances["is_degraded"]["rendered_fields"]["answer"]
        assert branch == {name: answer[name] for name in ("degraded", "reason", "source")}


def test_no_measurement_is_in_airflow(runs: dict[str, Triage]) -> None:
    """Neither in the metadata database nor in a log, for good answers and for degraded ones."""
    batch = runs["dead"].batch
    marked = str(MARKED)
    assert {table: found for table, found in texts_with(marked, batch.metadata) if found} == {}
    logs = [path for path in batch.airflow.environment.home.rglob("*.log") if path.is_file()]
    assert len(logs) > 5
    assert [str(path) for path in logs if marked in path.read_text(errors="replace")] == []
    [visit, *_] = pq.read_table(batch.lake / "visits" / f"dt={DAY}" / "part-0.parquet").to_pylist()
    assert str(visit["mean_area"]) == marked  # it is really there to be found


# --- mistakes that the DAG processor tells

BAD_DAG = """
from datetime import timedelta
from airflow.sdk import DAG
from airflow_provider_ai.operators.sync_call import *

with DAG({dag_id!r}, schedule=None):
    given = dict(endpoint_conn_id="triage_model", fallback=[Static(None)], request=JsonRequest(inputs={{"a": 1}}))
    AISyncCallOperator(task_id="call", **{{**given, **dict({mistake})}})
"""
MISTAKES = {
    "no_static": ("fallback=[LastGood(max_age=60)]", "fallback must end in Static"),
    "no_fallback": ("fallback=[]", "a call without one takes its caller down with it"),
    "long_deadline": ("deadline=timedelta(seconds=30)", "use AISubmitAndWaitOperator"),
    "early_timeout": ("execution_timeout=timedelta(seconds=3)", "die without its fallback"),
    "greedy_fallback": ("fallback=[Endpoint('x', reserve_seconds=4), Static(None)]", "leaves nothing of the deadline"),
    "slow_model": ("endpoint_conn_id='slow_model'", "p99_seconds of the endpoint, 8 s"),
}


@pytest.fixture
def import_errors(batch_airflow: BatchAirflow) -> Iterator[dict[str, str]]:
    """File name → import error, once all of them are there. The files are gone afterwards."""
    folder = batch_airflow.airflow.environment.dags_folder
    files = {folder / f"bad_{name}.py": mistake for name, (mistake, _) in MISTAKES.items()}
    for file, mistake in files.items():
        file.write_text(BAD_DAG.format(dag_id=file.stem, mistake=mistake))
    try:
        yield _errors(batch_airflow, len(files))
    finally:
        for file in files:
            file.unlink()
        _errors(batch_airflow, 0)


def _errors(batch: BatchAirflow, count: int) -> dict[str, str]:
    deadline = time.monotonic() + 90
    while len(found := list(batch.api.pages("/importErrors", "import_errors"))) != count:
        assert time.monotonic() < deadline, [error["filename"] for error in found]
        time.sleep(0.5)
    return {Path(error["filename"]).stem: error["stack_trace"] for error in found}


def test_each_known_mistake_is_an_import_error(import_errors: dict[str, str]) -> None:
    """Where a DAG author looks, in words that say what to do. The slow model's connection is in the environment."""
    for name, (_, words) in MISTAKES.items():
        assert words in import_errors[f"bad_{name}"]
