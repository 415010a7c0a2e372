"""Mistakes that a DAG author learns of when the DAG is parsed, for the operator, mapped tasks and the decorator."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from airflow.sdk import task

from airflow_provider_ai.exceptions import SpecError
from airflow_provider_ai.operators.parse_time import endpoint_at_parse_time
from airflow_provider_ai.operators.sync_call import (
    AISyncCallOperator,
    BreakerSettings,
    Endpoint,
    JsonRequest,
    LastGood,
    Static,
)
from airflow_provider_ai.operators.sync_call import Callable as CallableLink

FLOOR = Static({"priority": "routine"})
SOUND: dict[str, Any] = {"endpoint_conn_id": "model", "fallback": [FLOOR]}
MISTAKES = [
    ({"fallback": []}, "must be a list of links that ends in Static"),
    ({"fallback": [LastGood(max_age=60)]}, "must end in Static"),
    ({"deadline": timedelta(seconds=30)}, "use AISubmitAndWaitOperator"),
    ({"deadline": timedelta(0)}, "deadline must be a time"),
    ({"deadline": "3"}, "deadline must be a time"),
    ({"execution_timeout": timedelta(seconds=4)}, "die without its fallback"),
    ({"fallback": [Endpoint("small", reserve_seconds=4), FLOOR]}, "leaves nothing of the deadline"),
    ({"fallback": [LastGood(max_age=60), FLOOR], "store_conn_id": None}, "LastGood needs a store"),
    ({"endpoint_conn_id": "slow_model"}, r"connection 'slow_model': .*p99_seconds"),
    ({"attempt_timeout": -1}, "attempt_timeout_seconds must be a number"),
    ({"max_attempts": 0}, "max_attempts must be"),
    ({"breaker": {"minimum_calls": 3}}, "breaker must be BreakerSettings"),
]


@pytest.fixture(autouse=True)
def slow_model(set_connection: Callable[..., None]) -> Iterator[None]:
    """A connection that says how slow its model is."""
    extra = {"protocol": "json", "model": "m", "p99_seconds": 8}
    set_connection("slow_model", conn_type="ai_endpoint", host="http://127.0.0.1:9", extra=extra)
    endpoint_at_parse_time.cache_clear()
    yield
    endpoint_at_parse_time.cache_clear()


@pytest.mark.parametrize(("mistake", "words"), MISTAKES)
def test_the_operator_refuses_known_mistakes(mistake: dict[str, Any], words: str) -> None:
    """In its constructor."""
    with pytest.raises(SpecError, match=words):
        AISyncCallOperator(task_id="call", request=JsonRequest(inputs={"a": 1}), **{**SOUND, **mistake})


@pytest.mark.parametrize(("mistake", "words"), MISTAKES)
def test_a_mapped_task_refuses_them_too(mistake: dict[str, Any], words: str) -> None:
    """Its constructor is not called before it runs."""
    with pytest.raises(SpecError, match=words):
        AISyncCallOperator.partial(task_id="call", request=JsonRequest(), **{**SOUND, **mistake})


@pytest.mark.parametrize(("mistake", "words"), MISTAKES)
def test_so_does_the_decorator(mistake: dict[str, Any], words: str) -> None:
    """Where it stands, not where the function is called."""
    with pytest.raises(SpecError, match=words):
        task.ai_call(**{**SOUND, **mistake})


def test_a_call_without_fallback_is_no_call() -> None:
    """The constructor requires one."""
    with pytest.raises(TypeError, match="fallback"):
        AISyncCallOperator(task_id="call", endpoint_conn_id="model", request=JsonRequest(inputs={"a": 1}))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"request": {"inputs": 1}}, "request must be a request such as"),
        ({"request": JsonRequest()}, "has nothing to ask"),
    ],
)
def test_there_must_be_something_to_ask(settings: dict[str, Any], words: str) -> None:
    """A request, with inputs."""
    with pytest.raises(SpecError, match=words):
        AISyncCallOperator(task_id="call", **SOUND, **settings)


def test_sound_arguments_are_taken() -> None:
    """Every one of them."""
    AISyncCallOperator(
        task_id="call",
        endpoint_conn_id="model",
        request=JsonRequest(inputs={"a": 1}),
        fallback=[LastGood(max_age=timedelta(hours=1)), CallableLink("a.b:c"), Endpoint("small"), FLOOR],
        deadline=5,
        attempt_timeout=timedelta(seconds=1),
        max_attempts=3,
        max_response_bytes=1000,
        max_concurrent_calls=2,
        breaker=BreakerSettings(minimum_calls=3),
        execution_timeout=timedelta(minutes=1),
        store_conn_id="store",
        fail_on_degraded=True,
        output_uri="s3://bucket/{{ ds }}",
        aws_conn_id="aws",
    )


@pytest.fixture
def looked_up(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Ids that were looked up."""
    from airflow_provider_ai.operators import parse_time

    ids: list[str] = []

    class Hook:
        def __init__(self, conn_id: str) -> None:
            ids.append(conn_id)

        def get_conn(self) -> None:
            raise RuntimeError("no such connection")

    monkeypatch.setattr(parse_time, "AIEndpointHook", Hook)
    return ids


def test_a_connection_of_the_environment_is_looked_up_once(
    looked_up: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And a look-up that fails fails no parse."""
    monkeypatch.setenv("AIRFLOW_CONN_HERE", "{}")
    assert [endpoint_at_parse_time("here") for _ in range(3)] == [None, None, None]
    assert looked_up == ["here"]


@pytest.mark.parametrize("context", ["client", "server", ""])
def test_any_other_connection_is_not_looked_up_while_parsing(
    context: str, looked_up: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nowhere, the DAG processor included: a slow look-up would use up the time the import of a file may take."""
    monkeypatch.setenv("_AIRFLOW_PROCESS_CONTEXT", context)
    assert endpoint_at_parse_time("in_database") is None
    assert looked_up == []


def test_a_templated_connection_id_is_checked_when_the_task_runs(
    looked_up: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is no id yet."""
    monkeypatch.setenv("_AIRFLOW_PROCESS_CONTEXT", "client")
    AISyncCallOperator(
        task_id="call", endpoint_conn_id="{{ params.c }}", request=JsonRequest(inputs={"a": 1}), fallback=[FLOOR]
    )
    assert looked_up == []


def test_a_broken_connection_fails_no_parse(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is wrong with it is said when the task runs."""
    monkeypatch.setenv("AIRFLOW_CONN_BROKEN", json.dumps({"conn_type": "ai_endpoint", "extra": {"nonsense": 1}}))
    AISyncCallOperator(
        task_id="call", endpoint_conn_id="broken", request=JsonRequest(inputs={"a": 1}), fallback=[FLOOR]
    )
