"""The four operators and their task group, over a runtime that answers at once."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pendulum
import pytest
from airflow.sdk import DAG, CronTriggerTimetable
from airflow.sdk.exceptions import AirflowException, AirflowFailException

from airflow_provider_ai.core.keyring import keyring_text
from airflow_provider_ai.exceptions import (
    DuplicateIdError,
    QuarantineThresholdError,
    SinkUnavailableError,
    SpecError,
)
from airflow_provider_ai.operators import batch_inference as module
from airflow_provider_ai.operators.batch_inference import (
    AIBatchInferenceOperator,
    AIPlanPartitionsOperator,
    AIPublishOperator,
    AIReconcileOperator,
    Limits,
    OpenAIChatRequest,
    OpenInferenceRequest,
    WarehouseSink,
    batch_inference,
    plan_reference,
    verb_param,
)
from airflow_provider_ai.operators.settings import LONGEST_GRACE_SECONDS, shared_limits
from airflow_provider_ai.runtime import batch_inference as runtime_module
from airflow_provider_ai.runtime import job as job_module
from tests.airflow_shell.fake_runtime import FakeRuntime
from tests.support.keys import local_keys
from tests.support.processes import REPOSITORY, child_environment

START = pendulum.datetime(2026, 3, 1, tz="UTC")
COMMON: dict[str, Any] = {
    "input": "/lake/visits/dt={{ ds }}/",
    "id_column": "visit_id",
    "endpoint_conn_id": "risk_model",
    "request": OpenInferenceRequest(columns=["a", "b"], records_per_request=64),
    "sink": WarehouseSink(conn_id="warehouse", table="risk_{{ ds_nodash }}"),
    "checkpoint_uri": "/lake/_ai_checkpoints/",
}

# Without a logical date there is no `ds` to render.
CONSTANT = {**COMMON, "input": "/lake/visits/", "sink": WarehouseSink(conn_id="warehouse", table="t")}


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch, set_connection: Callable[..., None]) -> FakeRuntime:
    """The fake in place of the real one, and the two connections."""
    fake = FakeRuntime()
    for name in ("plan_batch", "infer_partition", "publish_batch", "reconcile_batch"):
        monkeypatch.setattr(runtime_module, name, getattr(fake, name))
    monkeypatch.setattr(job_module, "open_plans", lambda _job: None)
    monkeypatch.setattr(job_module, "load_manifest", fake.load_manifest)
    set_connection("risk_model", conn_type="ai_endpoint", host="http://127.0.0.1:9", extra={"model": "m"})
    set_connection("warehouse", conn_type="postgres", host="db", login="u", password="s3cr3t-value", schema="lake")
    return fake


def dag_of(dag_id: str, *, dag_settings: dict[str, Any] | None = None, **settings: Any) -> DAG:
    schedule = CronTriggerTimetable("0 2 * * *", timezone="UTC")
    params = {"ai_verb": verb_param()}
    with DAG(dag_id, schedule=schedule, start_date=START, params=params, **(dag_settings or {})) as dag:
        batch_inference(group_id="score", **{**COMMON, **settings})
    return dag


def test_the_group_runs_plan_infer_publish_reconcile(
    runtime: FakeRuntime, run_dag: Callable[..., Any], xcom: Callable[..., Any]
) -> None:
    """Connections resolved, templates rendered, each call made once and not in the main thread."""
    run = run_dag(dag_of("group_runs"), logical_date=START)
    assert run.state == "success"
    assert [asked[0] for asked in runtime.asked] == ["plan", "infer", "infer", "publish", "reconcile"]
    assert runtime.threads == {"ai-batch"}
    plan = runtime.asked[0]
    assert plan[1] == "resume"
    job = runtime.jobs["publish"][0]
    assert job.input.uri == "/lake/visits/dt=2026-03-01/"
    assert (job.sink.table, job.sink.schema) == ("risk_20260301", None)
    assert job.endpoint.url == "http://127.0.0.1:9"
    assert runtime.asked[3][2] == run.run_id
    assert {asked[2] for asked in runtime.asked[1:3]} == {0, 1}, "each partition once; which of them first is open"
    assert {asked[1].fingerprint for asked in runtime.asked[1:]} == {"f" * 32}
    assert xcom(run, "score.reconcile")["published"] == 198


def test_the_warehouse_is_known_only_where_it_is_needed(runtime: FakeRuntime, run_dag: Callable[..., Any]) -> None:
    """The tasks that call the model never see its password."""
    run_dag(dag_of("least_privilege"), logical_date=START)
    sinks = {phase: [job.sink is not None for job in jobs] for phase, jobs in runtime.jobs.items()}
    assert sinks == {"plan": [False], "infer": [False, False], "publish": [True], "reconcile": [True]}


def test_every_step_runs_for_health_data(
    runtime: FakeRuntime, run_dag: Callable[..., Any], set_connection: Callable[..., None], tmp_path: Path
) -> None:
    """Also those that touch no record: the policy is whole, or nothing runs, so each of them has keys and audit."""
    switch = {"model": "m", "keys_conn_id": "ai_keys", "phi": True}
    set_connection("risk_model", conn_type="ai_endpoint", host="http://127.0.0.1:9", extra=switch)
    set_connection("warehouse", conn_type="sqlite", host=str(tmp_path / "warehouse.db"))
    set_connection("ai_keys", conn_type="ai_keys", password=keyring_text(local_keys()))
    set_connection("ai_audit", conn_type="ai_audit", password="s3cr3t-value" * 4)
    set_connection("ai_store", conn_type="sqlite", host=str(tmp_path / "store.db"))
    run = run_dag(dag_of("health_data", columns=["a", "b"]), logical_date=START)
    assert run.state == "success"
    who = [job.audit.actor.task_id for jobs in runtime.jobs.values() for job in jobs]
    assert sorted(who) == ["score.infer", "score.infer", "score.plan", "score.publish", "score.reconcile"]


def test_every_step_has_the_keys_of_the_endpoints_connection(
    runtime: FakeRuntime, run_dag: Callable[..., Any], set_connection: Callable[..., None]
) -> None:
    """So that no step writes, or expects, checkpoints in the clear."""
    set_connection("ai_keys", conn_type="ai_keys", password=keyring_text(local_keys()))
    extra = {"model": "m", "keys_conn_id": "ai_keys"}
    set_connection("risk_model", conn_type="ai_endpoint", host="http://127.0.0.1:9", extra=extra)
    run_dag(dag_of("with_keys"), logical_date=START)
    assert {job.keys for jobs in runtime.jobs.values() for job in jobs} == {local_keys()}


def test_xcom_carries_references_and_counts_only(
    runtime: FakeRuntime, run_dag: Callable[..., Any], xcom: Callable[..., Any]
) -> None:
    """Small, JSON, and nothing of a connection."""
    run = run_dag(dag_of("references"), logical_date=START)
    partitions, plan = xcom(run, "score.plan"), xcom(run, "score.plan", key="plan")
    assert [part["partition"] for part in partitions] == [0, 1]
    assert [part["label"] for part in partitions] == [
        "dt=2026-03-01/part-0.parquet rows 0–99 (100)",
        "dt=2026-03-01/part-0.parquet rows 100–199 (100)",
    ]
    assert all(part["plan"] == plan for part in partitions)
    assert len(json.dumps(partitions)) < 1_000
    reports = [xcom(run, "score.infer", map_index=index) for index in (0, 1)]
    assert [(report["rows"], report["succeeded"], report["quarantined"]) for report in reports] == [(100, 99, 1)] * 2
    assert "s3cr3t-value" not in json.dumps([partitions, plan, reports, xcom(run, "score.publish")])


def test_mapped_tasks_are_named(runtime: FakeRuntime, run_dag: Callable[..., Any]) -> None:
    """The grid shows files and rows instead of numbers."""
    run = run_dag(dag_of("named"), logical_date=START)
    names = {ti.map_index: ti.rendered_map_index for ti in run.get_task_instances() if ti.task_id == "score.infer"}
    assert names[1] == "dt=2026-03-01/part-0.parquet rows 100–199 (100)"


def test_the_plan_belongs_to_the_run(runtime: FakeRuntime, run_dag: Callable[..., Any]) -> None:
    """Another run, another DAG or another group has a plan of its own; the same run finds its own again."""
    for dag_id, day in (("run_key", 1), ("run_key", 2), ("run_key_other", 1)):
        run_dag(dag_of(dag_id), logical_date=START.replace(day=day))
    keys = [asked[2] for asked in runtime.asked if asked[0] == "plan"]
    assert len(set(keys)) == 3
    assert "run_key" not in "".join(keys)


@pytest.mark.parametrize("verb", ["resume", "retry_failed", "recompute"])
def test_the_dag_param_chooses_the_verb(verb: str, runtime: FakeRuntime, run_dag: Callable[..., Any]) -> None:
    """And the mapped tasks get the pass it opened by reference."""
    run_dag(dag_of(f"param_{verb}"), {"ai_verb": verb}, logical_date=START)
    assert runtime.asked[0][1] == verb
    passes = {(asked[1].epoch, asked[1].round) for asked in runtime.asked[1:]}
    assert passes == {{"resume": (0, 0), "retry_failed": (0, 1), "recompute": (1, 0)}[verb]}


def test_without_the_param_the_verb_is_resume(runtime: FakeRuntime, run_dag: Callable[..., Any]) -> None:
    """A DAG need not declare it."""
    with DAG("no_param", schedule=None, start_date=START) as dag:
        batch_inference(**CONSTANT)
    assert run_dag(dag).state == "success"
    assert runtime.asked[0][1] == "resume"


def test_a_rendered_verb_is_checked(runtime: FakeRuntime, run_dag: Callable[..., Any]) -> None:
    """It may come from anywhere; an unknown one ends the task at once, before anything is called."""
    dag = dag_of("bad_verb", verb="{{ 'restart' }}", default_args={"retries": 0})
    run = run_dag(dag, logical_date=START)
    assert run.state == "failed"
    assert runtime.asked == []


@pytest.mark.parametrize(
    ("phase", "error", "retried"),
    [
        ("plan", DuplicateIdError("rows 3 and 7 of part-0.parquet share an id"), False),
        ("infer", QuarantineThresholdError("30 quarantined, 10 allowed"), False),
        ("publish", SinkUnavailableError("the warehouse is down"), True),
        ("publish", ValueError("patient 4711"), True),
        ("reconcile", OSError("patient 4711"), True),
    ],
)
def test_errors_end_or_retry_the_task(
    phase: str,
    error: Exception,
    retried: bool,
    runtime: FakeRuntime,
    run_dag: Callable[..., Any],
    capfd: pytest.CaptureFixture[str],
) -> None:
    """A retry is spent only where it can help; nothing foreign is printed."""
    runtime.fail[phase] = error
    once = {"retries": 1, "retry_delay": timedelta(0), "retry_exponential_backoff": False}
    run = run_dag(dag_of(f"errors_{phase}_{type(error).__name__}", default_args=once), logical_date=START)
    tries = {(str(ti.state), ti.try_number) for ti in run.get_task_instances() if ti.task_id == f"score.{phase}"}
    assert tries == {("failed", 2 if retried else 1)}
    printed = "".join(capfd.readouterr())
    assert type(error).__name__ in printed or str(error) in printed
    assert "4711" not in printed


def executed(error: Exception, runtime: FakeRuntime) -> BaseException:
    """What an operator raises for ``error``, called as Airflow calls it."""
    from airflow.sdk.bases.operator import ExecutorSafeguard

    runtime.fail["publish"] = error
    operator = AIPublishOperator(task_id="publish", plan=plan_reference_of(runtime), **CONSTANT)
    ExecutorSafeguard.tracker.set(operator)
    with pytest.raises(AirflowException) as raised:
        operator.execute({"ti": SimpleNamespace(run_id="r")})  # type: ignore[typeddict-item]
    return raised.value


def plan_reference_of(runtime: FakeRuntime) -> dict[str, Any]:
    job = SimpleNamespace(checkpoint=SimpleNamespace(uri="/lake/"))
    plan = runtime.plan_batch(job, verb="resume", run_key="r", on_progress=lambda _: None)
    runtime.asked.clear()
    return plan.to_dict()


def test_what_is_raised_has_no_history(runtime: FakeRuntime) -> None:
    """Neither cause nor context: a traceback printer finds nothing of the original."""
    for error in (SinkUnavailableError("down"), ValueError("patient 4711")):
        raised = executed(error, runtime)
        assert raised.__cause__ is None
        assert raised.__context__ is None
        assert "4711" not in str(raised)


def test_a_missing_connection_ends_the_task(
    runtime: FakeRuntime, run_dag: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before anything was called; retries are not spent on it."""
    monkeypatch.delenv("AIRFLOW_CONN_RISK_MODEL")
    run = run_dag(dag_of("no_connection"), logical_date=START)
    plan = next(ti for ti in run.get_task_instances() if ti.task_id == "score.plan")
    assert str(plan.state) == "failed"
    assert runtime.asked == []


