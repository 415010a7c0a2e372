"""Audit events in the formats of others: what those require is there, and nothing that would be invalid."""

from __future__ import annotations

import re
from typing import Any

import orjson
import pytest

from airflow_provider_ai.core.audit import (
    Actor,
    AuditAction,
    AuditEvent,
    AuditOutcome,
    Position,
    digest_of,
    packed_keys,
)
from airflow_provider_ai.core.audit_chain import GENESIS, Row, next_row, start_of
from airflow_provider_ai.core.audit_formats import AS, FORMATS, as_fhir, as_jsonl, as_ocsf

WRITER = "20261124T201500Z-0123456789ab"
KEYS = ["00" * 16, "ff" * 16]
AIRFLOW = Actor(
    kind="airflow", role="submitter", user="ada", dag_id="d", task_id="t", run_id="r", map_index=3, try_number=2
)
SERVICE = Actor(kind="service", role="worker")
# https://hl7.org/fhir/R4/datatypes.html
INSTANT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)")
FHIR_ID = re.compile(r"[A-Za-z0-9\-.]{1,64}")


def row(action: AuditAction, outcome: AuditOutcome, actor: Actor = AIRFLOW, **facts: Any) -> Row:
    keys = packed_keys(facts.pop("record_keys", KEYS))
    given = {"keys": keys, "records": len(keys) // 16, "digest": digest_of(keys), **facts}
    event = AuditEvent(action=action, outcome=outcome, actor=actor, at_us=1_790_000_000_123_456, **given)
    return next_row(start_of(WRITER), event)


EVERY = [
    row(action, outcome, actor) for action in AuditAction for outcome in AuditOutcome for actor in (AIRFLOW, SERVICE)
]


@pytest.mark.parametrize("event", EVERY, ids=lambda event: orjson.loads(event.facts)["action"])
def test_fhir_has_what_r4_requires(event: Row) -> None:
    """AuditEvent 4.0.1: type, recorded, agent with requestor, source with observer; codes are of bound value sets."""
    made = as_fhir(event)
    assert made["resourceType"] == "AuditEvent"
    assert FHIR_ID.fullmatch(made["id"])
    assert set(made["type"]) == {"system", "code", "display"}
    assert INSTANT.fullmatch(made["recorded"])
    assert made["agent"]
    assert all(type(agent["requestor"]) is bool for agent in made["agent"])
    assert sum(agent["requestor"] for agent in made["agent"]) == 1
    assert made["source"]["observer"]["identifier"]["value"] == WRITER
    assert made["action"] in "CRUDE"
    assert made.get("outcome", "0") in ("0", "4", "8", "12")
    for entity in made["entity"]:
        assert not ("name" in entity and "query" in entity)  # constraint sev-1
    assert _without_empties(made)


def _without_empties(value: Any) -> bool:
    """FHIR's JSON has no null, no empty text, list or object."""
    if isinstance(value, dict):
        return bool(value) and all(map(_without_empties, value.values()))
    if isinstance(value, list):
        return bool(value) and all(map(_without_empties, value))
    return value is not None and value != ""


def test_fhir_says_who_what_and_why() -> None:
    """The user, the task, the model, the purpose, each record."""
    made = as_fhir(
        row(
            AuditAction.INFER, AuditOutcome.FAILED, model="m-7", prompt_hash="p" * 16, purpose="TREAT", reason="timeout"
        )
    )
    assert made["type"]["code"] == "transmit"
    assert made["subtype"][0]["code"] == "infer"
    assert (made["outcome"], made["outcomeDesc"]) == ("8", "failed, timeout")
    assert (made["agent"][0]["altId"], made["agent"][0]["name"]) == ("ada", "d / r / t / 3 / 2")
    assert made["agent"][1]["name"] == "m-7"
    assert made["purposeOfEvent"][0]["coding"][0]["code"] == "TREAT"
    values = [entity["what"]["identifier"]["value"] for entity in made["entity"]]
    assert values == [*KEYS, "p" * 16]
    assert made["recorded"] == "2026-09-21T14:13:20.123456Z"


def test_a_purpose_that_is_no_code_of_hl7_is_text() -> None:
    """An invented code would be invalid."""
    assert as_fhir(row(AuditAction.READ, AuditOutcome.SUCCEEDED, purpose="night-run"))["purposeOfEvent"] == [
        {"text": "night-run"}
    ]


# OCSF 1.3.0, API Activity: required attributes, and what they must be.
REQUIRED = {
    "activity_id": int,
    "category_uid": int,
    "class_uid": int,
    "type_uid": int,
    "time": int,
    "severity_id": int,
    "metadata": dict,
    "actor": dict,
    "api": dict,
    "src_endpoint": dict,
}


@pytest.mark.parametrize("event", EVERY, ids=lambda event: orjson.loads(event.facts)["action"])
def test_ocsf_has_what_1_3_requires(event: Row) -> None:
    """With the constraints of the objects in it, and uids that agree with each other."""
    made = as_ocsf(event)
    for name, kind in REQUIRED.items():
        assert type(made[name]) is kind, name
    assert made["class_uid"] == 6003
    assert made["category_uid"] == 6
    assert made["activity_id"] in (1, 2, 3, 4, 99)
    assert made["type_uid"] == made["class_uid"] * 100 + made["activity_id"]
    assert made["severity_id"] in (1, 3)
    assert made["status_id"] in (1, 2, 99)
    assert made["metadata"]["version"] == "1.3.0"
    assert {"name", "vendor_name"} <= made["metadata"]["product"].keys()
    assert made["api"]["operation"]
    assert {"user", "app_name"} <= made["actor"].keys()
    assert made["actor"]["user"]["name"]
    assert {"svc_name", "uid"} <= made["src_endpoint"].keys()
    assert all(resource["uid"] for resource in made.get("resources", []))
    assert made["time"] == 1_790_000_000_123


def test_ocsf_says_who_and_what() -> None:
    """Reads are reads; who it was and the run are in it."""
    made = as_ocsf(row(AuditAction.READ, AuditOutcome.SUCCEEDED))
    assert (made["activity_id"], made["type_uid"], made["status_id"]) == (2, 600302, 1)
    assert made["unmapped"]["run_id"] == "r"
    assert [resource["uid"] for resource in made["resources"]] == KEYS


def test_a_refused_webhook_is_an_alert() -> None:
    """In both."""
    refused = row(AuditAction.WEBHOOK_REFUSED, AuditOutcome.REFUSED, SERVICE, record_keys=[])
    assert as_ocsf(refused)["severity_id"] == 3
    assert as_fhir(refused)["type"]["code"] == "110113"
    assert "entity" not in as_fhir(refused)


def test_records_that_another_event_names() -> None:
    """Their digest is there in place of the keys."""
    packed = packed_keys(KEYS)
    event = row(AuditAction.INFER, AuditOutcome.SUCCEEDED, keys=b"", records=2, digest=digest_of(packed))
    assert as_fhir(event)["entity"][0]["what"]["identifier"]["value"] == digest_of(packed)
    assert as_ocsf(event)["resources"] == [{"uid": digest_of(packed), "type": "digest of record keys"}]
    assert as_jsonl(event)["record_keys"] == []


def test_a_link_between_chains_is_exported() -> None:
    """As it is in the chain."""
    link = Position(WRITER, 7, GENESIS)
    made = as_jsonl(row(AuditAction.CHAIN_OPENED, AuditOutcome.SUCCEEDED, record_keys=[], previous=link))
    assert made["previous"] == {"writer": WRITER, "sequence": 7, "hash": "00" * 32}


def test_every_format_is_there() -> None:
    """What the command line offers."""
    assert tuple(AS) == FORMATS
