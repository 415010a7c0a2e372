"""DAGs for the end-to-end tests: the batch pattern on a stub model, with the input named by a param."""

from __future__ import annotations

import os
from datetime import timedelta

from airflow.sdk import DAG, CronTriggerTimetable, Param

from airflow_provider_ai.operators.batch_inference import (
    RUN_DATE,
    JsonRequest,
    Limits,
    WarehouseSink,
    batch_inference,
    date_param,
    verb_param,
)
from airflow_provider_ai.sensors.ai_endpoint import AIEndpointReadySensor

LAKE = os.environ["AI_LAKE_ROOT"]
QUICKLY = {"retries": 3, "retry_delay": timedelta(seconds=1), "retry_exponential_backoff": False}
COMMON = {
    "id_column": "visit_id",
    "endpoint_conn_id": "stub_model",
    "request": JsonRequest(columns=["note"]),
    "checkpoint_uri": f"{LAKE}/_ai_checkpoints/",
    "default_args": QUICKLY,
}


def scenarios(dag_id: str, *, rows_per_partition: int) -> DAG:
    """One run per data set, triggered by the tests. Param `sink` is the connection of the warehouse."""
    params = {"ai_verb": verb_param(), "input": Param("", type="string"), "sink": Param("warehouse", type="string")}
    with DAG(dag_id, schedule=None, params=params, doc_md=__doc__) as dag:
        batch_inference(
            group_id="score",
            input=f"{LAKE}/{{{{ params.input }}}}/",
            sink=WarehouseSink(conn_id="{{ params.sink }}", table="scenarios"),
            limits=Limits(concurrency=16, max_quarantined_fraction=0.1, backoff_base_seconds=0.05),
            rows_per_partition=rows_per_partition,
            max_active_tis_per_dagrun=2,
            **COMMON,
        )
    return dag


several_partitions = scenarios("several_partitions", rows_per_partition=20)
one_partition = scenarios("one_partition", rows_per_partition=1000)

with DAG("on_s3", schedule=None, params={"bucket": Param("", type="string")}, doc_md=__doc__) as on_s3:
    batch_inference(
        group_id="score",
        input="s3://{{ params.bucket }}/visits/",
        sink=WarehouseSink(conn_id="warehouse", table="on_s3"),
        aws_conn_id="lake",
        rows_per_partition=20,
        **{**COMMON, "checkpoint_uri": "s3://{{ params.bucket }}/checkpoints/"},
    )

# Scheduled, for backfills.
with DAG(
    "backfilled",
    schedule=CronTriggerTimetable("0 2 * * *", timezone="UTC"),
    catchup=False,
    params={"ai_verb": verb_param(), "date": date_param()},
    doc_md=__doc__,
) as backfilled:
    batch_inference(
        group_id="score",
        input=f"{LAKE}/backfilled/dt={RUN_DATE}/",
        sink=WarehouseSink(conn_id="warehouse", table="backfilled"),
        rows_per_partition=20,
        **COMMON,
    )

with DAG("waiting", schedule=None, doc_md=__doc__) as waiting:
    AIEndpointReadySensor(
        task_id="ready", endpoint_conn_id="late_model", deferrable=True, poke_interval=0.5, timeout=120, retries=0
    )