# --- what is refused when the DAG is parsed -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"id_column": ""}, "id_column must be a name"),
        ({"input": " "}, "input uri must be a path or URI"),
        ({"checkpoint_uri": ""}, "checkpoint uri must be"),
        ({"rows_per_partition": 0}, "rows_per_partition must be an integer ≥ 1"),
        ({"max_partitions": 5000}, r"max_partitions must be an integer in \[1, 1024\]"),
        ({"checkpoint_interval_seconds": 0}, "interval_seconds must be a number > 0"),
        ({"format": "xml"}, "format must be one of"),
        ({"limits": {"concurrency": 3}}, r"limits must be Limits\(…\)"),
        ({"sink": "warehouse"}, r"sink must be WarehouseSink\(…\)"),
        ({"sink": None}, "needs a sink"),
        ({"request": "prompt"}, "request must be a request"),
        (
            {"request": OpenInferenceRequest()},
            "must name its columns in a batch, in the order the model was trained on",
        ),
        ({"request": OpenInferenceRequest(columns=["a"], inputs=[])}, "they belong to a synchronous call"),
        ({"verb": "restart"}, "verb must be one of"),
        ({"max_active_tis_per_dagrun": 0}, "max_active_tis_per_dagrun must be an integer ≥ 1"),
    ],
)
def test_constants_are_checked_when_the_dag_is_parsed(settings: dict[str, Any], message: str) -> None:
    """A broken setting is an import error of the DAG, not a failed night."""
    with pytest.raises(SpecError, match=message):
        dag_of("refused", **settings)


