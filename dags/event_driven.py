"""Replies that arrive start this DAG, whoever asked: a service, a shell (``airflow-ai jobs submit``), another Airflow.

A watcher looks at the store of jobs and updates the asset ``ai_replies`` with the submissions that have ended; the run
lands each of them in the warehouse. It may be told of one twice, and lands it once: publishing replaces, and never
adds.

Connections: ``ai_jobs`` and ``warehouse``. ``AI_LANDED_JOBS`` names the transport's connection where it is another one.
"""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any

from airflow.sdk import DAG, Asset, AssetWatcher, task

from airflow_provider_ai.triggers.job_replies import JobRepliesTrigger

TRANSPORT = os.environ.get("AI_LANDED_JOBS", "ai_jobs")

replies = Asset(
    "ai_replies",
    watchers=[AssetWatcher(name="ended_submissions", trigger=JobRepliesTrigger(TRANSPORT, poke_interval=30.0))],
)


def land(triggering_asset_events: Any = None, run_id: Any = None) -> dict[str, int]:
    """Rows of each submission."""
    from airflow_provider_ai.operators.request_reply import WarehouseSink, land_submission

    events = [event for each in (triggering_asset_events or {}).values() for event in each]
    named = [told["submission"] for event in events for told in event.extra["payload"]["submissions"]]
    sink = WarehouseSink(conn_id="warehouse", table="replies")
    return {
        submission: land_submission(submission, sink, transport_conn_id=TRANSPORT, run_id=run_id)["rows"]
        for submission in dict.fromkeys(named)
    }


with DAG(
    "replies_arrived",
    schedule=[replies],
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 2, "retry_delay": timedelta(seconds=15)},
    tags=["ai", "async"],
    doc_md=__doc__,
) as dag:
    task(land, task_id="land")()
