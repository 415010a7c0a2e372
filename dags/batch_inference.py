"""Nightly risk scores: every visit of a day goes to the model once, and the scores stand in the warehouse by morning.

Connections: ``risk_model`` (type AI endpoint) and ``warehouse`` (PostgreSQL or SQLite); ``aws_default`` where the lake
is on S3. ``AI_LAKE_ROOT`` names the lake: a folder that all workers share, or ``s3://bucket``. In it,
``visits/dt=YYYY-MM-DD/`` is the input of a day, and ``_ai_checkpoints/`` keeps the plans and the answers.

To run a day again, trigger the DAG with that ``date`` and choose what to do with earlier answers, or backfill:
``airflow backfill create --dag-id nightly_risk_scores --from-date … --to-date …``.
"""

from __future__ import annotations

import os
from datetime import timedelta

from airflow.providers.common.sql.operators.sql import SQLCheckOperator
from airflow.sdk import DAG, CronTriggerTimetable

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

LAKE = os.environ.get("AI_LAKE_ROOT", "s3://lake").rstrip("/")
ROWS_PER_PARTITION = int(os.environ.get("AI_ROWS_PER_PARTITION", "100000"))

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

# Every published row of the day, and nothing but valid scores in them. Each column of the result must be true.
QUALITY_CHECK = """
SELECT
    COUNT(*) = {{ ti.xcom_pull(task_ids='score.reconcile')['published'] }},
    COUNT(*) = COALESCE(SUM(CASE WHEN predict IN (0, 1) THEN 1 ELSE 0 END), 0),
    COUNT(*) = COUNT(predict_proba),
    COUNT(*) = COUNT(DISTINCT _record_key)
FROM risk_scores
WHERE _partition LIKE '{{ ti.xcom_pull(task_ids='score.plan', key='plan')['scope'] }}/%'
"""

with DAG(
    "nightly_risk_scores",
    # No start date: then installing the DAG at noon does not start last night's run. Backfills need none.
    schedule=CronTriggerTimetable("0 2 * * *", timezone="UTC"),
    catchup=False,
    max_active_runs=1,  # the limits below hold for a run; two runs would ask twice as much of the model
    params={"ai_verb": verb_param(), "date": date_param()},
    default_args={
        "retries": 2,
        "retry_delay": timedelta(seconds=15),
        "retry_exponential_backoff": True,
        "max_retry_delay": timedelta(minutes=10),
    },
    tags=["ai", "batch"],
    doc_md=__doc__,
) as dag:
    ready = AIEndpointReadySensor(
        task_id="model_is_ready",
        endpoint_conn_id="risk_model",
        deferrable=True,
        timeout=timedelta(hours=2),
    )
    score = batch_inference(
        group_id="score",
        input=f"{LAKE}/visits/dt={RUN_DATE}/",
        id_column="visit_id",
        endpoint_conn_id="risk_model",
        request=OpenInferenceRequest(
            columns=MEASUREMENTS, records_per_request=64, output_names=["predict", "predict_proba"]
        ),
        sink=WarehouseSink(conn_id="warehouse", table="risk_scores"),
        checkpoint_uri=f"{LAKE}/_ai_checkpoints/",
        limits=Limits(concurrency=16, max_quarantined_fraction=0.01),
        rows_per_partition=ROWS_PER_PARTITION,
        max_active_tis_per_dagrun=2,
    )
    check = SQLCheckOperator(task_id="scores_are_valid", conn_id="warehouse", sql=QUALITY_CHECK)

    ready >> score >> check
