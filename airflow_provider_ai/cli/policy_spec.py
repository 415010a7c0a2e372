"""Of a spec, of whatever kind, what rights depend on. No secret is looked up: rights come before them."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from airflow_provider_ai.cli.call_spec import CALL
from airflow_provider_ai.cli.job_spec import JOBS
from airflow_provider_ai.cli.spec import SHAPE
from airflow_provider_ai.cli.spec_keys import Table
from airflow_provider_ai.cli.spec_parts import in_table, read_toml
from airflow_provider_ai.core.audit_settings import AuditSettings
from airflow_provider_ai.core.key_settings import LocalKeys
from airflow_provider_ai.core.policies.places import Folder, Keys, Places
from airflow_provider_ai.core.policies.rights import DEAD_LETTERS, REQUESTS, RESULTS
from airflow_provider_ai.core.policies.roles import Kind
from airflow_provider_ai.core.transport_settings import TransportSettings
from airflow_provider_ai.exceptions import SpecError

_GLOB = re.compile(r"[*?\[]")
_SHAPES = {"jobs": JOBS, "batch": SHAPE, "call": CALL}


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicySpec:
    """What rights depend on.

    :param store: URL
    :param audit: URL of the store that holds the audit; None while that is off
    :param sink: URL of the warehouse, with ``schema`` and ``table``
    """

    places: Places
    store: str | None = field(default=None, repr=False)
    audit: str | None = field(default=None, repr=False)
    sink: str | None = field(default=None, repr=False)
    schema: str | None = None
    table: str | None = None


def load_policy_spec(path: str) -> PolicySpec:
    """Read a spec file. SpecError for the first thing that cannot be right; names the file, the table and the key."""
    file = Path(os.path.abspath(path))  # noqa: PTH100 - resolve() would follow links, which deployments switch
    try:
        document = read_toml(file)
        kind: Kind = "jobs" if "transport" in document else "batch" if "checkpoint" in document else "call"
        document.pop("fallback", None)
        return _spec(kind, _SHAPES[kind].check(document))
    except SpecError as error:
        raise SpecError(f"{path}: {error}") from None


def _spec(kind: Kind, tables: dict[str, Table]) -> PolicySpec:
    audit, sink = tables["audit"], tables.get("sink", {})
    audited = bool(audit) and audit.get("on") is not False
    store = tables.get("store", {}).get("url")
    return PolicySpec(
        places=_places(kind, tables, audit if audited else {}),
        store=store,
        audit=(audit.get("store") or store) if audited else None,
        sink=sink.get("url"),
        schema=sink.get("schema"),
        table=sink.get("table"),
    )


def _places(kind: Kind, tables: dict[str, Table], audit: Table) -> Places:
    return Places(
        kind=kind,
        claims=_folder(tables, "claim_check"),
        checkpoints=_folder(tables, "checkpoint"),
        input=_folder(tables, "input"),
        heads=_folder({"audit": audit}, "audit", "heads"),
        locked_heads=audit.get("object_lock", AuditSettings.__dataclass_fields__["object_lock"].default) != "none",
        keys=_keys(tables["encryption"]),
        **_transport(tables.get("transport", {})),
    )


def _transport(table: Table) -> dict[str, Any]:
    """Queues of SQS. Rights on topics of Kafka are the brokers' own affair."""
    if not table or table["kind"] == "kafka":
        return {}
    with in_table("transport"):
        settings = TransportSettings(**table)
    names = (settings.request_queue, settings.result_queue, settings.dead_letter_queue)
    queues = dict(zip((REQUESTS, RESULTS, DEAD_LETTERS), names, strict=True))
    return {"queues": queues, "queue_key": settings.kms_key_id, "region": settings.region}


def _keys(table: Table) -> Keys | None:
    if table.get("kind") != "kms":
        return None
    with in_table("encryption"):
        if "key_id" not in table:
            raise SpecError("missing key 'key_id'")
        ids = (table["key_id"], *table.get("older_key_ids", ()))
        tenant = table.get("tenant", LocalKeys.__dataclass_fields__["tenant"].default)
        wrapped = "wrapped_hash_key" in table
        return Keys(ids=ids, tenant=tenant, region=table.get("region"), wrapped_hash_key=wrapped)


def _folder(tables: dict[str, Table], name: str, key: str = "uri") -> Folder | None:
    """The folder of a bucket behind a URI, or the file; of a pattern, the folder that all it finds is in."""
    uri = tables.get(name, {}).get(key, "")
    scheme, _, rest = uri.partition("://")
    if scheme.lower() != "s3":
        return None
    bucket, _, path = rest.partition("/")
    found = _GLOB.search(path) if name == "input" else None
    if found is not None:
        path = path[: found.start()].rpartition("/")[0]
    return Folder(bucket=bucket, prefix=path.strip("/"))
