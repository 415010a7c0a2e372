"""Dead letters, once their cause is gone: have their jobs done once more.

A job that fails for good, or whose message nobody can deal with, becomes a dead letter, and the task that waits for it
fails at once. Remove the cause, trigger this DAG, for all of them or for one reason, then clear the tasks that have
failed: they go on with the new generation of those jobs and keep what was answered already.

Connection: ``ai_jobs``. The same from a shell: ``airflow-ai dlq list SPEC.toml``, ``airflow-ai dlq redrive SPEC.toml``.
"""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG, Param

from airflow_provider_ai.operators.dead_letters import AIRedriveOperator
from airflow_provider_ai.sensors.dead_letters import DeadLetterQueueSensor

with DAG(
    "dead_letter_redrive",
    schedule=None,
    max_active_runs=1,
    params={
        "reason": Param(
            None,
            type=["null", "string"],
            title="Reason",
            description="Only dead letters with this reason. The log of look has the reasons there are. Empty: all.",
        )
    },
    default_args={"retries": 2, "retry_delay": timedelta(seconds=15)},
    render_template_as_native_obj=True,
    tags=["ai", "async"],
    doc_md=__doc__,
) as dag:
    look = DeadLetterQueueSensor(task_id="look", timeout=60, poke_interval=10, soft_fail=True)
    redrive = AIRedriveOperator(task_id="redrive", reason="{{ params.reason }}")
    look >> redrive
