"""The operator of a synchronous call, against a model on loopback and a store in SQLite."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk import DAG, task
from airflow.sdk.exceptions import AirflowException, AirflowFailException

from airflow_provider_ai.core.keyring import keyring_text
from airflow_provider_ai.operators import call_metrics, sync_call
from airflow_provider_ai.operators.sync_call import (
    AISyncCallOperator,
    Endpoint,
    JsonRequest,
    LastGood,
    OpenInferenceRequest,
    Static,
    load_output,
)
from airflow_provider_ai.operators.sync_call import Callable as CallableLink
from tests.airflow_shell.json_model import JsonModel, json_model
from tests.support.keys import local_keys
from tests.support.processes import REPOSITORY, child_environment, free_port

CANARY = "PHI-55ab1c"
RECORD = {"age": 63, "note": CANARY}
FLOOR = {"priority": "routine"}


@pytest.fixture
def model(set_connection: Callable[..., None], tmp_path: Path) -> Iterator[JsonModel]:
    """A model behind connection ``model``, nothing behind ``dead``, a store behind ``ai_store``."""
    with json_model() as running:
        set_connection("model", **running.connection)
        set_connection("dead", **{**running.connection, "host": f"http://127.0.0.1:{free_port()}"})
        set_connection("ai_store", conn_type="sqlite", host=str(tmp_path / "store.db"))
        yield running


def operator(**settings: Any) -> AISyncCallOperator:
    given = {"endpoint_conn_id": "model", "request": JsonRequest(inputs=RECORD), "fallback": [Static(FLOOR)]}
    return AISyncCallOperator(task_id="call", **{**given, **settings})


def context(**fields: Any) -> Any:
    ti = SimpleNamespace(dag_id="triage", run_id="manual__2026-03-01T00:00:00+00:00", task_id="call", map_index=-1)
    return {"ti": ti, "params": {}, **fields}


def call(**settings: Any) -> dict[str, Any]:
    answer: dict[str, Any] = operator(**settings).execute(context())
    return answer


def test_a_good_answer_is_returned_whole(model: JsonModel) -> None:
    """The endpoint's own, once asked, and nothing about it degraded."""
    answer = call()
    assert (answer["output"], answer["degraded"], answer["source"]) == ({"priority": "urgent"}, False, "primary")
    assert (answer["reason"], answer["attempts"], answer["breaker_state"], answer["model"]) == (None, 1, "closed", "m")
    assert model.asked == [[{"id": 0, **RECORD}]]


def test_an_endpoint_that_is_down_gives_the_floor(model: JsonModel) -> None:
    """Degraded, with the reason; the task does not fail."""
    answer = call(endpoint_conn_id="dead")
    assert (answer["output"], answer["degraded"], answer["source"], answer["reason"]) == (
        *(FLOOR, True, "static"),
        "connect",
    )


def test_an_endpoint_that_hangs_costs_the_deadline_and_no_more(model: JsonModel) -> None:
    """Whatever the server does."""
    model.hang = threading.Event()
    began = time.monotonic()
    answer = call(deadline=timedelta(seconds=0.5))
    took = time.monotonic() - began
    assert (answer["degraded"], answer["reason"]) == (True, "timeout")
    assert answer["elapsed_ms"] <= 600
    assert took < 5, "the store and the imports besides"


def test_fallback_endpoints_are_named_by_connections(model: JsonModel) -> None:
    """Looked up as the endpoint's own is."""
    answer = call(endpoint_conn_id="dead", fallback=[Endpoint("model"), Static(FLOOR)])
    assert (answer["output"], answer["degraded"], answer["source"]) == ({"priority": "urgent"}, True, "endpoint")


def test_the_last_good_answer_is_kept_for_the_next_call(model: JsonModel) -> None:
    """Between two tasks that share nothing but the store."""
    chain = [LastGood(max_age=timedelta(hours=6)), Static(FLOOR)]
    assert call(fallback=chain)["source"] == "primary"
    model.status = 503
    answer = call(fallback=chain)
    assert (answer["output"], answer["source"], answer["reason"]) == (
        {"priority": "urgent"},
        "last-good",
        "server_error",
    )
    assert answer["age_seconds"] >= 0


def triage(inputs: Any) -> dict[str, str]:
    """A fallback of the user's."""
    return {"priority": f"rule for {inputs['age']}"}


