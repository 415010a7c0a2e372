"""The connection that turns the audit on, who acts in a task, and a task that is audited."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.models.dagrun import DagRun
from airflow.sdk import DAG

from airflow_provider_ai.adapters.audit.event_table import AuditReader
from airflow_provider_ai.adapters.audit.signing import HeadSigner, new_key_pair
from airflow_provider_ai.adapters.claim_check import store_output
from airflow_provider_ai.adapters.crypto.local_keys import LocalKeyWrapper
from airflow_provider_ai.adapters.store import open_store
from airflow_provider_ai.core.audit_chain import Row
from airflow_provider_ai.core.audit_settings import SIX_YEARS_DAYS
from airflow_provider_ai.core.identity import record_key
from airflow_provider_ai.core.keyring import keyring_text
from airflow_provider_ai.exceptions import AuditError, SpecError
from airflow_provider_ai.hooks.audit import AIAuditHook, audit_settings, task_actor
from airflow_provider_ai.operators.sync_call import AISyncCallOperator, JsonRequest, Static, load_output
from tests.airflow_shell.json_model import JsonModel, json_model
from tests.support.keys import codec_on, local_keys
from tests.support.processes import free_port

SECRET = "a key of thirty-two bytes or more"
FLOOR = {"priority": "routine"}


@pytest.fixture(scope="module")
def private() -> str:
    return new_key_pair()[0]


@pytest.fixture
def connection(set_connection: Callable[..., None], tmp_path: Path, private: str) -> Callable[..., None]:
    """``connection(**extra)`` defines ``ai_audit``; the store is a file."""

    def define(**extra: Any) -> None:
        set_connection("ai_store", conn_type="sqlite", host=str(tmp_path / "store.db"))
        set_connection(
            "ai_audit",
            conn_type="ai_audit",
            host=str(tmp_path / "heads"),
            password=SECRET,
            extra={"signing_key": private, "purpose": "TREAT", **extra},
        )

    return define


@pytest.fixture
def model(set_connection: Callable[..., None]) -> Iterator[JsonModel]:
    with json_model() as running:
        set_connection("model", **running.connection)
        yield running


def operator(**given: Any) -> AISyncCallOperator:
    request = JsonRequest(inputs={"id": "CANARY-1", "age": 63})
    return AISyncCallOperator(
        task_id="call", endpoint_conn_id="model", request=request, fallback=[Static(FLOOR)], **given
    )


def events(tmp_path: Path) -> list[dict[str, Any]]:
    with closing(open_store(f"sqlite:///{tmp_path}/store.db", timeout_seconds=30)) as store:
        rows = [Row(*values) for page in AuditReader(store).pages() for values in page]
    return [{**json.loads(row.facts), "keys": (row.keys or b"").hex()} for row in rows]


# --- the connection


def test_without_a_connection_it_is_off() -> None:
    """Nothing has to be configured."""
    assert audit_settings() is None


def test_it_may_be_required(monkeypatch: pytest.MonkeyPatch) -> None:
    """By whoever asks, by Airflow's configuration, and by naming another connection there."""
    with pytest.raises(SpecError, match="nothing runs unaudited"):
        audit_settings(required=True)
    with monkeypatch.context() as patched:
        patched.setenv("AIRFLOW__AI_PATTERNS__AUDIT_REQUIRED", "True")
        with pytest.raises(SpecError, match="nothing runs unaudited"):
            audit_settings()
    monkeypatch.setenv("AIRFLOW__AI_PATTERNS__AUDIT_CONN_ID", "misspelt")
    with pytest.raises(SpecError, match="misspelt"):
        audit_settings()


def test_what_a_connection_says(connection: Callable[..., None], tmp_path: Path, private: str) -> None:
    """Heads, keys, store; the rest by default fails closed and locks for six years."""
    connection()
    settings = audit_settings()
    assert settings is not None
    assert (settings.store, settings.heads) == (f"sqlite:///{tmp_path}/store.db", str(tmp_path / "heads"))
    assert (settings.hmac_key, settings.signing_key) == (SECRET.encode(), private)
    assert (settings.on_audit_failure, settings.object_lock, settings.retain_days) == (
        "fail",
        "compliance",
        SIX_YEARS_DAYS,
    )
    assert SECRET not in repr(settings)
    assert "PRIVATE" not in repr(settings)


def test_extras(connection: Callable[..., None], set_connection: Callable[..., None]) -> None:
    """As the form gives them, numbers as text included; another store for the events."""
    set_connection("audit_db", conn_type="postgres", host="db", login="ai_audit_writer", schema="ai")
    connection(
        on_audit_failure="continue",
        store_conn_id="audit_db",
        object_lock="governance",
        retain_days="365",
        timeout_seconds="2.5",
        head_interval_seconds=1,
        head_lag_seconds=30,
    )
    settings = audit_settings()
    assert settings is not None
    assert settings.store == "postgresql://ai_audit_writer@db/ai"
    assert (settings.on_audit_failure, settings.object_lock, settings.retain_days) == ("continue", "governance", 365)
    assert (settings.timeout_seconds, settings.head_interval_seconds, settings.head_lag_seconds) == (2.5, 1.0, 30.0)


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        ({"signing_kee": "x"}, "unknown extra 'signing_kee'; did you mean 'signing_key'"),
        ({"signing_key": ""}, "signing_key must be there"),
        ({"on_audit_failure": "shrug"}, "on_audit_failure must be one of"),
        ({"retain_days": "long"}, "extra 'retain_days' must be an integer"),
    ],
)
def test_connections_that_cannot_be_right(extra: dict[str, Any], words: str, connection: Callable[..., None]) -> None:
    """The connection is named, and never a key."""
    connection(**extra)
    with pytest.raises(SpecError, match=words) as caught:
        audit_settings()
    assert "connection 'ai_audit' (type ai_audit)" in str(caught.value)
    assert SECRET not in str(caught.value)