def test_an_unknown_argument_is_refused() -> None:
    """A typo in an optional setting does not go unnoticed."""
    with pytest.raises(TypeError, match="row_per_partition"):
        dag_of("typo", row_per_partition=5)


@pytest.mark.parametrize("fields", [{"conn_id": ""}, {"table": ""}, {"schema": 3}])
def test_a_sink_is_checked(fields: dict[str, Any]) -> None:
    """Where it is made."""
    with pytest.raises(SpecError, match=next(iter(fields))):
        WarehouseSink(**{"conn_id": "warehouse", "table": "t", **fields})


# --- limits, retries, rendering -----------------------------------------------------------------------------------


def test_partitions_side_by_side_share_the_limits(runtime: FakeRuntime, run_dag: Callable[..., Any]) -> None:
    """Two of at most four run at once here, so each gets half: the run stays within what its author wrote."""
    limits = Limits(concurrency=64, requests_per_minute=600, tokens_per_minute=None)
    run_dag(dag_of("shares", limits=limits, max_active_tis_per_dagrun=4), logical_date=START)
    shares = {(job.limits.concurrency, job.limits.requests_per_minute) for job in runtime.jobs["infer"]}
    assert shares == {(32, 300)}
    assert runtime.jobs["publish"][0].limits == limits


