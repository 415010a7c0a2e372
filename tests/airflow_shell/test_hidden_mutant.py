"""Hidden fields taken away: the search that finds no mark in what Airflow stores of a task then finds it.

The search is that of ``tests/end_to_end/test_phi_in_airflow.py``.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from airflow.sdk import DAG

from airflow_provider_ai.operators.hidden import Hidden
from airflow_provider_ai.operators.sync_call import AISyncCallOperator, JsonRequest, Static
from tests.support.canaries import Canaries


def stored(record: dict[str, Any]) -> dict[str, bytes]:
    """What Airflow keeps of a task that asks about a record: its part of the DAG, and its rendered fields."""
    from airflow.sdk.execution_time.task_runner import _serialize_rendered_fields
    from airflow.serialization.serialized_objects import DagSerialization

    with DAG("stored", schedule=None) as dag:
        made = AISyncCallOperator(
            task_id="ask", endpoint_conn_id="model", fallback=[Static(None)], request=JsonRequest(inputs=record)
        )
    written = {"serialized DAG": DagSerialization.to_dict(dag), "rendered": _serialize_rendered_fields(made)}
    return {place: json.dumps(body, default=str).encode() for place, body in written.items()}


def test_a_mark_is_found_once_fields_are_not_hidden(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """In both places; with hidden fields in neither."""
    marks = Canaries.of_seed(seed, "note")
    record = {"note": f"coughs, {marks['note']}"}
    assert marks.found(stored(record)) == {}
    monkeypatch.setattr(Hidden, "serialize", lambda self: str(self.value))
    assert marks.found(stored(record)) == {"serialized DAG": {"note"}, "rendered": {"note"}}
