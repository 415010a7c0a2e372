"""Each protection of health data taken away in turn: the search that finds nothing with all of them then finds a mark.

The search is that of ``tests/end_to_end/test_phi_in_airflow.py``; here a batch and synchronous calls run without
Airflow. A careless line in the package logs what it is answered, so that the last line of defence has work.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from airflow_provider_ai.adapters.audit.event_table import AuditReader
from airflow_provider_ai.adapters.audit.signing import new_key_pair
from airflow_provider_ai.adapters.codec import IdentityCodec
from airflow_provider_ai.adapters.crypto.envelope_codec import EnvelopeCodec
from airflow_provider_ai.adapters.payload_free_logs import PACKAGE, PayloadFreeHandler
from airflow_provider_ai.adapters.store import open_store
from airflow_provider_ai.core.audit import Actor
from airflow_provider_ai.core.audit_formats import AS
from airflow_provider_ai.core.audit_settings import AuditSettings
from airflow_provider_ai.core.config import CheckpointSettings, EndpointSettings, InputSettings, Limits, SinkSettings
from airflow_provider_ai.core.fallback import LastGood, Static
from airflow_provider_ai.core.phi_policy import Phi
from airflow_provider_ai.core.redaction import Necessary, Redaction
from airflow_provider_ai.core.requests import JsonRequest
from airflow_provider_ai.patterns.auditing import Auditor
from airflow_provider_ai.runtime.audit_export import ExportFilter, exported
from airflow_provider_ai.runtime.auditing import Audit
from airflow_provider_ai.runtime.batch_inference import BatchJob, run_batch
from airflow_provider_ai.runtime.sync_call import SyncCaller
from tests.support import canaries
from tests.support.canaries import Canaries
from tests.support.keys import local_keys
from tests.support.quoting_model import REFUSE, QuotingModel, quoting_model

Mutate = Callable[[pytest.MonkeyPatch], None]
COLUMNS = ("mrn", "phone", "note")
RULES = Redaction(rules={"mrn": "tokenise", "phone": "mask"}, key=bytes(range(32)))


@pytest.fixture
def marks(seed: int) -> Canaries:
    return Canaries.of_seed(seed, "id", "name", "mrn", "phone", "note", "output")


@pytest.fixture
def model(marks: Canaries) -> Iterator[QuotingModel]:
    with quoting_model(marks["output"]) as server:
        yield server


@pytest.fixture
def run(
    tmp_path: Path, model: QuotingModel, marks: Canaries, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[], dict[str, set[str]]]]:
    """``run()`` sends the records, and tells where which mark is that must not be there."""
    _log_carelessly(monkeypatch)
    (tmp_path / "kept").mkdir()
    log = logging.FileHandler(tmp_path / "kept" / "all.log")
    logging.getLogger().addHandler(log)

    def go() -> dict[str, set[str]]:
        _send(tmp_path, model, marks)
        places = canaries.files(tmp_path / "kept") | _exports(tmp_path) | _record_keys(tmp_path)
        bodies = {f"model {number}": body for number, body in enumerate(model.bodies)}
        sent = {place: names - {"note"} for place, names in marks.found(bodies).items()}
        return marks.found(places) | {place: names for place, names in sent.items() if names}

    yield go
    logging.getLogger().removeHandler(log)
    log.close()
    package = logging.getLogger(PACKAGE)
    package.handlers = [each for each in package.handlers if not isinstance(each, PayloadFreeHandler)]


def _log_carelessly(monkeypatch: pytest.MonkeyPatch) -> None:
    """An exception that quotes an answer."""
    decode = JsonRequest.decode

    def careless(self: JsonRequest, body: bytes, ids: Any) -> Any:
        try:
            raise ValueError(body.decode())
        except ValueError:
            logging.getLogger(f"{PACKAGE}.core.requests").exception("an answer to %s", list(ids))
        return decode(self, body, ids)

    monkeypatch.setattr(JsonRequest, "decode", careless)


def _send(folder: Path, model: QuotingModel, marks: Canaries) -> None:
    """A batch of four, one refused by the model; a call, and one with a field that is not allowed."""
    rows = [_visit(marks, number) for number in range(4)]
    rows[-1]["note"] += f" {REFUSE}"
    pq.write_table(pa.Table.from_pylist(rows), folder / "visits.parquet")
    given: dict[str, Any] = {
        "endpoint": EndpointSettings(url=model.url, protocol="json", model="m", phi=True),
        "request": JsonRequest(),
        "redaction": RULES,
        "keys": local_keys(),
        "phi": Phi(on=True),
        "audit": _audit(folder),
    }
    report = run_batch(_batch(folder, given))
    assert report.published == 3
    fallback = [LastGood(max_age=60), Static(None)]
    with SyncCaller(columns=COLUMNS, fallback=fallback, store=_store(folder), **given) as caller:
        allowed = {"id": rows[0]["visit"], **{name: rows[0][name] for name in COLUMNS}}
        assert marks["output"] in caller.call(allowed).output["verdict"]
        caller.call({**allowed, "name": rows[0]["name"]})


def _visit(marks: Canaries, number: int) -> dict[str, str]:
    told = {name: f"{marks[name]} {number}" for name in ("name", "mrn", "phone", "note")}
    return {"visit": f"{marks['id']}-{number}", **told}


def _batch(folder: Path, given: dict[str, Any]) -> BatchJob:
    return BatchJob(
        input=InputSettings(uri=str(folder / "visits.parquet"), id_column="visit", columns=COLUMNS),
        limits=Limits(concurrency=2, max_attempts=1, max_quarantined_fraction=0.5),
        checkpoint=CheckpointSettings(uri=str(folder / "kept" / "checkpoints")),
        sink=SinkSettings(url=f"duckdb:///{folder}/warehouse.duckdb", table="scores"),
        **given,
    )


def _store(folder: Path) -> str:
    return f"sqlite:///{folder}/kept/store.db"


def _audit(folder: Path) -> Audit:
    settings = AuditSettings(
        store=_store(folder),
        hmac_key=b"s" * 32,
        heads=f"{folder}/kept/heads",
        signing_key=new_key_pair()[0],
        purpose="TREAT",
    )
    return Audit(settings=settings, actor=Actor(kind="cli", role="submitter", user="u"))


def _exports(folder: Path) -> dict[str, bytes]:
    store = open_store(_store(folder))
    reader = AuditReader(store)
    made = {f"export {form}": b"\n".join(exported(reader, form, ExportFilter())) for form in AS}
    store.close()
    return made


def _record_keys(folder: Path) -> dict[str, bytes]:
    """Of the published rows: the only column that is made from an id."""
    with duckdb.connect(f"{folder}/warehouse.duckdb") as warehouse:
        keys = warehouse.execute("SELECT _record_key FROM scores").fetchall()
    return {"record keys": "\n".join(key for (key,) in keys).encode()}


# --- mutants


def _identity_codec(patch: pytest.MonkeyPatch) -> None:
    for where in ("job", "inference", "sync_call"):
        patch.setattr(f"airflow_provider_ai.runtime.{where}.open_codec", lambda _keys: IdentityCodec())


def _no_log_filter(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("airflow_provider_ai.runtime.phi.keep_payloads_out_of_logs", lambda: None)


def _plain_record_ids(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(EnvelopeCodec, "record_key", lambda _self, record_id: str(record_id))


def _no_columns(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Necessary, "_allowed_part", lambda _self, record: dict(record))


def _no_redaction(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Redaction, "apply", lambda _self, record: dict(record))


def _id_in_the_audit(patch: pytest.MonkeyPatch) -> None:
    key, event, ids = Auditor.key, Auditor.event, [""]

    def noted(self: Auditor, record_id: object) -> str:
        ids.append(str(record_id))
        return key(self, record_id)

    patch.setattr(Auditor, "key", noted)
    patch.setattr(Auditor, "event", lambda *given, **told: replace(event(*given, **told), reference=ids[-1]))


MUTANTS: dict[str, tuple[Mutate, list[tuple[str, str]]]] = {
    "identity codec": (_identity_codec, [("/checkpoints/", "output"), ("store.db", "output")]),
    "no log filter": (_no_log_filter, [("all.log", "output")]),
    "plain record ids": (_plain_record_ids, [("record keys", "id")]),
    "columns not applied": (_no_columns, [("model", "name")]),
    "redaction not applied": (_no_redaction, [("model", "mrn"), ("model", "phone")]),
    "an id in the audit": (_id_in_the_audit, [("store.db", "id"), ("export jsonl", "id"), ("export fhir", "id")]),
}


def test_with_every_protection_nothing_is_found(run: Callable[[], dict[str, set[str]]]) -> None:
    """Neither in checkpoints, store, heads, log and exports, nor, beyond what is allowed, at the model."""
    assert run() == {}


@pytest.mark.parametrize("name", MUTANTS)
def test_without_one_of_them_a_mark_is_found(
    run: Callable[[], dict[str, set[str]]], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """And where it is to be expected."""
    mutate, expected = MUTANTS[name]
    mutate(monkeypatch)
    found = run()
    for place, mark in expected:
        assert any(place in where and mark in names for where, names in found.items()), (place, mark, found)
