"""Hidden fields, or withheld errors, taken away: the search that finds no mark of a record in Airflow then finds it.

The search is that of ``tests/end_to_end/test_phi_in_airflow.py``.
"""

from __future__ import annotations

import json
import traceback
from typing import Any

import pytest
from airflow.sdk import DAG, task

from airflow_provider_ai.operators import hidden_fields
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


def failed(record: dict[str, Any]) -> dict[str, bytes]:
    """What a task says whose function quotes a record in its error, causes and all."""

    def ask() -> JsonRequest:
        raise ValueError(f"no such record: {record}")

    with DAG("failed", schedule=None):
        made = task.ai_call(endpoint_conn_id="model", fallback=[Static(None)], store_conn_id=None, do_xcom_push=False)(
            ask
        )().operator
    try:
        made.execute({})
    except Exception as error:  # noqa: BLE001 - whatever it is
        return {"error": "".join(traceback.format_exception(error)).encode()}
    raise AssertionError


def test_a_mark_is_found_once_errors_are_passed_on(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """As they were raised; with their text withheld it is not, nor in an error's cause."""
    marks = Canaries.of_seed(seed, "note")
    record = {"note": f"coughs, {marks['note']}"}
    assert marks.found(failed(record)) == {}
    monkeypatch.setattr(hidden_fields, "airflow_error", lambda error: error)
    assert marks.found(failed(record)) == {"error": {"note"}}
