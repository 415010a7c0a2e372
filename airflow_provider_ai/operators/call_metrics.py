"""Answers counted through Airflow's own metrics (StatsD or OpenTelemetry, as Airflow is configured).

Counter ``ai_sync_call.answers`` and timer ``ai_sync_call.elapsed`` (milliseconds), tagged with endpoint, source, and
whether it is degraded and why. Whatever is wrong with the metrics, the answer stands.
"""

from __future__ import annotations

import logging
from datetime import timedelta

from airflow_provider_ai.core.answer import Answer

log = logging.getLogger(__name__)


def count_answer(answer: Answer, *, endpoint: str) -> None:
    """Count one answer. ``endpoint``: its name (:func:`airflow_provider_ai.core.identity.endpoint_name`)."""
    tags = {
        "endpoint": endpoint,
        "source": answer.source,
        "degraded": str(answer.degraded).lower(),
        "reason": answer.reason or "none",
    }
    try:
        from airflow.providers.common.compat.sdk import Stats

        Stats.incr("ai_sync_call.answers", tags=tags)
        Stats.timing("ai_sync_call.elapsed", timedelta(milliseconds=answer.elapsed_ms), tags=tags)
    except Exception as error:  # noqa: BLE001 - a metrics backend of whatever kind
        log.warning("the answer is not counted in the metrics (%s)", type(error).__name__)
