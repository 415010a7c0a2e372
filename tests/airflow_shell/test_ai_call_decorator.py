"""``@task.ai_call``: the function makes the request, the task asks it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import DAG, task
from airflow.sdk.exceptions import AirflowException, AirflowFailException

from airflow_provider_ai.exceptions import SpecError
from airflow_provider_ai.operators.sync_call import JsonRequest, Static
from tests.airflow_shell.json_model import JsonModel, json_model
from tests.airflow_shell.test_sync_call_operator import context

CANARY = "PHI-77de0a"
FLOOR = {"priority": "routine"}


@pytest.fixture
def model(set_connection: Callable[..., None], tmp_path: Path) -> Iterator[JsonModel]:
    """A model behind connection ``model``, a store behind ``ai_store``."""
    with json_model() as running:
        set_connection("model", **running.connection)
        set_connection("ai_store", conn_type="sqlite", host=str(tmp_path / "store.db"))
        yield running


def decorated(function: Callable[..., Any], **settings: Any) -> Any:
    return task.ai_call(endpoint_conn_id="model", fallback=[Static(FLOOR)], **settings)(function)


def test_the_request_of_the_function_is_asked(
    model: JsonModel, run_dag: Callable[..., Any], xcom: Callable[..., Any]
) -> None:
    """With arguments from templates, other tasks and the context, and default names of tasks."""
    with DAG("decorated", schedule=None, params={"reference": "visit-1"}) as dag:

        @task
        def age() -> int:
            return 63

        @task.ai_call(endpoint_conn_id="model", fallback=[Static(FLOOR)])
        def triage(reference: str, age: int, run_id: str | None = None) -> JsonRequest:
            """Ask how urgent a visit is."""
            return JsonRequest(inputs={"reference": reference, "age": age, "in_run": run_id is not None})

        answer = triage("{{ params.reference }}", age=age())
    assert answer.operator.task_id == "triage"
    assert answer.operator.doc_md == "Ask how urgent a visit is."
    run = run_dag(dag)
    assert run.state == "success"
    assert model.asked == [[{"id": 0, "reference": "visit-1", "age": 63, "in_run": True}]]
    assert xcom(run, "triage")["output"] == {"priority": "urgent"}


def test_it_can_be_mapped(model: JsonModel, run_dag: Callable[..., Any], xcom: Callable[..., Any]) -> None:
    """With expand, partial and expand_kwargs; data of other tasks is not rendered."""
    with DAG("decorated_mapped", schedule=None, params={"unit": "A"}) as dag:

        @task
        def notes() -> list[str]:
            return ["{{ boom }}", "well"]

        @task
        def visits() -> list[dict[str, Any]]:
            return [{"note": "{{ boom }}"}]

        def ask(note: str, unit: str) -> JsonRequest:
            return JsonRequest(inputs={"note": note, "unit": unit})

        decorated(ask).partial(unit="{{ params.unit }}").expand(note=notes())
        decorated(ask, task_id="by_kwargs").partial(unit="{{ params.unit }}").expand_kwargs(visits())
    run = run_dag(dag)
    assert run.state == "success"
    asked = sorted((records[0]["note"], records[0]["unit"]) for records in model.asked)
    assert asked == [("well", "A"), ("{{ boom }}", "A"), ("{{ boom }}", "A")]
    assert xcom(run, "ask", map_index=1)["degraded"] is False


def test_arguments_are_shown_by_kind_only(model: JsonModel) -> None:
    """They may be a record."""
    from airflow.sdk.execution_time.task_runner import _serialize_rendered_fields
    from airflow.serialization.serialized_objects import DagSerialization

    with DAG("decorated_shown", schedule=None) as dag:
        made = decorated(lambda note, age: JsonRequest(inputs={"note": note}), task_id="call")(CANARY, age=3).operator
    stored = json.dumps(DagSerialization.to_dict(dag))
    made.render_template_fields(context())
    shown = _serialize_rendered_fields(made)
    assert (shown["op_args"], shown["op_kwargs"]) == ({"0": "str"}, {"age": "int"})
    assert CANARY not in stored + json.dumps(shown)


@pytest.mark.parametrize("result", [None, {"inputs": {"a": 1}}, "text", JsonRequest()])
def test_a_function_that_returns_something_else_fails_for_good(model: JsonModel, result: Any) -> None:
    """The message says what it must return, and not what it did."""

    def wrong() -> Any:
        return result

    with DAG("decorated_wrong", schedule=None):
        made = decorated(wrong)().operator
    with pytest.raises(AirflowFailException, match=r"wrong must return a request such as .*got"):
        made.execute(context())
    assert model.asked == []


def test_an_error_of_the_function_keeps_its_text_to_itself(model: JsonModel) -> None:
    """It may quote a record."""

    def broken() -> JsonRequest:
        raise ValueError(CANARY)

    with DAG("decorated_broken", schedule=None):
        made = decorated(broken)().operator
    with pytest.raises(AirflowException, match="unexpected ValueError") as failed:
        made.execute(context())
    assert CANARY not in str(failed.value)


def test_an_async_function_is_refused() -> None:
    """It would never be awaited."""

    async def later() -> JsonRequest:
        return JsonRequest(inputs={"a": 1})

    with DAG("decorated_async", schedule=None), pytest.raises(SpecError, match="must not be async"):
        decorated(later)()
