"""Triage of one visit: the model is asked while somebody waits, and there is an answer within 3 seconds in any case.

A good answer goes into the warehouse; a degraded one, whatever the reason, goes on the list of the people who decide
themselves. One row per run in either table, also after a retry.

Connections: ``triage_model`` (type AI endpoint, over REST or gRPC), ``warehouse`` (PostgreSQL, SQLite or DuckDB), and
``ai_store`` where workers run on several machines. ``AI_LAKE_ROOT`` names the lake, as for the nightly batch. A run is
given the place of a record in it, a day and a row, and reads the record itself: nothing about a person passes through
Airflow.

Try it: ``airflow dags trigger triage_visit --conf '{"date": "2026-03-01", "row": 17}'``.
"""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any

from airflow.sdk import DAG, Label, Param, task

from airflow_provider_ai.operators.sync_call import (
    AIDegradedBranchOperator,
    AISyncCallOperator,
    LastGood,
    OpenInferenceRequest,
    Static,
    load_output,
)

LAKE = os.environ.get("AI_LAKE_ROOT", "s3://lake").rstrip("/")

# The 30 measurements the model was trained on, in that order: ten features, each as mean, error and worst value.
FEATURES = (
    "radius",
    "texture",
    "perimeter",
    "area",
    "smoothness",
    "compactness",
    "concavity",
    "concave_points",
    "symmetry",
    "fractal_dimension",
)
MEASUREMENTS = (
    *(f"mean_{name}" for name in FEATURES),
    *(f"{name}_error" for name in FEATURES),
    *(f"worst_{name}" for name in FEATURES),
)


def measurements(day: str, row: int) -> dict[str, float]:
    """One visit of a day, read in the task that asks about it."""
    from pyarrow import dataset

    from airflow_provider_ai.adapters.filesystems import open_filesystem
    from airflow_provider_ai.hooks.storage import storage_options

    folder = f"{LAKE}/visits/dt={day}"
    filesystem, path = open_filesystem(folder, storage_options([folder]))
    visits = dataset.dataset(path, filesystem=filesystem, format="parquet")
    [visit] = visits.take([row], columns=list(MEASUREMENTS)).to_pylist()
    return dict(visit)


def load(answer: dict[str, Any], table: str, dag_run: Any = None) -> None:
    """One row per run: a second try replaces the row of the first."""
    from airflow_provider_ai.hooks.warehouse import sink_settings
    from airflow_provider_ai.runtime.answer_rows import publish_answer

    key = f"{dag_run.dag_id}/{dag_run.run_id}"
    publish_answer(answer, load_output(answer), sink_settings("warehouse", table), key=key, run_id=dag_run.run_id)


with DAG(
    "triage_visit",
    schedule=None,
    params={
        "date": Param("2026-03-01", type="string", format="date", title="Day"),
        "row": Param(0, type="integer", minimum=0, title="Row", description="Which visit of the day."),
    },
    user_defined_macros={"measurements": measurements},
    default_args={"retries": 2, "retry_delay": timedelta(seconds=5)},
    tags=["ai", "sync"],
    doc_md=__doc__,
) as dag:
    call = AISyncCallOperator(
        task_id="triage",
        endpoint_conn_id="triage_model",
        request=OpenInferenceRequest(
            columns=MEASUREMENTS,
            output_names=["predict", "predict_proba"],
            inputs="{{ measurements(params.date, params.row) }}",
        ),
        deadline=timedelta(seconds=3),
        # Nobody is told to be well by a default: the floor says that a person has to look.
        fallback=[LastGood(max_age=timedelta(hours=6)), Static({"predict": None, "predict_proba": None})],
        output_uri=f"{LAKE}/_ai_outputs/",
    )
    branch = AIDegradedBranchOperator(
        task_id="is_degraded",
        answer=call.output,
        follow_task_ids_if_degraded="human_review",
        follow_task_ids_if_good="load_answer",
    )
    load_answer = task(load, task_id="load_answer")(call.output, "triage_answers")
    human_review = task(load, task_id="human_review")(call.output, "triage_reviews")
    branch >> Label("good") >> load_answer
    branch >> Label("degraded") >> human_review
