"""Clinical notes under the PHI policy, in each pattern: one note at once, a day's notes by workers, and as a batch.

The switch is in the connections, not here: ``notes_model`` and ``notes_jobs`` say ``"phi": true``, and from then on a
task runs only while everything protects it. What a DAG's author adds is the minimum: ``COLUMNS``, the fields that may
leave, and ``REDACTION``, what is done to them first. Record number, name and birth date are in the notes and are not
read. Nothing about a person passes through Airflow: a run knows a day and a row.

Connections, of which each task looks up its own when it runs:

* ``notes_model`` (AI endpoint, ``openai-chat``, https): extras ``"phi": true``, ``"keys_conn_id": "ai_keys"``
* ``notes_jobs`` (AI jobs): likewise
* ``ai_keys`` (AI keys): what encrypts; ``airflow-ai keys generate`` prints a keyring for its password
* ``ai_audit`` (AI audit): who did what to which record; ``on_audit_failure`` must be ``fail``
* ``ai_store`` and ``warehouse`` (PostgreSQL, ``"sslmode": "verify-full"``; or a file)
* ``aws_default`` where the lake is on S3

``AI_LAKE_ROOT`` names the lake; ``notes/dt=YYYY-MM-DD/`` in it is the input of a day, in Parquet. Prose is redacted by
the extra ``presidio``, which does not find every name: docs/minimum-necessary.md says what it finds. The workers'
spec has the same keys, an ``[audit]``, and ``[phi]`` with ``enabled = true`` and the same ``columns``.
"""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any

from airflow.sdk import DAG, Param, task

from airflow_provider_ai.operators.batch_inference import (
    RUN_DATE,
    Limits,
    OpenAIChatRequest,
    WarehouseSink,
    batch_inference,
    date_param,
    verb_param,
)
from airflow_provider_ai.operators.request_reply import AISubmitAndWaitOperator
from airflow_provider_ai.operators.sync_call import Static, load_output

LAKE = os.environ.get("AI_LAKE_ROOT", "s3://lake").rstrip("/")
NOTES = f"{LAKE}/notes/dt={RUN_DATE}/"

# 45 CFR 164.502(b): the fields that the question needs, and no others.
COLUMNS = ("age", "admitted", "note")
REDACTION = {"age": "age", "admitted": "year", "note": "free-text"}
PROMPT = "Aged {{ record.age }}, admitted in {{ record.admitted }}: how urgent is this? {{ record.note }}"


def question(day: str, row: int) -> OpenAIChatRequest:
    """About one note, which is read here: what is returned goes to the endpoint and nowhere else."""
    from pyarrow import dataset

    from airflow_provider_ai.adapters.filesystems import open_filesystem
    from airflow_provider_ai.hooks.storage import storage_options

    folder = f"{LAKE}/notes/dt={day}"
    filesystem, path = open_filesystem(folder, storage_options([folder]))
    notes = dataset.dataset(path, filesystem=filesystem, format="parquet")
    [note] = notes.take([row], columns=list(COLUMNS)).to_pylist()
    return OpenAIChatRequest(prompt=PROMPT, inputs=note)


def land(answer: dict[str, Any], dag_run: Any = None) -> None:
    """One row per run, from the encrypted output that the answer refers to."""
    from airflow_provider_ai.hooks.warehouse import sink_settings
    from airflow_provider_ai.runtime.answer_rows import publish_answer

    output = load_output(answer, keys_conn_id="ai_keys")
    key = f"{dag_run.dag_id}/{dag_run.run_id}"
    publish_answer(answer, output, sink_settings("warehouse", "note_urgent_now"), key=key, run_id=dag_run.run_id)


with DAG(
    "clinical_notes",
    schedule=None,
    max_active_runs=1,
    params={
        "ai_verb": verb_param(),
        "date": date_param(),
        "row": Param(0, type="integer", minimum=0, title="Row", description="Which note of the day is asked about."),
    },
    default_args={"retries": 2, "retry_delay": timedelta(seconds=15)},
    tags=["ai", "phi"],
    doc_md=__doc__,
) as dag:
    ask_now = task.ai_call(
        question,
        task_id="ask_now",
        endpoint_conn_id="notes_model",
        columns=COLUMNS,
        redaction=REDACTION,
        deadline=timedelta(seconds=5),
        fallback=Static({"response": None}),  # nobody is told not to be urgent by a default
        output_uri=f"{LAKE}/_ai_outputs/",  # XCom holds a reference
    )
    task(land, task_id="land_now")(ask_now(day=RUN_DATE, row="{{ params.row }}"))

    AISubmitAndWaitOperator(
        task_id="ask_workers",
        transport_conn_id="notes_jobs",
        requests=NOTES,
        id_column="note_id",
        columns=COLUMNS,
        redaction=REDACTION,
        job_deadline=timedelta(hours=2),
        sink=WarehouseSink(conn_id="warehouse", table="note_replies"),
    )

    batch_inference(
        group_id="score",
        input=NOTES,
        id_column="note_id",
        endpoint_conn_id="notes_model",
        request=OpenAIChatRequest(prompt=PROMPT),
        columns=COLUMNS,
        redaction=REDACTION,
        sink=WarehouseSink(conn_id="warehouse", table="note_urgencies"),
        checkpoint_uri=f"{LAKE}/_ai_checkpoints/",
        limits=Limits(concurrency=16, max_quarantined_fraction=0.01),
    )
