"""The PHI switch at the door of each runtime, and what reaches a model server when it is on."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from airflow_provider_ai.adapters.payload_free_logs import PACKAGE, PayloadFreeHandler
from airflow_provider_ai.core.audit import Actor
from airflow_provider_ai.core.audit_settings import AuditSettings
from airflow_provider_ai.core.claim_settings import ClaimCheckSettings
from airflow_provider_ai.core.config import (
    CheckpointSettings,
    EndpointSettings,
    InputSettings,
    Limits,
    SinkSettings,
    StorageOptions,
)
from airflow_provider_ai.core.fallback import Endpoint, Static
from airflow_provider_ai.core.job_settings import DispatcherSettings
from airflow_provider_ai.core.key_settings import KeySettings, KmsKeys
from airflow_provider_ai.core.phi_policy import ENVIRONMENT_VARIABLE, Phi
from airflow_provider_ai.core.redaction import Redaction
from airflow_provider_ai.core.requests import JsonRequest, OpenAIChatRequest
from airflow_provider_ai.core.transport_settings import TransportSettings
from airflow_provider_ai.exceptions import PhiPolicyError
from airflow_provider_ai.runtime.auditing import Audit
from airflow_provider_ai.runtime.batch_inference import BatchJob, run_batch
from airflow_provider_ai.runtime.dead_letters import open_dead_letter_desk
from airflow_provider_ai.runtime.dispatcher import DispatcherJob
from airflow_provider_ai.runtime.job_service import JobSettings
from airflow_provider_ai.runtime.phi import require_phi
from airflow_provider_ai.runtime.request_reply import open_job_client
from airflow_provider_ai.runtime.sync_call import SyncCaller
from airflow_provider_ai.runtime.worker import WorkerJob
from tests.runtime.endpoints import ModelServer, model_server
from tests.support.keys import local_keys

GUARDED = Phi(on=True, encryption=True, audit="fail-closed")
KEY = bytes(range(32))
RULES = Redaction(rules={"mrn": "tokenise", "age": "age", "admitted": "year"}, key=KEY)
COLUMNS = ("mrn", "age", "admitted", "pulse")
TRANSPORT = TransportSettings(
    kind="sqs", request_queue="a", result_queue="b", dead_letter_queue="c", endpoint_url="http://127.0.0.1:9"
)
STORE = "sqlite:///:memory:"
CLEAR = EndpointSettings(url="http://models.example.org", protocol="json", model="m")


class Listening(ModelServer):
    """Keeps what it is sent."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[dict[str, Any]] = []

    def handle(self, headers: dict[str, str], body: bytes) -> tuple[int, bytes]:
        self.sent += orjson.loads(body)["inputs"]
        return super().handle(headers, body)


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> Iterator[Listening]:
    monkeypatch.setattr("tests.runtime.endpoints.ModelServer", Listening)
    with model_server() as server:
        assert isinstance(server, Listening)
        yield server


@pytest.fixture(autouse=True)
def _log_handlers() -> Iterator[None]:
    """The switch adds a handler to the package's logger for good; not so here."""
    yield
    logger = logging.getLogger(PACKAGE)
    logger.handlers = [each for each in logger.handlers if not isinstance(each, PayloadFreeHandler)]


def _batch(folder: Path, url: str, **changes: Any) -> BatchJob:
    settings: dict[str, Any] = {
        "input": InputSettings(uri=str(folder / "visits.parquet"), id_column="visit", columns=COLUMNS),
        "endpoint": EndpointSettings(url=url, protocol="json", model="m"),
        "request": JsonRequest(),
        "limits": Limits(concurrency=2, max_attempts=1, max_quarantined_fraction=0.5),
        "checkpoint": CheckpointSettings(uri=str(folder / "checkpoints")),
        "sink": SinkSettings(url=f"duckdb:///{folder}/warehouse.duckdb", table="scores"),
        "redaction": RULES,
        "phi": GUARDED,
    }
    return BatchJob(**{**settings, **changes})


@pytest.fixture
def visits(tmp_path: Path) -> Path:
    """Four visits of people with marks all over them; one has a date that is none."""
    table = pa.table(
        {
            "visit": [f"canary-visit-{n}" for n in range(4)],
            "mrn": [f"canary-{n % 2}" for n in range(4)],
            "name": ["Canary One", "Canary Two", "Canary Three", "Canary Four"],
            "age": [93, 41, 89, 17],
            "admitted": ["2024-02-03", "2023-11-30", "canary-date", "2024-01-01"],
            "pulse": [88, 70, 61, 90],
        }
    )
    pq.write_table(table, tmp_path / "visits.parquet")
    return tmp_path


