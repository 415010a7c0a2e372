"""DAG skeletons, one for each pattern: valid Python, to be saved in the DAGs folder and filled in.

The needs shape them: the deadline, how old a kept answer may be, what is done with an answer, and with PHI a reference
instead of the record. What is left to the reader raises NotImplementedError with what it should do.
"""

from __future__ import annotations

from string import Template

from airflow_provider_ai.core.call_settings import FLOOR_SECONDS, LONGEST_DEADLINE_SECONDS
from airflow_provider_ai.core.choosing_rules import Pattern
from airflow_provider_ai.core.needs import Needs


def skeleton(pattern: Pattern, needs: Needs) -> str:
    """The DAG skeleton of a pattern, as the text of a Python file that ends in a line feed."""
    if pattern == "sync":
        return _sync(needs)
    return _async(needs) if pattern == "async" else _batch(needs)


def _seconds(seconds: float) -> str:
    return f"timedelta(seconds={int(seconds) if seconds == int(seconds) else seconds})"


def _sync(needs: Needs) -> str:
    fits = FLOOR_SECONDS < needs.latency_seconds <= LONGEST_DEADLINE_SECONDS
    call = Template(_SYNC_WITH_REFERENCE if needs.phi else _SYNC_WITH_VALUES).substitute(
        deadline=_seconds(needs.latency_seconds if fits else LONGEST_DEADLINE_SECONDS),
        max_age=_seconds(needs.freshness_seconds),
    )
    return call + (_SYNC_WRITES if needs.effect == "ehr-write" else _SYNC_READS)


def _async(needs: Needs) -> str:
    body = Template(_ASYNC).substitute(deadline=_seconds(needs.latency_seconds))
    return body + (_ASYNC_WRITES if needs.effect == "ehr-write" else _ASYNC_READS)


def _batch(needs: Needs) -> str:
    if needs.effect == "read":
        return _BATCH.replace("$imports", "DAG, CronTriggerTimetable").replace("$write", _BATCH_READS)
    return _BATCH.replace("$imports", "DAG, CronTriggerTimetable, task").replace("$write", _BATCH_WRITES)


# --- synchronous

_SYNC_WITH_VALUES = '''\
"""Triage: one call with a hard deadline per run, and an answer whatever happens."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import DAG, Param, task

from airflow_provider_ai.operators.sync_call import (
    AIDegradedBranchOperator,
    AISyncCallOperator,
    LastGood,
    OpenInferenceRequest,
    Static,
)

with DAG(
    "triage",
    schedule=None,
    params={"age": Param(50, type="integer"), "pulse": Param(80, type="integer")},
    render_template_as_native_obj=True,  # numbers stay numbers
    doc_md=__doc__,
) as dag:
    call = AISyncCallOperator(
        task_id="call",
        endpoint_conn_id="triage_model",
        request=OpenInferenceRequest(inputs={"age": "{{ params.age }}", "pulse": "{{ params.pulse }}"}),
        deadline=$deadline,
        fallback=[LastGood(max_age=$max_age), Static({"priority": "routine"})],
    )
    answer = call.output
'''

_SYNC_WITH_REFERENCE = '''\
"""Triage: one call with a hard deadline per run, and an answer whatever happens.

A run is given a reference. The record is read in the task, so nothing about a person stands in params or dag_run.conf.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import DAG, Param, task

from airflow_provider_ai.operators.sync_call import (
    AIDegradedBranchOperator,
    LastGood,
    OpenInferenceRequest,
    Static,
)

with DAG(
    "triage",
    schedule=None,
    params={"reference": Param("", type="string", description="names the record; says nothing about the person")},
    doc_md=__doc__,
) as dag:

    @task.ai_call(
        endpoint_conn_id="triage_model",
        deadline=$deadline,
        fallback=[LastGood(max_age=$max_age), Static({"priority": "routine"})],
    )
    def call(reference: str) -> OpenInferenceRequest:
        raise NotImplementedError("read the record, and return OpenInferenceRequest(inputs={'age': …, 'pulse': …})")

    answer = call("{{ params.reference }}")
'''

_SYNC_READS = """\
    branch = AIDegradedBranchOperator(
        task_id="is_degraded",
        answer=answer,
        follow_task_ids_if_degraded="human_review",
        follow_task_ids_if_good="use_answer",
    )

    @task
    def use_answer(answer: dict[str, Any]) -> None:
        raise NotImplementedError("show answer['output'] to whoever asked")

    @task
    def human_review(answer: dict[str, Any]) -> None:
        raise NotImplementedError("show it as degraded: answer['reason'] and answer['source'] say why and from where")

    branch >> [use_answer(answer), human_review(answer)]
"""

