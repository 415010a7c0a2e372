"""Audit events in the formats of others: FHIR R4 AuditEvent, OCSF 1.3.0 API Activity, and JSON as it is here.

- FHIR: http://hl7.org/fhir/R4/auditevent.html (4.0.1). ``type`` is from ISO 21089 life cycle events or DICOM, both in
  the value set that the element is bound to; our own word for what was done is the ``subtype``.
- OCSF: class 6003 of https://schema.ocsf.io/1.3.0/classes/api_activity; our own word is ``api.operation``.

Records are named by their keys in all of them, and by nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import orjson

from airflow_provider_ai.core.audit import KEY_BYTES, AuditAction, AuditOutcome, known
from airflow_provider_ai.core.audit_chain import Row

FORMATS = ("fhir-auditevent", "ocsf", "jsonl")
OCSF_VERSION = "1.3.0"

_LIFECYCLE = "http://terminology.hl7.org/CodeSystem/iso-21089-lifecycle"
_DICOM = "http://dicom.nema.org/resources/ontology/DCM"
_ALERT = (_DICOM, "110113", "Security Alert")
_ACTIVITY = (_DICOM, "110100", "Application Activity")
_TYPES: Mapping[AuditAction, tuple[str, str, str]] = {
    AuditAction.CHAIN_OPENED: _ACTIVITY,
    AuditAction.EVENTS_LOST: _ALERT,
    AuditAction.READ: (_LIFECYCLE, "access", "Access/View Record Lifecycle Event"),
    AuditAction.INFER: (_LIFECYCLE, "transmit", "Transmit Record Lifecycle Event"),
    AuditAction.PUBLISH: (_LIFECYCLE, "originate", "Originate/Retain Record Lifecycle Event"),
    AuditAction.QUARANTINE: (_LIFECYCLE, "hold", "Add Legal Hold Record Lifecycle Event"),
    AuditAction.SUBMIT: (_LIFECYCLE, "transmit", "Transmit Record Lifecycle Event"),
    AuditAction.CLAIM: _ACTIVITY,
    AuditAction.RECEIVE: (_LIFECYCLE, "receive", "Receive/Retain Record Lifecycle Event"),
    AuditAction.CANCEL: _ACTIVITY,
    AuditAction.REDRIVE: (_LIFECYCLE, "transmit", "Transmit Record Lifecycle Event"),
    AuditAction.PURGE: (_LIFECYCLE, "destroy", "Destroy/Delete Record Lifecycle Event"),
    AuditAction.DEAD_LETTER: _ACTIVITY,
    AuditAction.SHOW: (_LIFECYCLE, "access", "Access/View Record Lifecycle Event"),
    AuditAction.WEBHOOK_REFUSED: _ALERT,
    AuditAction.REPLY_UNKNOWN: _ALERT,
    AuditAction.DECRYPT: (_LIFECYCLE, "decrypt", "Decrypt Record Lifecycle Event"),
    AuditAction.ROTATE: (_LIFECYCLE, "encrypt", "Encrypt Record Lifecycle Event"),
}
_CREATES = {AuditAction.PUBLISH, AuditAction.SUBMIT, AuditAction.RECEIVE, AuditAction.DEAD_LETTER, AuditAction.REDRIVE}
_READS = {AuditAction.READ, AuditAction.SHOW, AuditAction.DECRYPT}
_DELETES = {AuditAction.PURGE, AuditAction.CANCEL}
_PURPOSES = frozenset({"TREAT", "HPAYMT", "HOPERAT", "HRESCH", "ETREAT", "PUBHLTH", "HQUALIMP", "HSYSADMIN", "HLEGAL"})
_FHIR_OUTCOMES = {AuditOutcome.SUCCEEDED: "0", AuditOutcome.REFUSED: "4", AuditOutcome.FAILED: "8"}
_OURS = "urn:airflow-provider-ai"


def as_jsonl(row: Row) -> dict[str, Any]:
    """As it is here."""
    return {
        "writer": row.writer,
        "sequence": row.sequence,
        "at": _instant(row.at_us),
        **_facts(row),
        "records": row.records,
        "digest": row.digest,
        "record_keys": _keys(row),
        "hash": row.hash.hex(),
    }


def as_fhir(row: Row) -> dict[str, Any]:
    """An AuditEvent resource of FHIR R4."""
    facts = _facts(row)
    action, outcome = AuditAction(facts["action"]), AuditOutcome(facts["outcome"])
    system, code, display = _TYPES[action]
    words = [word for word in (outcome.value, facts.get("reason")) if word]
    return known(
        {
            "resourceType": "AuditEvent",
            "id": f"{row.writer}-{row.sequence}",
            "type": {"system": system, "code": code, "display": display},
            "subtype": [{"system": f"{_OURS}:action", "code": action.value}],
            "action": _letter(action),
            "recorded": _instant(row.at_us),
            "outcome": _FHIR_OUTCOMES.get(outcome),
            "outcomeDesc": ", ".join(words),
            "purposeOfEvent": _purpose(facts.get("purpose")),
            "agent": _agents(facts),
            "source": {
                "observer": {"identifier": {"system": f"{_OURS}:writer", "value": row.writer}},
                "type": [
                    {
                        "system": "http://terminology.hl7.org/CodeSystem/security-source-type",
                        "code": "4",
                        "display": "Application Server",
                    }
                ],
            },
            "entity": _entities(row, facts) or None,
        }
    )


def as_ocsf(row: Row) -> dict[str, Any]:
    """An event of OCSF's class API Activity."""
    facts = _facts(row)
    action, outcome = AuditAction(facts["action"]), AuditOutcome(facts["outcome"])
    actor = facts["actor"]
    activity = 1 if action in _CREATES else 2 if action in _READS else 4 if action in _DELETES else 99
    alert = _TYPES[action] is _ALERT
    return known(
        {
            "activity_id": activity,
            "activity_name": {1: "Create", 2: "Read", 4: "Delete"}.get(activity, action.value),
            "category_uid": 6,
            "category_name": "Application Activity",
            "class_uid": 6003,
            "class_name": "API Activity",
            "type_uid": 600300 + activity,
            "severity_id": 3 if alert else 1,
            "severity": "Medium" if alert else "Informational",
            "time": row.at_us // 1000,
            "status_id": {AuditOutcome.SUCCEEDED: 1, AuditOutcome.INTENDED: 99}.get(outcome, 2),
            "status": outcome.value,
            "status_detail": facts.get("reason"),
            "actor": known({"app_name": "airflow-provider-ai", "user": _ocsf_user(actor)}),
            "api": {"operation": action.value, "service": known({"name": facts.get("model")}) or None}
            if facts.get("model")
            else {"operation": action.value},
            "src_endpoint": {"svc_name": "airflow-provider-ai", "uid": row.writer},
            "resources": [{"uid": key, "type": "record key"} for key in _keys(row)]
            or ([{"uid": row.digest, "type": "digest of record keys"}] if row.records else None),
            "metadata": {
                "version": OCSF_VERSION,
                "uid": f"{row.writer}-{row.sequence}",
                "sequence": row.sequence,
                "product": {"name": "airflow-provider-ai", "vendor_name": "airflow-provider-ai"},
                "event_code": action.value,
            },
            "unmapped": known({**{name: facts.get(name) for name in _UNMAPPED}, "records": row.records, **actor}),
        }
    )