def test_a_callable_fallback_gets_the_inputs(model: JsonModel) -> None:
    """As they were rendered."""
    path = "tests.airflow_shell.test_sync_call_operator:triage"
    answer = call(endpoint_conn_id="dead", fallback=[CallableLink(path), Static(FLOOR)])
    assert (answer["output"], answer["source"]) == ({"priority": "rule for 63"}, "callable")


def test_a_degraded_answer_fails_the_task_that_asks_for_it(model: JsonModel) -> None:
    """A retry makes sense; the message says why and holds no output."""
    with pytest.raises(AirflowException, match=r"degraded answer \(static\): connect .*a retry calls again") as failed:
        call(endpoint_conn_id="dead", fail_on_degraded=True)
    assert not isinstance(failed.value, AirflowFailException)
    assert "routine" not in str(failed.value)
    assert call(fail_on_degraded=True)["degraded"] is False


def test_a_missing_connection_fails_for_good(model: JsonModel) -> None:
    """There is nothing to call; the message says what to create."""
    with pytest.raises(AirflowFailException, match="nowhere"):
        call(endpoint_conn_id="nowhere")
    with pytest.raises(AirflowFailException, match="nowhere"):
        call(fallback=[Endpoint("nowhere"), Static(FLOOR)])


def test_a_request_of_another_protocol_fails_for_good(model: JsonModel) -> None:
    """A setting, not an outage: no fallback hides it."""
    with pytest.raises(AirflowFailException, match="protocol 'json'"):
        call(request=OpenInferenceRequest(inputs=RECORD))


def test_without_a_connection_the_store_is_a_file_in_airflow_home(
    model: JsonModel, monkeypatch: pytest.MonkeyPatch, airflow_home: Path
) -> None:
    """Nobody has to make one to begin with."""
    monkeypatch.delenv("AIRFLOW_CONN_AI_STORE")
    assert call()["breaker_state"] == "closed"
    assert (airflow_home / "ai_store.db").exists()


def test_a_call_may_go_without_a_store(model: JsonModel) -> None:
    """Then nobody knows of a circuit breaker."""
    assert call(store_conn_id=None)["breaker_state"] == "unknown"


def test_a_store_of_another_name_must_be_there(model: JsonModel) -> None:
    """A name that was written is meant."""
    with pytest.raises(AirflowFailException, match="other_store"):
        call(store_conn_id="other_store")


def test_connections_are_timed(model: JsonModel, caplog: pytest.LogCaptureFixture) -> None:
    """Their time is outside of the deadline, so it is told."""
    with caplog.at_level(logging.INFO, logger="airflow_provider_ai"):
        call()
    assert [record.getMessage() for record in caplog.records if "connections resolved in" in record.getMessage()]


# --- templates and what is shown


def rendered(settings: dict[str, Any], **fields: Any) -> AISyncCallOperator:
    with DAG("rendering", schedule=None):
        made = operator(**settings)
    made.render_template_fields(context(**fields))
    return made


def test_templates_keep_their_types_and_connection_ids_are_rendered(model: JsonModel) -> None:
    """A number goes out as one."""
    request = JsonRequest(inputs={"age": "{{ params.age }}", "text": "age {{ params.age }}", "more": ["{{ none }}"]})
    made = rendered({"request": request, "endpoint_conn_id": "{{ params.conn }}"}, params={"age": 63, "conn": "model"})
    assert made.execute(context())["degraded"] is False
    assert model.asked == [[{"id": 0, "age": 63, "text": "age 63", "more": [None]}]]


def test_inputs_are_shown_by_name_only() -> None:
    """Neither the serialized DAG nor the rendered fields hold a value, nor does a text of the operator."""
    from airflow.sdk.execution_time.task_runner import _serialize_rendered_fields
    from airflow.serialization.serialized_objects import DagSerialization

    with DAG("shown", schedule=None) as dag:
        made = operator(request=JsonRequest(inputs=[{"age": 1, "note": CANARY}, {"age": 2, "note": CANARY}]))
    stored = json.dumps(DagSerialization.to_dict(dag))
    made.render_template_fields(context())
    shown = _serialize_rendered_fields(made)
    assert shown["inputs"] == "2 records: age, note"
    assert CANARY not in stored + json.dumps(shown) + repr(made.inputs) + repr(made.request)
    assert "2 records: age, note" in stored


