"""DAGs for the end-to-end tests: jobs for workers, with the input and the way of waiting named by the test."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any

from airflow.sdk import DAG, Param

from airflow_provider_ai.operators.request_reply import AISubmitAndWaitOperator, WarehouseSink

LAKE = os.environ["AI_LAKE_ROOT"]
WAITS = 50
QUICKLY = {"retries": 2, "retry_delay": timedelta(seconds=1)}
INPUT = {"input": Param("", type="string")}


def asking(dag_id: str, **settings: Any) -> DAG:
    """One task that asks about the notes of a data set."""
    given = {"transport_conn_id": "scenario_jobs", "job_deadline": timedelta(minutes=10), **settings}
    with DAG(dag_id, schedule=None, params=INPUT, default_args=QUICKLY, doc_md=__doc__) as dag:
        AISubmitAndWaitOperator(
            task_id="ask",
            requests=f"{LAKE}/{{{{ params.input }}}}/",
            id_column="note_id",
            sink=WarehouseSink(conn_id="warehouse", table="answers"),
            **given,
        )
    return dag


ask_once = asking("ask_once")
ask_here = asking("ask_here", deferrable=False)
ask_anew = asking("ask_anew", transport_conn_id="ai_jobs")
ask_over_kafka = asking("ask_over_kafka", transport_conn_id="kafka_jobs")
ask_by_webhook = asking("ask_by_webhook", transport_conn_id="hook_jobs", wait="webhook", embed_dispatcher=False)

with DAG("fifty_waits", schedule=None, params=INPUT, default_args=QUICKLY, doc_md=__doc__) as fifty_waits:
    AISubmitAndWaitOperator.partial(
        task_id="ask",
        transport_conn_id="scenario_jobs",
        id_column="note_id",
        job_deadline=timedelta(minutes=20),
    ).expand(requests=[f"{LAKE}/waits/part={number:02d}/" for number in range(WAITS)])