AS = {"fhir-auditevent": as_fhir, "ocsf": as_ocsf, "jsonl": as_jsonl}
"""Format → what makes it of a row."""
_UNMAPPED = ("purpose", "prompt_hash", "reference")


def _facts(row: Row) -> dict[str, Any]:
    facts: dict[str, Any] = orjson.loads(row.facts)
    return facts


def _keys(row: Row) -> list[str]:
    keys = row.keys or b""
    return [keys[start : start + KEY_BYTES].hex() for start in range(0, len(keys), KEY_BYTES)]


def _instant(at_us: int) -> str:
    seconds, micros = divmod(at_us, 1_000_000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{micros:06d}Z"


def _letter(action: AuditAction) -> str:
    if action in _CREATES:
        return "C"
    return "R" if action in _READS else "D" if action in _DELETES else "E"


def _purpose(purpose: str | None) -> list[dict[str, Any]] | None:
    if purpose is None:
        return None
    if purpose not in _PURPOSES:
        return [{"text": purpose}]
    return [{"coding": [{"system": "http://terminology.hl7.org/CodeSystem/v3-ActReason", "code": purpose}]}]


def _agents(facts: dict[str, Any]) -> list[dict[str, Any]]:
    actor = facts["actor"]
    who = known(
        {
            "role": [{"text": actor["role"]}],
            "altId": actor.get("user"),
            "name": _task(actor),
            "requestor": True,
        }
    )
    model = facts.get("model")
    called = {
        "type": {"coding": [{"system": _DICOM, "code": "110152", "display": "Destination Role ID"}]},
        "name": model,
        "requestor": False,
    }
    return [who] if model is None else [who, called]


def _task(actor: dict[str, Any]) -> str:
    """The task of a run, or the kind of process."""
    parts = [str(actor[name]) for name in ("dag_id", "run_id", "task_id", "map_index", "try_number") if name in actor]
    return " / ".join(parts) or str(actor["kind"])


def _entities(row: Row, facts: dict[str, Any]) -> list[dict[str, Any]]:
    """Its records, one by one where their keys are known, and what it was done with."""
    named = [_entity("record-key", key) for key in _keys(row)]
    if row.records and not named:
        named = [_entity("record-keys-sha256", row.digest)]
    about = [_entity(name.replace("_", "-"), facts[name]) for name in ("reference", "prompt_hash") if facts.get(name)]
    return named + about


def _entity(kind: str, value: str) -> dict[str, Any]:
    return {
        "what": {"identifier": {"system": f"{_OURS}:{kind}", "value": value}},
        "type": {
            "system": "http://terminology.hl7.org/CodeSystem/audit-entity-type",
            "code": "2",
            "display": "System Object",
        },
    }


def _ocsf_user(actor: dict[str, Any]) -> dict[str, Any]:
    name = actor.get("user") or actor["role"]
    return {"name": name, "type_id": 1 if "user" in actor else 3}
