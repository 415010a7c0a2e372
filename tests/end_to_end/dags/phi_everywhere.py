"""DAGs for the end-to-end tests: health data through all three patterns, with the switch on for the whole package.

``phi_everywhere`` succeeds; each task of ``phi_failing`` fails of something that would like to quote a record.
"""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any

from airflow.sdk import DAG, task

from airflow_provider_ai.operators.batch_inference import (
    AIPlanPartitionsOperator,
    JsonRequest,
    Limits,
    WarehouseSink,
    batch_inference,
)
from airflow_provider_ai.operators.request_reply import AISubmitAndWaitOperator
from airflow_provider_ai.operators.sync_call import LastGood, Static, load_output

LAKE, OUTPUTS, CHECKPOINTS = (os.environ[f"AI_{name}"] for name in ("LAKE_ROOT", "OUTPUTS", "CHECKPOINTS"))
COLUMNS = ["mrn", "phone", "note"]
RULES = {"mrn": "tokenise", "phone": "mask"}
GUARDED: dict[str, Any] = {"columns": COLUMNS, "redaction": RULES}
QUICKLY = {"retries": 1, "retry_delay": timedelta(seconds=1), "retry_exponential_backoff": False}
BATCH: dict[str, Any] = {
    "id_column": "visit",
    "endpoint_conn_id": "phi_model",
    "request": JsonRequest(columns=COLUMNS),
    "checkpoint_uri": CHECKPOINTS,
    "aws_conn_id": "lake",
    "rows_per_partition": 1000,
    **GUARDED,
}


def visit(number: int) -> dict[str, Any]:
    """One visit, read in the task that asks about it."""
    from pyarrow import parquet

    row = parquet.read_table(f"{LAKE}/visits/visits.parquet").to_pylist()[number]
    return {"id": row["visit"], **{name: row[name] for name in COLUMNS}}


def calling(task_id: str, number: int, *, raises: bool = False, **settings: Any) -> Any:
    """A synchronous call about one visit."""

    @task.ai_call(
        task_id=task_id,
        endpoint_conn_id="phi_model",
        fallback=[LastGood(max_age=3600), Static({"verdict": None})],
        output_uri=OUTPUTS,
        aws_conn_id="lake",
        **GUARDED,
        **settings,
    )
    def ask(row: int) -> JsonRequest:
        inputs = visit(row)
        if raises:
            raise ValueError(f"no such visit: {inputs}")
        return JsonRequest(columns=COLUMNS, inputs=inputs)

    return ask(number)


def scoring(group_id: str, table: str, quarantined: float) -> None:
    """A batch over all visits."""
    batch_inference(
        group_id=group_id,
        input=f"{LAKE}/visits/",
        sink=WarehouseSink(conn_id="warehouse", table=table),
        limits=Limits(concurrency=4, max_attempts=1, max_quarantined_fraction=quarantined),
        default_args={"retries": 0},
        **BATCH,
    )


def asking(task_id: str, dataset: str, **settings: Any) -> None:
    """Jobs about a dataset."""
    AISubmitAndWaitOperator(
        task_id=task_id,
        requests=f"{LAKE}/{dataset}/",
        id_column="visit",
        transport_conn_id="phi_jobs",
        sink=WarehouseSink(conn_id="warehouse", table="replied"),
        job_deadline=timedelta(minutes=10),
        embed_dispatcher=False,
        **GUARDED,
        **settings,
    )


def load(answer: dict[str, Any], dag_run: Any = None) -> None:
    """Into the warehouse."""
    from airflow_provider_ai.hooks.warehouse import sink_settings
    from airflow_provider_ai.runtime.answer_rows import publish_answer

    output = load_output(answer, aws_conn_id="lake", keys_conn_id="ai_keys")
    publish_answer(answer, output, sink_settings("warehouse", "called"), key=dag_run.run_id, run_id=dag_run.run_id)


with DAG("phi_everywhere", schedule=None, default_args=QUICKLY, doc_md=__doc__) as dag:
    scoring("score", "scored", 0.5)
    task(load, task_id="load")(calling("call", 0))
    calling("call_refused", -1)
    asking("ask", "visits", on_failed_jobs="quarantine", max_failed_fraction=0.5)

with DAG("phi_failing", schedule=None, default_args={"retries": 0}, doc_md=__doc__) as failing:
    scoring("strict", "strict", 0)
    scoring("checked", "checked", 0.5)
    AIPlanPartitionsOperator(task_id="plan_twice", input=f"{LAKE}/twice/", verb="resume", **BATCH)
    calling("call_strict", -1, fail_on_degraded=True)
    calling("call_raising", 0, raises=True)
    asking("ask_twice", "twice")
    asking("ask_strict", "visits", on_failed_jobs="fail")