def test_a_batch(visits: Path, model: Listening, monkeypatch: pytest.MonkeyPatch) -> None:
    """The model sees what is listed, redacted, under positions; the record that cannot be redacted is quarantined."""
    read: list[str] = []
    real = pq.ParquetFile.iter_batches

    def iter_batches(self: Any, *arguments: Any, **options: Any) -> Any:
        read.extend(options.get("columns") or ["all of them"])
        return real(self, *arguments, **options)

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", iter_batches)
    report = run_batch(_batch(visits, model.url))
    assert (report.succeeded, report.quarantined, report.published) == (3, 1, 3)
    assert "name" not in read
    assert b"anary" not in orjson.dumps(model.sent)
    assert [record["id"] for record in model.sent] == [0, 0, 0]
    assert sorted((str(record["age"]), record["admitted"], record["pulse"]) for record in model.sent) == [
        ("17", "2024", 90),
        ("41", "2023", 70),
        ("90+", "2024", 88),
    ]
    assert len({record["mrn"] for record in model.sent}) == 2
    with duckdb.connect(str(visits / "warehouse.duckdb")) as warehouse:
        ids = warehouse.execute("SELECT visit FROM scores ORDER BY visit").fetchall()
    assert ids == [("canary-visit-0",), ("canary-visit-1",), ("canary-visit-3",)]


def test_a_batch_with_other_rules_asks_again(visits: Path, model: Listening) -> None:
    """Answers to redacted questions are not answers to others; the same rules find theirs."""
    run_batch(_batch(visits, model.url))
    assert run_batch(_batch(visits, model.url)).requests == 0
    others = Redaction(rules={"mrn": "mask", "age": "age", "admitted": "year"})
    assert run_batch(_batch(visits, model.url, redaction=others)).requests == 3


def test_redaction_without_the_switch(visits: Path, model: Listening) -> None:
    """Rules hold for whoever wants them; the id stays out, other columns are the author's business."""
    run_batch(_batch(visits, model.url, phi=Phi(), redaction=Redaction(rules={"mrn": "mask"})))
    assert {record["mrn"] for record in model.sent} == {"***"}
    assert b"canary-visit" not in orjson.dumps(model.sent)


@pytest.mark.parametrize(
    "changes",
    [
        {"endpoint": CLEAR},
        {"input": InputSettings(uri="visits.parquet", id_column="visit")},
        {"request": OpenAIChatRequest(prompt="{{ record.name }}"), "endpoint": replace(CLEAR, protocol="openai-chat")},
        {"sink": SinkSettings(url="postgresql://db.example.org/w?sslmode=require", table="t")},
        {"phi": Phi(on=True)},
        {"redaction": Redaction(rules={"name": "mask"})},
    ],
)
def test_a_batch_that_is_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    """It is not even put together, whoever says that it is about PHI."""
    with pytest.raises(PhiPolicyError):
        _batch(tmp_path, "http://127.0.0.1:9", **changes)


def _sync(model: Listening, **changes: Any) -> SyncCaller:
    settings: dict[str, Any] = {
        "endpoint": EndpointSettings(url=model.url, protocol="json", model="m"),
        "request": JsonRequest(),
        "fallback": [Static({"priority": "routine"})],
        "columns": COLUMNS,
        "redaction": RULES,
        "phi": GUARDED,
    }
    return SyncCaller(**{**settings, **changes})


def test_a_synchronous_call(model: Listening) -> None:
    """Redacted on the way; the record's own id comes back with the answer and never goes out."""
    with _sync(model) as caller:
        answer = caller.call({"id": "canary-id", "mrn": "canary-1", "age": 93, "pulse": 88})
    assert answer.output == {"id": "canary-id", "priority": "urgent"}
    assert not answer.degraded
    assert b"anary" not in orjson.dumps(model.sent)
    assert model.sent[0]["age"] == "90+"


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({"age": 1, "name": "Canary One"}, "field_not_allowed"),
        ({"age": "Canary One"}, "redaction_age"),
        ({"admitted": "Canary One"}, "redaction_date"),
    ],
)
def test_a_synchronous_call_that_must_not_go_out(model: Listening, record: dict[str, Any], reason: str) -> None:
    """It is answered degraded, with a word."""
    with _sync(model) as caller:
        answer = caller.call(record)
    assert (answer.source, answer.reason) == ("static", reason)
    assert model.calls == 0


def test_a_fallback_endpoint_is_sent_no_more(model: Listening) -> None:
    """The same rules hold for it."""
    down = EndpointSettings(url="http://127.0.0.1:9", protocol="json", model="m")
    other = Endpoint(EndpointSettings(url=model.url, protocol="json", model="m"))
    with _sync(model, endpoint=down, fallback=[other, Static({})]) as caller:
        answer = caller.call({"mrn": "canary-1", "age": 93})
    assert answer.source == "endpoint"
    assert b"anary" not in orjson.dumps(model.sent)


