"""Runs with the audit on, over real stores and an HTTP server that counts: nothing unaudited, nothing paid twice."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from airflow_provider_ai.adapters.audit.event_table import AuditReader, AuditTable
from airflow_provider_ai.adapters.audit.head_places import open_head_place
from airflow_provider_ai.adapters.audit.signing import HeadVerifier, new_key_pair
from airflow_provider_ai.adapters.store import open_store
from airflow_provider_ai.core.audit import Actor
from airflow_provider_ai.core.audit_chain import Row
from airflow_provider_ai.core.audit_check import Finding
from airflow_provider_ai.core.audit_formats import as_jsonl
from airflow_provider_ai.core.audit_settings import AuditSettings
from airflow_provider_ai.core.config import CheckpointSettings, EndpointSettings, InputSettings, Limits, SinkSettings
from airflow_provider_ai.core.fallback import Static
from airflow_provider_ai.core.identity import record_key
from airflow_provider_ai.core.requests.json_request import JsonRequest
from airflow_provider_ai.exceptions import AuditUnavailableError, StoreUnavailableError
from airflow_provider_ai.patterns import patience
from airflow_provider_ai.runtime.audit_verify import HeadSource, verify_audit
from airflow_provider_ai.runtime.auditing import Audit
from airflow_provider_ai.runtime.batch_inference import BatchJob, run_batch
from airflow_provider_ai.runtime.sync_call import SyncCaller
from tests.support.processes import free_port

SECRET = b"s" * 32
ROWS = 300
BAD = 17  # the record that the model refuses
ACTOR = Actor(kind="cli", role="submitter", user="u")


@dataclass
class Model:
    """What the server was asked, by id."""

    url: str
    asked: Counter[Any] = field(default_factory=Counter)


@pytest.fixture
def model() -> Iterator[Model]:
    """A model server of protocol json that refuses one record."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            ids = [record["id"] for record in body["inputs"]]
            made.asked.update(ids)
            status = 400 if f"CANARY-{BAD}" in ids else 200
            answer = json.dumps({"outputs": [{"id": each, "score": 0.5} for each in ids]}).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: Any) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made = Model(f"http://127.0.0.1:{server.server_port}")
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield made
    server.shutdown()
    server.server_close()


@pytest.fixture
def keys() -> tuple[str, str]:
    return new_key_pair()


@pytest.fixture
def audit(tmp_path: Path, keys: tuple[str, str]) -> Audit:
    settings = AuditSettings(
        store=f"sqlite:///{tmp_path}/audit.db",
        hmac_key=SECRET,
        heads=f"{tmp_path}/heads",
        signing_key=keys[0],
        purpose="TREAT",
        head_interval_seconds=3000,
        head_lag_seconds=4000,
    )
    return Audit(settings=settings, actor=ACTOR)


@pytest.fixture
def job(tmp_path: Path, model: Model, audit: Audit) -> BatchJob:
    ids = [f"CANARY-{number}" for number in range(ROWS)]
    pq.write_table(pa.table({"id": ids, "age": list(range(ROWS))}), tmp_path / "visits.parquet", row_group_size=50)
    return BatchJob(
        input=InputSettings(uri=f"{tmp_path}/visits.parquet", id_column="id", rows_per_partition=150),
        endpoint=EndpointSettings(url=model.url, protocol="json", model="m"),
        request=JsonRequest(columns=["age"]),
        limits=Limits(concurrency=8, max_quarantined_fraction=0.1, max_attempts=1),
        checkpoint=CheckpointSettings(uri=f"{tmp_path}/checkpoints", interval_seconds=0.05),
        sink=SinkSettings(url=f"sqlite:///{tmp_path}/warehouse.sqlite", table="scores"),
        audit=audit,
    )


def events(audit: Audit) -> list[dict[str, Any]]:
    with closing(open_store(audit.settings.store, timeout_seconds=30)) as store:
        return [as_jsonl(Row(*values)) for page in AuditReader(store).pages() for values in page]


def findings(audit: Audit, public: str) -> list[Finding]:
    found: list[Finding] = []
    with closing(open_store(audit.settings.store, timeout_seconds=30)) as store:
        reader = AuditReader(store)
        place = open_head_place(str(audit.settings.heads))
        source = HeadSource(HeadVerifier([public]), place=place, reader=reader, every=True, since="")
        report = verify_audit(reader, source, found=found.append)
    assert report.events > 1
    return found


def keys_in(told: list[dict[str, Any]], action: str, outcome: str) -> Counter[str]:
    return Counter(
        key
        for event in told
        if (event["action"], event["outcome"]) == (action, outcome)
        for key in event["record_keys"]
    )


EVERY = {record_key(f"CANARY-{number}", secret=SECRET) for number in range(ROWS)}
SPOILT = {record_key(f"CANARY-{BAD}", secret=SECRET)}


# --- batch


def test_a_batch_is_on_record_record_by_record(
    job: BatchJob, model: Model, audit: Audit, keys: tuple[str, str], tmp_path: Path
) -> None:
    """Read, sent, answered, given up, published: each record once, under its key, in one chain that verifies."""
    report = run_batch(job)
    assert (report.succeeded, report.quarantined) == (ROWS - 1, 1)
    told = events(audit)
    assert len({event["writer"] for event in told}) == 1
    assert keys_in(told, "read", "succeeded") == dict.fromkeys(EVERY, 1)
    assert keys_in(told, "infer", "succeeded") == dict.fromkeys(EVERY - SPOILT, 1)
    assert keys_in(told, "quarantine", "failed") == dict.fromkeys(SPOILT, 1)
    assert keys_in(told, "publish", "succeeded") == dict.fromkeys(EVERY - SPOILT, 1)
    digests = {event["digest"] for event in told if event["action"] == "read"}
    assert {event["digest"] for event in told if event["outcome"] == "intended" and event["records"]} == digests
    assert {event["purpose"] for event in told} == {"TREAT"}
    assert {event.get("prompt_hash") for event in told[1:]} == {job.prompt_hash}
    assert findings(audit, keys[1]) == []
    dumped = b"".join(path.read_bytes() for path in tmp_path.glob("audit.db*"))
    assert b"CANARY" not in dumped