def test_a_mistake_in_a_template_quotes_no_value(caplog: pytest.LogCaptureFixture) -> None:
    """It fails for good: a retry renders the same."""
    made = {"request": JsonRequest(inputs={"age": "{{ params[params.note] }}", "note": CANARY})}
    with pytest.raises(AirflowFailException, match="cannot be rendered") as failed:
        rendered(made, params={"note": CANARY})
    assert (failed.value.__cause__, failed.value.__context__) == (None, None)
    assert CANARY not in caplog.text


def test_outputs_of_other_tasks_are_upstream_and_data(
    model: JsonModel, run_dag: Callable[..., Any], xcom: Callable[..., Any]
) -> None:
    """At any depth; what looks like a template in them is sent as it is."""
    with DAG("by_reference", schedule=None) as dag:

        @task
        def patient() -> dict[str, Any]:
            return {"age": 71, "note": "{{ params.secret }}"}

        whole = operator(request=JsonRequest(inputs=patient()))
        part = AISyncCallOperator(
            task_id="part",
            endpoint_conn_id="model",
            request=JsonRequest(inputs={"patient": patient.override(task_id="other")(), "age": 5}),
            fallback=Static(FLOOR),
        )
    assert whole.upstream_task_ids == {"patient"}
    assert part.upstream_task_ids == {"other"}
    run = run_dag(dag)
    assert run.state == "success"
    given = {"age": 71, "note": "{{ params.secret }}"}
    asked = sorted((records[0] for records in model.asked), key=lambda record: record["age"])
    assert asked == [{"id": 0, "patient": given, "age": 5}, {"id": 0, **given}]
    assert xcom(run, "call")["degraded"] is False


def test_a_mapped_call_asks_for_each_record(
    model: JsonModel, run_dag: Callable[..., Any], xcom: Callable[..., Any]
) -> None:
    """Over inputs, over requests and over both kinds of expansion; templates in data stay data, written ones do not."""
    with DAG("mapped", schedule=None, params={"age": 9}) as dag:

        @task
        def patients() -> list[dict[str, Any]]:
            return [{"age": 1, "note": "{{ boom }}"}, {"age": 2, "note": "{{ boom }}"}]

        @task
        def settings() -> list[dict[str, Any]]:
            return [{"inputs": {"age": 3, "note": "{{ boom }}"}}]

        loaded = patients()
        common: dict[str, Any] = {"endpoint_conn_id": "model", "fallback": [Static(FLOOR)]}
        bare = JsonRequest()
        AISyncCallOperator.partial(task_id="inputs", request=bare, **common).expand(inputs=loaded)
        AISyncCallOperator.partial(task_id="requests", **common).expand(request=loaded.map(_request))
        AISyncCallOperator.partial(task_id="kwargs", request=bare, **common).expand_kwargs(settings())
        written = [JsonRequest(inputs={"age": "{{ params.age }}"})]
        AISyncCallOperator.partial(task_id="written", **common).expand(request=written)
    run = run_dag(dag)
    assert run.state == "success"
    asked = sorted((records[0]["age"], records[0].get("note")) for records in model.asked)
    assert asked == [(1, "{{ boom }}")] * 2 + [(2, "{{ boom }}")] * 2 + [(3, "{{ boom }}"), (9, None)]
    assert xcom(run, "inputs", map_index=1)["degraded"] is False


def _request(record: dict[str, Any]) -> JsonRequest:
    return JsonRequest(inputs=record)


def test_all_outputs_of_a_mapped_task_go_out_in_one_call(model: JsonModel, run_dag: Callable[..., Any]) -> None:
    """Fetched by the main thread: no other may speak to Airflow."""
    with DAG("many", schedule=None) as dag:

        @task
        def patient(age: int) -> dict[str, Any]:
            return {"age": age}

        operator(request=JsonRequest(inputs=patient.expand(age=[4, 5])))
    assert run_dag(dag).state == "success"
    assert model.asked == [[{"id": 0, "age": 4}, {"id": 1, "age": 5}]]


def test_inputs_that_are_no_records_give_a_degraded_answer(model: JsonModel, run_dag: Callable[..., Any]) -> None:
    """A task that returned nothing is a matter of data."""
    answer = call(request=JsonRequest(inputs="{{ none }}"))
    assert (answer["degraded"], answer["reason"], answer["attempts"]) == (True, "not_records", 0)


# --- claim check


