"""A DAG for the end-to-end tests: health data through all three patterns, with the switch on for the whole package."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any

from airflow.sdk import DAG, task

from airflow_provider_ai.operators.batch_inference import JsonRequest, Limits, WarehouseSink, batch_inference
from airflow_provider_ai.operators.request_reply import AISubmitAndWaitOperator
from airflow_provider_ai.operators.sync_call import LastGood, Static, load_output

LAKE, OUTPUTS, CHECKPOINTS = (os.environ[f"AI_{name}"] for name in ("LAKE_ROOT", "OUTPUTS", "CHECKPOINTS"))
COLUMNS = ["mrn", "phone", "note"]
RULES = {"mrn": "tokenise", "phone": "mask"}
GUARDED: dict[str, Any] = {"columns": COLUMNS, "redaction": RULES}


def visit(number: int) -> dict[str, Any]:
    """One visit, read in the task that asks about it."""
    from pyarrow import parquet

    row = parquet.read_table(f"{LAKE}/visits/visits.parquet").to_pylist()[number]
    return {"id": row["visit"], **{name: row[name] for name in COLUMNS}}


def calling(task_id: str, number: int) -> Any:
    """A synchronous call about one visit."""

    @task.ai_call(
        task_id=task_id,
        endpoint_conn_id="phi_model",
        fallback=[LastGood(max_age=3600), Static({"verdict": None})],
        output_uri=OUTPUTS,
        aws_conn_id="lake",
        **GUARDED,
    )
    def ask(row: int) -> JsonRequest:
        return JsonRequest(columns=COLUMNS, inputs=visit(row))

    return ask(number)


def load(answer: dict[str, Any], dag_run: Any = None) -> None:
    """Into the warehouse."""
    from airflow_provider_ai.hooks.warehouse import sink_settings
    from airflow_provider_ai.runtime.answer_rows import publish_answer

    output = load_output(answer, aws_conn_id="lake", keys_conn_id="ai_keys")
    publish_answer(answer, output, sink_settings("warehouse", "called"), key=dag_run.run_id, run_id=dag_run.run_id)


with DAG(
    "phi_everywhere",
    schedule=None,
    default_args={"retries": 1, "retry_delay": timedelta(seconds=1)},
    doc_md=__doc__,
) as dag:
    batch_inference(
        group_id="score",
        input=f"{LAKE}/visits/",
        id_column="visit",
        endpoint_conn_id="phi_model",
        request=JsonRequest(columns=COLUMNS),
        sink=WarehouseSink(conn_id="warehouse", table="scored"),
        checkpoint_uri=CHECKPOINTS,
        aws_conn_id="lake",
        limits=Limits(concurrency=4, max_attempts=1, max_quarantined_fraction=0.5),
        **GUARDED,
    )
    task(load, task_id="load")(calling("call", 0))
    calling("call_refused", -1)
    AISubmitAndWaitOperator(
        task_id="ask",
        requests=f"{LAKE}/visits/",
        id_column="visit",
        transport_conn_id="phi_jobs",
        sink=WarehouseSink(conn_id="warehouse", table="replied"),
        job_deadline=timedelta(minutes=10),
        on_failed_jobs="quarantine",
        max_failed_fraction=0.5,
        embed_dispatcher=False,
        **GUARDED,
    )