def test_a_key_that_has_lost_its_lines(private: str) -> None:
    """A form of one line turns them into blanks, an environment variable into backslashes."""
    for text in (private, private.replace("\n", " "), private.replace("\n", "\\n"), private.strip()):
        assert HeadSigner(text).key_id == HeadSigner(private).key_id
    with pytest.raises(SpecError, match="Ed25519 private key"):
        HeadSigner("-----BEGIN PRIVATE KEY----- nonsense -----END PRIVATE KEY-----")


def test_the_test_button(connection: Callable[..., None], set_connection: Callable[..., None]) -> None:
    """Says where events go; a key that is none, or a store that does not answer, is said as well."""
    connection()
    worked, text = AIAuditHook().test_connection()
    assert worked
    assert "store.db" in text
    connection(signing_key="nonsense")
    assert AIAuditHook().test_connection() == (False, HeadSignerError)
    connection()
    set_connection("ai_store", conn_type="postgres", host="127.0.0.1", port=free_port(), schema="none")
    assert AIAuditHook().test_connection()[0] is False


HeadSignerError = (
    "signing_key must be an Ed25519 private key in PEM, without a password; `airflow-ai audit keygen` makes one"
)


# --- who acts


def test_who_acts() -> None:
    """The task and its try, and who triggered the run, where Airflow says so."""
    ti = SimpleNamespace(dag_id="d", task_id="t", run_id="r", map_index=3, try_number=2)
    actor = task_actor({"ti": ti, "dag_run": SimpleNamespace(triggering_user_name="ada")})  # type: ignore[typeddict-item]
    assert actor.facts() == {
        "kind": "airflow",
        "role": "submitter",
        "user": "ada",
        "dag_id": "d",
        "task_id": "t",
        "run_id": "r",
        "map_index": 3,
        "try_number": 2,
    }
    ti = SimpleNamespace(dag_id="d", task_id="t", run_id="r", map_index=-1)
    assert set(task_actor({"ti": ti}).facts()) == {"kind", "role", "dag_id", "task_id", "run_id"}  # type: ignore[typeddict-item]


# --- a task


def test_a_task_is_audited(
    model: JsonModel, connection: Callable[..., None], tmp_path: Path, run_dag: Callable[..., DagRun]
) -> None:
    """In a real run: who triggered it, which task and try, which record by its key, and no id in clear."""
    connection()
    with DAG("audited_triage", schedule=None) as dag:
        operator()
    run = run_dag(dag)
    assert run.state == "success"
    opened, *told = events(tmp_path)
    assert opened["action"] == "chain_opened"
    assert [(event["action"], event["outcome"]) for event in told] == [("infer", "intended"), ("infer", "succeeded")]
    actor = told[0]["actor"]
    assert (actor["kind"], actor["dag_id"], actor["task_id"]) == ("airflow", "audited_triage", "call")
    assert (actor["run_id"], actor["user"], actor["try_number"]) == (run.run_id, "dag_test", 1)
    assert told[0]["keys"] == record_key("CANARY-1", secret=SECRET.encode())
    assert told[0]["purpose"] == "TREAT"
    assert "CANARY" not in json.dumps(told)
    assert len(model.asked) == 1


def test_a_task_without_its_audit_asks_nobody(
    model: JsonModel, connection: Callable[..., None], set_connection: Callable[..., None]
) -> None:
    """The store is down: the fallback answers, and the model was not asked."""
    connection(timeout_seconds=0.5)
    set_connection("ai_store", conn_type="postgres", host="127.0.0.1", port=free_port(), schema="none")
    ti = SimpleNamespace(dag_id="d", run_id="r", task_id="call", map_index=-1, try_number=1)
    answer = operator(store_conn_id=None).execute({"ti": ti, "params": {}})  # type: ignore[typeddict-item]
    assert (answer["output"], answer["reason"]) == (FLOOR, "audit_unavailable")
    assert model.asked == []


# --- outputs of calls


def test_an_encrypted_output_is_read_on_record(
    connection: Callable[..., None], set_connection: Callable[..., None], tmp_path: Path
) -> None:
    """Also by somebody outside of a task; and where that cannot be kept, it is not shown."""
    connection()
    set_connection("ai_keys", conn_type="ai_keys", password=keyring_text(local_keys()))
    codec = codec_on(LocalKeyWrapper(local_keys()))
    answer = {"output_ref": store_output({"risk": "high"}, str(tmp_path / "outputs"), ["dag", "run"], codec=codec)}
    assert load_output(answer, keys_conn_id="ai_keys") == {"risk": "high"}
    (event,) = (event for event in events(tmp_path) if event["action"] == "decrypt")
    assert (event["outcome"], event["actor"]["role"]) == ("succeeded", "reader")
    set_connection("ai_store", conn_type="sqlite", host=str(tmp_path / "store.db" / "no_folder.db"))
    with pytest.raises(AuditError):
        load_output(answer, keys_conn_id="ai_keys")
