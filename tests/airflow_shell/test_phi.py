"""PHI in Airflow: refused when a DAG is parsed as far as it is known then, and always when the task runs."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk import XComArg, task
from airflow.sdk.exceptions import AirflowFailException

from airflow_provider_ai.exceptions import PhiPolicyError, SpecError
from airflow_provider_ai.get_provider_info import get_provider_info
from airflow_provider_ai.hooks.ai_endpoint import AIEndpointHook
from airflow_provider_ai.hooks.ai_jobs import AIJobsHook
from airflow_provider_ai.hooks.phi import package_wide, resolved_redaction
from airflow_provider_ai.hooks.store import store_connection
from airflow_provider_ai.hooks.warehouse import sink_settings
from airflow_provider_ai.operators import parse_time, phi_at_parse_time
from airflow_provider_ai.operators.batch_inference import AIPlanPartitionsOperator, JsonRequest, WarehouseSink
from airflow_provider_ai.operators.request_reply import AISubmitAndWaitOperator
from airflow_provider_ai.operators.sync_call import AISyncCallOperator, Static

SWITCH = "AIRFLOW__AI_PROVIDER__PHI"
KEY = base64.b64encode(bytes(range(32))).decode()


@pytest.fixture(autouse=True)
def connections(set_connection: Callable[..., None], tmp_path: Path) -> Iterator[None]:
    """An endpoint, queues and a warehouse for health data, all on this machine; and an endpoint in clear."""
    phi_at_parse_time._transport.cache_clear()
    phi_at_parse_time._database.cache_clear()
    parse_time.endpoint_at_parse_time.cache_clear()
    extra = {"protocol": "json", "model": "m"}
    set_connection("model", conn_type="ai_endpoint", host="http://127.0.0.1:9", extra=extra)
    set_connection("phi_model", conn_type="ai_endpoint", host="http://127.0.0.1:9", extra={**extra, "phi": True})
    set_connection("clear_model", conn_type="ai_endpoint", host="http://models.example.org", extra=extra)
    queues = {"request_queue": "a", "result_queue": "b", "dead_letter_queue": "c", "claim_check_uri": str(tmp_path)}
    set_connection("phi_jobs", conn_type="ai_jobs", host="http://127.0.0.1:9", extra={**queues, "phi": "true"})
    set_connection("phi_db", conn_type="sqlite", host=f"{tmp_path}/w.db", extra={"phi": True})
    set_connection(
        "weak_db", conn_type="postgres", host="db.example.org", schema="w", extra={"phi": True, "sslmode": "require"}
    )
    set_connection("ai_redaction_key", conn_type="generic", password=KEY)
    yield
    phi_at_parse_time._transport.cache_clear()
    phi_at_parse_time._database.cache_clear()
    parse_time.endpoint_at_parse_time.cache_clear()


def sync(**changes: Any) -> AISyncCallOperator:
    settings: dict[str, Any] = {
        "endpoint_conn_id": "phi_model",
        "request": JsonRequest(inputs={"age": 63}),
        "fallback": Static({}),
        "columns": ["age"],
        "output_uri": "/var/lib/outputs",
        "store_conn_id": None,
    }
    return AISyncCallOperator(task_id="call", **{**settings, **changes})


def batch(**changes: Any) -> AIPlanPartitionsOperator:
    settings: dict[str, Any] = {
        "input": "/lake/visits/",
        "id_column": "visit",
        "endpoint_conn_id": "phi_model",
        "request": JsonRequest(),
        "checkpoint_uri": "/lake/checkpoints",
        "verb": "resume",
        "columns": ["age"],
    }
    return AIPlanPartitionsOperator(task_id="plan", **{**settings, **changes})


def submit(**changes: Any) -> AISubmitAndWaitOperator:
    settings: dict[str, Any] = {
        "requests": "/lake/visits.parquet",
        "id_column": "visit",
        "transport_conn_id": "phi_jobs",
        "columns": ["age"],
    }
    return AISubmitAndWaitOperator(task_id="submit", **{**settings, **changes})


def output_of_a_task() -> XComArg:
    @task
    def load() -> dict[str, int]:
        return {"age": 63}

    return load()  # type: ignore[return-value]


MAKERS: dict[str, Callable[..., Any]] = {"sync": sync, "batch": batch, "submit": submit}


@pytest.mark.parametrize("maker", MAKERS)
def test_a_task_that_is_right(maker: str) -> None:
    """Encryption and audit are not known while a DAG is parsed; all else is."""
    MAKERS[maker]()


@pytest.mark.parametrize(
    ("maker", "mistake", "words"),
    [
        ("sync", {"columns": None}, "every field of a record would be sent"),
        ("sync", {"request": JsonRequest(inputs={"age": 1, "name": "x"})}, "asked for that are not in it: 'name'"),
        ("sync", {"request": JsonRequest(columns=["name"], inputs={"age": 1})}, "'name'"),
        ("sync", {"output_uri": None}, "without output_uri the output is in XCom"),
        ("sync", {"request": JsonRequest(inputs="{{ dag_run.conf }}")}, "inputs are a template"),
        ("sync", {"request": JsonRequest(inputs={"age": "{{ params.age }}"})}, "inputs are a template"),
        ("sync", {"redaction": {"name": "mask"}}, "'name'"),
        ("batch", {"columns": None}, "every field of a record would be sent"),
        ("batch", {"request": JsonRequest(columns=["age", "name"])}, "'name'"),
        ("batch", {"redaction": {"name": "mask"}}, "'name'"),
        ("batch", {"sink": WarehouseSink(conn_id="weak_db", table="t")}, "sslmode is 'require'"),
        ("submit", {"columns": None}, "every field of a record would be sent"),
        ("submit", {"requests": [{"age": 1, "name": "x"}]}, "'name'"),
        ("submit", {"requests": "{{ dag_run.conf['all'] }}"}, "inputs are a template"),
        ("submit", {"sink": WarehouseSink(conn_id="weak_db", table="t")}, "sslmode is 'require'"),
        ("submit", {"redaction": {"name": "mask"}}, "'name'"),
    ],
)
def test_mistakes_at_parse_time(maker: str, mistake: dict[str, Any], words: str) -> None:
    """In the constructor, with what to do."""
    with pytest.raises(PhiPolicyError, match=words):
        MAKERS[maker](**mistake)


def test_outputs_of_other_tasks() -> None:
    """They are in XCom, in clear."""
    from airflow.sdk import DAG

    with DAG("d"):
        for make in (lambda arg: sync(request=JsonRequest(inputs=arg)), lambda arg: submit(requests=arg)):
            with pytest.raises(PhiPolicyError, match="inputs are the output of another task"):
                make(output_of_a_task())


def test_a_rule_that_cannot_be_right_is_refused_without_the_switch() -> None:
    """It is a setting like any other."""
    for make, change in ((sync, {"endpoint_conn_id": "model"}), (batch, {"endpoint_conn_id": "model"}), (submit, {})):
        with pytest.raises(SpecError, match="redaction of 'age' must be one of"):
            make(redaction={"age": "ages"}, **change)


@pytest.mark.parametrize("who", ["configuration", "store"])
def test_any_party_turns_it_on(monkeypatch: pytest.MonkeyPatch, who: str) -> None:
    """Airflow's configuration, and the connection of a store, as well as the endpoint's."""
    change = {"endpoint_conn_id": "clear_model"}
    sync(**change)  # nobody says that it is about PHI
    if who == "configuration":
        monkeypatch.setenv(SWITCH, "True")
    else:
        change["store_conn_id"] = "phi_db"
    with pytest.raises(PhiPolicyError, match="http:// sends records in clear"):
        sync(**change)


def test_mapped_tasks_and_the_decorator() -> None:
    """Their operators are made when they run; their arguments are known now."""
    arguments: dict[str, Any] = {"endpoint_conn_id": "phi_model", "fallback": Static({}), "store_conn_id": None}
    with pytest.raises(PhiPolicyError, match="every field of a record"):
        AISyncCallOperator.partial(task_id="call", request=JsonRequest(), output_uri="/out", **arguments)
    with pytest.raises(PhiPolicyError, match="without output_uri"):
        task.ai_call(**arguments)


def context() -> Any:
    return {"ti": SimpleNamespace(dag_id="d", task_id="t", run_id="r", map_index=-1), "task_state_store": None}


@pytest.mark.parametrize("maker", MAKERS)
def test_when_the_task_runs(maker: str) -> None:
    """Nothing encrypts and nothing audits here, so nothing runs, for good: a retry cannot help."""
    with pytest.raises(AirflowFailException, match=r"encryption: .*audit: ") as caught:
        MAKERS[maker]().execute(context())
    assert "nothing was sent" in str(caught.value)


def test_what_was_not_known_while_parsing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that is not in the environment, here for its name is a template, is judged when the task runs."""
    operator = sync(endpoint_conn_id="{{ 'phi' }}_model", output_uri=None, columns=None)
    operator.endpoint_conn_id = "phi_model"
    with pytest.raises(AirflowFailException, match=r"every field of a record.*without output_uri"):
        operator.execute(context())


