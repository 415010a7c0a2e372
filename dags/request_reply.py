"""Nightly replies to notes: each note of a day is a job for a fleet of AI workers, and its reply a row by morning.

The task submits the jobs and waits in the triggerer, without a worker slot. However long the workers take, whatever is
restarted meanwhile, the same run means the same jobs: a retry, or a clear, goes on waiting for them. Two jobs in a
hundred may end without a reply; they are counted by reason in the task's XCom, and wait as dead letters to be redriven
(DAG ``dead_letter_redrive``).

Connections: ``ai_jobs`` (type AI jobs: queues, claim checks, store) and ``warehouse`` (PostgreSQL, SQLite or DuckDB).
``AI_LAKE_ROOT`` names the lake, as for the nightly batch; ``notes/dt=YYYY-MM-DD/`` in it is the input of a day.
The workers: ``airflow-ai worker SPEC.toml``, as many as it takes.
"""

from __future__ import annotations

import os
from datetime import timedelta

from airflow.providers.common.sql.operators.sql import SQLCheckOperator
from airflow.sdk import DAG, CronTriggerTimetable

from airflow_provider_ai.operators.batch_inference import RUN_DATE, date_param
from airflow_provider_ai.operators.request_reply import AISubmitAndWaitOperator, WarehouseSink

LAKE = os.environ.get("AI_LAKE_ROOT", "s3://lake").rstrip("/")

# A row for each job that completed, and not one twice. Each column of the result must be true.
QUALITY_CHECK = """
SELECT
    COUNT(*) = {{ ti.xcom_pull(task_ids='ask')['completed'] }},
    COUNT(*) = COUNT(DISTINCT _record_key)
FROM note_replies
WHERE _run_id = '{{ run_id }}'
"""

with DAG(
    "nightly_note_replies",
    schedule=CronTriggerTimetable("0 1 * * *", timezone="UTC"),
    catchup=False,
    params={"date": date_param()},
    default_args={
        "retries": 2,
        "retry_delay": timedelta(seconds=15),
        "retry_exponential_backoff": True,
        "max_retry_delay": timedelta(minutes=10),
    },
    tags=["ai", "async"],
    doc_md=__doc__,
) as dag:
    ask = AISubmitAndWaitOperator(
        task_id="ask",
        transport_conn_id="ai_jobs",
        requests=f"{LAKE}/notes/dt={RUN_DATE}/",
        id_column="note_id",
        job_deadline=timedelta(hours=2),
        on_failed_jobs="quarantine",
        max_failed_fraction=0.02,
        sink=WarehouseSink(conn_id="warehouse", table="note_replies"),
    )
    check = SQLCheckOperator(task_id="replies_are_complete", conn_id="warehouse", sql=QUALITY_CHECK)

    ask >> check