@pytest.mark.parametrize("tasks", [1, 3, 64, 1000])
def test_the_shares_never_add_up_to_more_than_the_whole(tasks: int) -> None:
    """Except that every task may make one call at a time."""
    limits = Limits(concurrency=64, requests_per_minute=100.0, tokens_per_minute=9e4, stop_grace_seconds=60)
    share = shared_limits(limits, tasks=tasks)
    assert share.concurrency * tasks <= max(64, tasks)
    assert share.requests_per_minute is not None
    assert share.requests_per_minute * tasks == pytest.approx(100)
    assert share.tokens_per_minute is not None
    assert share.tokens_per_minute * tasks == pytest.approx(9e4)
    assert share.stop_grace_seconds == LONGEST_GRACE_SECONDS
    assert share.max_quarantined_fraction == limits.max_quarantined_fraction


def test_limits_are_each_tasks_own_without_a_cap_on_tasks(runtime: FakeRuntime, run_dag: Callable[..., Any]) -> None:
    """Composed by hand: plan and mapped inference only, no sink at all."""
    settings = {**CONSTANT, "sink": None, "limits": Limits(concurrency=10)}
    with DAG("by_hand", schedule=None, start_date=START) as dag:
        plan = AIPlanPartitionsOperator(task_id="plan", verb="recompute", **settings)
        AIBatchInferenceOperator.partial(task_id="infer", **settings).expand(partition=plan.output)
    assert run_dag(dag).state == "success"
    assert {job.limits.concurrency for job in runtime.jobs["infer"]} == {10}
    assert runtime.asked[0][1] == "recompute"