@pytest.mark.parametrize(
    "changes",
    [
        {"endpoint": CLEAR},
        {"columns": None},
        {"fallback": [Endpoint(CLEAR), Static({})]},
        {"fallback": [Endpoint(replace(CLEAR, url="http://127.0.0.1"), JsonRequest(columns=["name"])), Static({})]},
        {"store": "postgresql://db.example.org/ai"},
        {"phi": replace(GUARDED, encryption=False)},
        {"phi": replace(GUARDED, audit="fail-open")},
    ],
)
def test_a_synchronous_call_that_is_refused(model: Listening, changes: dict[str, Any]) -> None:
    """The caller is not even made."""
    with pytest.raises(PhiPolicyError):
        _sync(model, **changes)


def _desk(**given: Any) -> object:
    with open_dead_letter_desk(TRANSPORT, given["store"], DispatcherSettings(), phi=given["phi"]) as desk:
        return desk


PARTIES: dict[str, Callable[..., object]] = {
    "submitter": lambda **given: open_job_client(transport=TRANSPORT, **given),
    "settings": lambda **given: JobSettings(transport=TRANSPORT, claim_check=ClaimCheckSettings(), **given),
    "dispatcher": lambda **given: DispatcherJob(transport=TRANSPORT, **given),
    "dead letters": _desk,
    "worker": lambda **given: WorkerJob(
        transport=TRANSPORT,
        endpoint=EndpointSettings(url="http://127.0.0.1:9", protocol="json", model="m"),
        request=JsonRequest(columns=["age"]),
        **given,
    ),
}


@pytest.mark.parametrize("party", PARTIES)
def test_every_party_of_the_asynchronous_pattern_asks(party: str) -> None:
    """A store that anybody can be is refused to each of them, and so is a party that nothing encrypts or audits."""
    for given in (
        {"store": "postgresql://db.example.org/ai?sslmode=require", "phi": GUARDED},
        {"store": "sqlite:////tmp/nowhere.db", "phi": Phi(on=True)},
    ):
        with pytest.raises(PhiPolicyError):
            PARTIES[party](**given)


def test_a_worker_sends_what_is_listed() -> None:
    """The id that a payload carries for its reply does not go to the model."""
    job = WorkerJob(
        transport=TRANSPORT,
        store="sqlite:////tmp/nowhere.db",
        endpoint=EndpointSettings(url="http://127.0.0.1:9", protocol="json", model="m"),
        request=JsonRequest(),
        columns=("age",),
        phi=GUARDED,
    )
    assert job.request is not None
    body = job.request.encode("m", ["canary-id"], [{"visit": "canary-id", "age": 41}]).body
    assert orjson.loads(body)["inputs"] == [{"id": 0, "age": 41}]


@pytest.mark.parametrize("word", ["true", "True", "1"])
def test_the_environment_turns_it_on(model: Listening, monkeypatch: pytest.MonkeyPatch, word: str) -> None:
    """For the whole package, whatever the settings say."""
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, word)
    with pytest.raises(PhiPolicyError):
        _sync(model, phi=Phi())
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, "false")
    _sync(model, phi=Phi()).close()


def test_logs_are_kept_free_of_payloads_from_then_on(model: Listening) -> None:
    """Once the switch is on, and not before."""

    def has_handler() -> bool:
        return any(isinstance(each, PayloadFreeHandler) for each in logging.getLogger(PACKAGE).handlers)

    _sync(model, phi=Phi()).close()
    assert not has_handler()
    _sync(model).close()
    _sync(model).close()
    assert has_handler()


def _audit(store: str = STORE, *, closed: bool = True, endpoint_url: str | None = None) -> Audit:
    settings = AuditSettings(
        store=store,
        hmac_key=bytes(32),
        on_audit_failure="fail" if closed else "continue",
        storage=StorageOptions(endpoint_url=endpoint_url),
    )
    return Audit(settings=settings, actor=Actor(kind="service", role="worker"))


def _kms(endpoint_url: str) -> KmsKeys:
    return KmsKeys(key_id="1234abcd-12ab-34cd-56ef-1234567890ab", hash_key=bytes(32), endpoint_url=endpoint_url)


@pytest.mark.parametrize(
    ("keys", "audit", "refused"),
    [
        (local_keys(), _audit(), None),
        (None, _audit(), "encryption: "),
        (local_keys(), None, "audit: nobody"),
        (local_keys(), _audit(closed=False), "audit: calls would be made"),
        (local_keys(), _audit("postgresql://db.example.org/audit"), "audit store: sslmode"),
        (local_keys(), _audit(endpoint_url="http://s3.example.org"), "audit heads: endpoint_url"),
        (_kms("http://kms.example.org"), _audit(), "KMS: endpoint_url"),
    ],
)
def test_what_encrypts_and_audits(keys: KeySettings | None, audit: Audit | None, refused: str | None) -> None:
    """Is told from the settings of both, which are themselves reached in a protected way."""
    if refused is None and audit is not None:
        assert require_phi(Phi(on=True), keys=keys, audit=audit)
        assert require_phi(Phi(on=True), keys=keys, audit=audit.settings)
        return
    with pytest.raises(PhiPolicyError, match=refused):
        require_phi(Phi(on=True), keys=keys, audit=audit)