def test_without_an_audit_nothing_is_kept(job: BatchJob, tmp_path: Path) -> None:
    """Not even a store is made."""
    run_batch(replace(job, audit=None))
    assert not list(tmp_path.glob("audit.db*"))


def test_no_record_is_sent_while_the_audit_is_down(
    job: BatchJob, model: Model, audit: Audit, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The model server counts no call; once the store is up, the same command does everything."""
    monkeypatch.setattr(patience, "PATIENCE_SECONDS", 0.0)
    dead = replace(audit.settings, store=f"postgresql://ai@127.0.0.1:{free_port()}/none", timeout_seconds=0.5)
    with pytest.raises(AuditUnavailableError):
        run_batch(replace(job, audit=replace(audit, settings=dead)))
    assert model.asked == {}
    assert run_batch(job).succeeded == ROWS - 1
    assert set(model.asked.values()) == {1}


@pytest.mark.parametrize("after", [1, 2, 3, 4, 5, 6, 8, 10])
def test_an_audit_that_dies_loses_nothing(
    after: int, job: BatchJob, model: Model, audit: Audit, keys: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever it dies: what was paid for is in the checkpoints, the next run calls only the rest, and each call was
    on record before it was made."""
    monkeypatch.setattr(patience, "PATIENCE_SECONDS", 0.0)
    real, lock, commits = AuditTable.insert, threading.Lock(), iter(range(1000))

    def dies(self: AuditTable, rows: Any) -> None:
        with lock:
            number = next(commits)
        if number >= after:
            raise StoreUnavailableError("down")
        real(self, rows)

    with monkeypatch.context() as patched:
        patched.setattr(AuditTable, "insert", dies)
        patched.setattr(AuditTable, "insert_absent", dies)
        with pytest.raises(AuditUnavailableError):
            run_batch(job)
    on_record = keys_in(events(audit), "read", "succeeded")
    assert {record_key(name, secret=SECRET) for name in model.asked} <= set(on_record)
    assert run_batch(job).succeeded == ROWS - 1
    assert max(model.asked.values()) == 1
    assert len(model.asked) == ROWS
    told = events(audit)
    assert set(keys_in(told, "publish", "intended") | keys_in(told, "publish", "succeeded")) <= EVERY
    assert findings(audit, keys[1]) == []


# --- synchronous calls


def caller(model: Model, audit: Audit | None, **options: Any) -> SyncCaller:
    return SyncCaller(
        endpoint=EndpointSettings(url=model.url, protocol="json", model="m"),
        request=JsonRequest(),
        fallback=[Static({"score": 0.0})],
        audit=audit,
        **options,
    )


def test_a_call_is_on_record(model: Model, audit: Audit, keys: tuple[str, str]) -> None:
    """Intended and succeeded, under the record's key; the chain is closed with the caller."""
    with caller(model, audit) as made:
        assert not made.call({"id": "CANARY-1", "age": 63}).degraded
    told = events(audit)
    assert [(event["action"], event["outcome"]) for event in told] == [
        ("chain_opened", "succeeded"),
        ("infer", "intended"),
        ("infer", "succeeded"),
    ]
    assert told[1]["record_keys"] == [record_key("CANARY-1", secret=SECRET)]
    assert findings(audit, keys[1]) == []


def test_no_call_is_made_while_the_audits_store_is_down(model: Model, audit: Audit) -> None:
    """The fallback answers, within the deadline; the server counts zero calls."""
    dead = replace(audit.settings, store=f"postgresql://ai@127.0.0.1:{free_port()}/none", timeout_seconds=0.5)
    with caller(model, replace(audit, settings=dead)) as made:
        answers = [made.call({"id": "CANARY-1", "age": 63}) for _ in range(10)]
    assert {(answer.reason, answer.output["score"]) for answer in answers} == {("audit_unavailable", 0.0)}
    assert max(answer.elapsed_ms for answer in answers) < 3000
    assert model.asked == {}


def test_no_call_is_made_while_heads_cannot_be_shipped(model: Model, audit: Audit) -> None:
    """Not even the first one: nobody could tell if its chain were removed."""
    Path(str(audit.settings.heads)).write_text("a file where a folder should be")
    with caller(model, audit) as made:
        assert made.call({"id": "CANARY-1", "age": 63}).reason == "audit_unavailable"
    assert model.asked == {}


def test_continue_goes_on_without(model: Model, audit: Audit) -> None:
    """Where that was chosen, calls are made all the same."""
    dead = replace(
        audit.settings,
        store=f"postgresql://ai@127.0.0.1:{free_port()}/none",
        timeout_seconds=0.2,
        on_audit_failure="continue",
    )
    with caller(model, replace(audit, settings=dead)) as made:
        answers = [made.call({"id": "CANARY-1", "age": 63}) for _ in range(3)]
    assert not any(answer.degraded for answer in answers[1:])
    assert model.asked["CANARY-1"] >= 2