def test_retries_default_to_two_and_yield_to_the_dag() -> None:
    """A batch without retries would not resume by itself; what the DAG, the group or the caller says comes first."""
    own = dag_of("retries_default").task_dict
    assert {task.retries for task in own.values()} == {2}
    of_dag = dag_of("retries_dag", dag_settings={"default_args": {"retries": 7}}).task_dict
    assert {task.retries for task in of_dag.values()} == {7}
    of_call = dag_of("retries_call", dag_settings={"default_args": {"retries": 7}}, default_args={"retries": 1})
    assert {task.retries for task in of_call.task_dict.values()} == {1}


def test_rendered_fields_show_where_and_not_what(runtime: FakeRuntime, run_dag: Callable[..., Any]) -> None:
    """The UI's Rendered Templates: the sink as fields, and no prompt."""
    from airflow.models.renderedtifields import RenderedTaskInstanceFields
    from airflow.utils.session import create_session
    from sqlalchemy import select

    prompt = OpenAIChatRequest(prompt="Summarise: {{ record.note }}")
    run = run_dag(dag_of("rendered", request=prompt), logical_date=START)
    with create_session() as session:
        query = select(RenderedTaskInstanceFields).where(
            RenderedTaskInstanceFields.dag_id == "rendered", RenderedTaskInstanceFields.run_id == run.run_id
        )
        rendered = {(row.task_id, row.map_index): row.rendered_fields for row in session.scalars(query)}
    assert rendered["score.infer", 1]["sink"] == {"conn_id": "warehouse", "table": "risk_20260301", "schema": None}
    assert rendered["score.infer", 1]["partition"]["partition"] == 1
    assert rendered["score.plan", -1]["verb"] == "resume"
    assert rendered["score.publish", -1]["plan"]["fingerprint"] == "f" * 32
    assert "Summarise" not in str(rendered)


def test_progress_is_in_the_task_state_store(runtime: FakeRuntime, run_dag: Callable[..., Any]) -> None:
    """Airflow shows it under Storage of the task instance."""
    from airflow.models.task_state_store import TaskStateStoreModel
    from airflow.utils.session import create_session
    from sqlalchemy import select

    run = run_dag(dag_of("progress"), logical_date=START)
    with create_session() as session:
        rows = session.scalars(select(TaskStateStoreModel).where(TaskStateStoreModel.run_id == run.run_id)).all()
        values = {(row.task_id, row.map_index): json.loads(row.value) for row in rows if row.key == "progress"}
    assert {"done": 100, "quarantined": 1, "total": 100, "records_per_second": 200.0}.items() <= values[
        "score.infer", 1
    ].items()