def test_what_connections_say() -> None:
    """Each has the switch among its extras, as a truth value or a word."""
    assert AIEndpointHook("phi_model").get_conn().phi
    assert not AIEndpointHook("model").get_conn().phi
    assert AIJobsHook("phi_jobs").connection().transport.phi
    assert sink_settings("phi_db", "t").phi
    assert store_connection("phi_db").phi


def test_a_switch_that_cannot_be_read(monkeypatch: pytest.MonkeyPatch, set_connection: Callable[..., None]) -> None:
    """It is not taken for off."""
    set_connection("odd", conn_type="sqlite", host="/tmp/w.db", extra={"phi": "perhaps"})
    with pytest.raises(SpecError, match="extra 'phi' must be true or false"):
        sink_settings("odd", "t")
    monkeypatch.setenv(SWITCH, "perhaps")
    with pytest.raises(SpecError, match="must be true or false"):
        package_wide()


def test_the_redaction_key() -> None:
    """It is looked up only where a rule needs it."""
    found = resolved_redaction({"mrn": "tokenise"}, "ai_redaction_key")
    assert found is not None
    assert found.key == bytes(range(32))
    assert resolved_redaction({"age": "age"}, "no_such_connection") is not None
    assert resolved_redaction(None, "no_such_connection") is None


def test_airflow_knows_the_option() -> None:
    """With its name as the code reads it."""
    section, key = SWITCH.removeprefix("AIRFLOW__").lower().split("__")
    assert get_provider_info()["config"][section]["options"][key]["default"] == "False"