_SYNC_WRITES = """\
    branch = AIDegradedBranchOperator(
        task_id="is_degraded",
        answer=answer,
        follow_task_ids_if_degraded="human_review",
        follow_task_ids_if_good="write_to_ehr",
    )

    @task(retries=3)
    def write_to_ehr(answer: dict[str, Any], key: str) -> None:
        raise NotImplementedError("write under this key if nothing is there yet: a retry comes with the same key")

    @task
    def human_review(answer: dict[str, Any]) -> None:
        raise NotImplementedError("put it on the list of the person who decides: nothing is written automatically")

    branch >> [write_to_ehr(answer, "{{ dag.dag_id }}/{{ run_id }}"), human_review(answer)]
"""

# --- asynchronous

_ASYNC = '''\
"""Discharge letters: a worker behind a queue summarises one per run; the task sleeps until the summary is there.

A run is given a reference. The worker reads the letter (``airflow-ai worker SPEC.toml``, with a handler that does), so
nothing about a person stands in params, dag_run.conf or a message.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import DAG, Param, task

from airflow_provider_ai.operators.request_reply import AISubmitAndWaitOperator, load_replies

with DAG(
    "discharge_letters",
    schedule=None,
    params={"letter": Param("", type="string", description="a reference, such as s3://bucket/key; not the letter")},
    default_args={"retries": 2, "retry_delay": timedelta(seconds=15)},
    doc_md=__doc__,
) as dag:
    summarise = AISubmitAndWaitOperator(
        task_id="summarise",
        transport_conn_id="ai_jobs",  # queues, claim checks and store, the same as the worker's
        requests={"letter": "{{ params.letter }}"},
        job_deadline=$deadline,
    )
'''

_ASYNC_READS = """\

    @task
    def use_summary(manifest: dict[str, Any]) -> None:
        for reply in load_replies(manifest):
            raise NotImplementedError(f"show reply.output to whoever asked; it may come twice, under {reply.job_id}")

    use_summary(summarise.output)
"""

_ASYNC_WRITES = """\

    @task(retries=3)
    def write_to_ehr(manifest: dict[str, Any]) -> None:
        for reply in load_replies(manifest):
            raise NotImplementedError(f"write reply.output under {reply.job_id} if nothing is there yet")

    @task(trigger_rule="all_failed")
    def human_review() -> None:
        raise NotImplementedError("put it on the list of the person who writes the summary instead")

    write_to_ehr(summarise.output)
    summarise >> human_review()
"""

# --- batch

_BATCH = '''\
"""Risk scores: every record of a day goes to the model once, and its score stands in the warehouse by morning.

Whoever needs a score looks it up there. A retry resumes; the param ai_verb says what else to do with earlier answers.
"""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import $imports

from airflow_provider_ai.operators.batch_inference import (
    RUN_DATE,
    Limits,
    OpenInferenceRequest,
    WarehouseSink,
    batch_inference,
    date_param,
    verb_param,
)
from airflow_provider_ai.sensors.ai_endpoint import AIEndpointReadySensor

with DAG(
    "risk_scores",
    schedule=CronTriggerTimetable("0 2 * * *", timezone="UTC"),  # as often as scores may be old, less a run
    catchup=False,
    max_active_runs=1,
    params={"ai_verb": verb_param(), "date": date_param()},
    default_args={"retries": 2, "retry_delay": timedelta(seconds=15), "retry_exponential_backoff": True},
    doc_md=__doc__,
) as dag:
    ready = AIEndpointReadySensor(
        task_id="model_is_ready", endpoint_conn_id="risk_model", deferrable=True, timeout=timedelta(hours=2)
    )
    score = batch_inference(
        group_id="score",
        input=f"s3://lake/visits/dt={RUN_DATE}/",
        id_column="visit_id",
        endpoint_conn_id="risk_model",
        request=OpenInferenceRequest(columns=["age", "pulse"], records_per_request=64),
        sink=WarehouseSink(conn_id="warehouse", table="risk_scores"),
        checkpoint_uri="s3://lake/_ai_checkpoints/",
        limits=Limits(concurrency=16, max_quarantined_fraction=0.01),
    )
$write'''

_BATCH_READS = """\
    ready >> score
"""

_BATCH_WRITES = """\

    @task
    def write_to_ehr() -> None:
        raise NotImplementedError("read this run's rows; write each under its _record_key if nothing is there yet")

    ready >> score >> write_to_ehr()
"""