def test_with_keys_outputs_and_good_answers_are_encrypted(
    model: JsonModel, tmp_path: Path, set_connection: Callable[..., None]
) -> None:
    """Those of the endpoint's connection; a later task names them to read the output."""
    set_connection("ai_keys", conn_type="ai_keys", password=keyring_text(local_keys()))
    extra = {**model.connection["extra"], "keys_conn_id": "ai_keys"}
    set_connection("model", **{**model.connection, "extra": extra})
    chain = [LastGood(max_age=timedelta(hours=6)), Static(FLOOR)]
    answer = call(output_uri=str(tmp_path / "outputs"), fallback=chain)
    assert load_output(answer, keys_conn_id="ai_keys") == {"priority": "urgent"}
    model.status = 503
    kept = call(output_uri=str(tmp_path / "outputs"), fallback=chain)
    assert kept["source"] == "last-good"
    files = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) >= 2
    assert not any(b"urgent" in data or CANARY.encode() in data for data in files)


def test_with_an_output_uri_xcom_holds_a_reference(model: JsonModel, tmp_path: Path) -> None:
    """The same place for each try, below DAG, run and task; what lies there is checked."""
    uri = str(tmp_path / "outputs")
    first, second = call(output_uri=uri), call(output_uri=uri)
    assert "output" not in first
    assert set(first["output_ref"]) == {"uri", "sha256", "bytes"}
    assert first["output_ref"]["uri"] == second["output_ref"]["uri"]
    assert first["output_ref"]["uri"].startswith(f"{uri}/triage/manual__2026-03-01T00-00-00-00-00-")
    assert load_output(second) == {"priority": "urgent"}
    assert [path.name for path in (tmp_path / "outputs").rglob("*") if path.is_file()] == ["output.json"]
    with pytest.raises(Exception, match="is not the one that was stored"):
        load_output(first)


def test_a_place_that_cannot_be_written_is_worth_a_retry(model: JsonModel, tmp_path: Path) -> None:
    """The answer is lost, so the task must not succeed."""
    (tmp_path / "outputs").write_text("a file")
    with pytest.raises(AirflowException, match="cannot be stored") as failed:
        call(output_uri=str(tmp_path / "outputs"))
    assert not isinstance(failed.value, AirflowFailException)


# --- metrics


def test_answers_are_counted(model: JsonModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """With what they are, and no data."""
    from airflow.providers.common.compat.sdk import Stats

    seen: list[tuple[Any, ...]] = []
    monkeypatch.setattr(Stats, "incr", staticmethod(lambda name, tags: seen.append((name, tags))))
    monkeypatch.setattr(Stats, "timing", staticmethod(lambda name, dt, tags: seen.append((name, dt, tags))))
    call(endpoint_conn_id="dead")
    (counted, tags), (timed, elapsed, same) = seen
    assert (counted, timed, same) == ("ai_sync_call.answers", "ai_sync_call.elapsed", tags)
    assert {**tags, "endpoint": "…"} == {
        "endpoint": "…",
        "source": "static",
        "degraded": "true",
        "reason": "connect",
    }
    assert tags["endpoint"].startswith("127.0.0.1:")
    assert timedelta(0) < elapsed < timedelta(seconds=3)


def test_broken_metrics_change_nothing(
    model: JsonModel, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """They are said to be broken, by name of the error only."""
    from airflow.providers.common.compat.sdk import Stats

    def broken(*_args: Any, **_tags: Any) -> None:
        raise OSError(CANARY)

    monkeypatch.setattr(Stats, "incr", staticmethod(broken))
    assert call()["degraded"] is False
    assert "OSError" in caplog.text
    assert CANARY not in caplog.text
    assert call_metrics.log.name in {record.name for record in caplog.records}


# --- the module


def test_the_module_exports_what_a_dag_author_needs() -> None:
    """Sorted, and all of it there."""
    assert sync_call.__all__ == sorted(sync_call.__all__)
    assert all(hasattr(sync_call, name) for name in sync_call.__all__)


def test_parsing_a_dag_imports_no_client() -> None:
    """Neither the runtime nor its libraries: a DAG processor parses many files."""
    code = """
import sys
import airflow.sdk
before = set(sys.modules)
from airflow_provider_ai.operators import sync_call
print([name for name in ("aiohttp", "sqlalchemy", "pyarrow", "grpc", "pandas", "numpy", "alembic", "duckdb")
       if name in sys.modules and name not in before])
ours = ("airflow_provider_ai.runtime", "airflow_provider_ai.adapters")
print([name for name in sys.modules if name.startswith(ours)])
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=REPOSITORY,
        env=child_environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split("\n")[:2] == ["[]", "[]"]