# --- the DAG as Airflow stores it ---------------------------------------------------------------------------------

PRINT_SERIALISED = """
import json, runpy, sys
from airflow.serialization.serialized_objects import DagSerialization
dag = runpy.run_path(sys.argv[1])["dag"]
print(json.dumps(DagSerialization.to_dict(dag), sort_keys=True))
"""

DAG_FILE = """
import pendulum
from airflow.sdk import DAG
from pydantic import BaseModel
from airflow_provider_ai.operators.batch_inference import (
    Limits, OpenAIChatRequest, WarehouseSink, batch_inference, verb_param,
)

class Answer(BaseModel):
    risk: float

with DAG("stored", schedule=None, start_date=pendulum.datetime(2026, 3, 1), params={"ai_verb": verb_param()}) as dag:
    batch_inference(
        group_id="score", input="/lake", id_column="id", endpoint_conn_id="risk_model", checkpoint_uri="/checkpoints",
        request=OpenAIChatRequest(prompt="{{ record.note }}", output_schema=Answer), limits=Limits(concurrency=8),
        sink=WarehouseSink(conn_id="warehouse", table="t"),
    )
"""


def test_the_stored_dag_is_the_same_in_every_process(tmp_path: Path, airflow_home: Path) -> None:
    """Or Airflow would write a new version of the DAG whenever it is parsed; and it can be read back."""
    from airflow.serialization.serialized_objects import DagSerialization

    file = tmp_path / "stored.py"
    file.write_text(DAG_FILE)
    command = [sys.executable, "-c", PRINT_SERIALISED, str(file)]
    stored = {
        subprocess.run(
            command, env=child_environment(), cwd=REPOSITORY, capture_output=True, text=True, check=True
        ).stdout.splitlines()[-1]
        for _ in range(2)
    }
    assert len(stored) == 1
    dag = DagSerialization.from_dict(json.loads(stored.pop()))
    assert set(dag.task_dict) == {"score.plan", "score.infer", "score.publish", "score.reconcile"}


HEAVY = "('pyarrow', 'pandas', 'duckdb', 'aiohttp', 'adbc_driver_postgresql', 'boto3')"
PRINT_IMPORTS = f"""
import sys
import airflow.sdk, airflow.providers.common.compat.sdk
before = set(sys.modules)
import airflow_provider_ai.operators.batch_inference, airflow_provider_ai.sensors.ai_endpoint
print(sorted({{name.split('.')[0] for name in set(sys.modules) - before}} & set({HEAVY})))
"""


def test_parsing_a_dag_imports_no_heavy_library(airflow_home: Path) -> None:
    """The dag processor pays for every import on every parse."""
    done = subprocess.run(
        [sys.executable, "-c", PRINT_IMPORTS],
        env=child_environment(),
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == "[]"


# --- references ---------------------------------------------------------------------------------------------------


def test_a_plan_is_recognised_in_every_form(runtime: FakeRuntime) -> None:
    """The list of partitions, one of them, or the reference alone."""
    reference = plan_reference_of(runtime)
    partition = {"plan": reference, "partition": 0, "label": "x"}
    assert {plan_reference(value) for value in (reference, partition, [partition, partition])} == {
        plan_reference(reference)
    }


@pytest.mark.parametrize("value", [None, [], {}, "x", {"plan": {"directory": "d"}}])
def test_anything_else_is_refused(value: Any) -> None:
    """With what to do about it."""
    with pytest.raises(SpecError, match="clear the plan task"):
        plan_reference(value)


def test_everything_a_dag_needs_comes_from_one_module() -> None:
    """The names of the guide's first example."""
    assert all(hasattr(module, name) for name in module.__all__)
    assert issubclass(AIReconcileOperator, module.BatchOperator)
    assert issubclass(AirflowFailException, AirflowException)
