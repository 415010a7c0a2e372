"""Every role × every table, column and verb of the store: what is not in its row is refused by a real PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from sqlalchemy.dialects import postgresql

from airflow_provider_ai.adapters.store import open_store
from airflow_provider_ai.adapters.store.tables import METADATA
from airflow_provider_ai.core.call_ports import Evidence
from airflow_provider_ai.core.call_settings import CallSettings
from airflow_provider_ai.core.job_claims import ClaimRefusal
from airflow_provider_ai.core.jobs import Content, NewJob
from airflow_provider_ai.core.policies.roles import ROLES, Kind, Role
from airflow_provider_ai.core.policies.sql import store_script
from airflow_provider_ai.core.policies.store_grants import REVISIONS, Grant, audit_grants, store_grants
from airflow_provider_ai.exceptions import StoreError
from tests.support.postgres import PostgresServer

COLUMNS = {table.name: [column.name for column in table.columns] for table in METADATA.sorted_tables}
PAYLOAD = {"payload_sha256", "payload_codec", "payload_ref", "payload_inline"}
REQUEST = {
    "job_id",
    "queue",
    "submission",
    "position",
    "generation",
    "predecessor",
    "submitted_at",
    "expires_at",
    "tenant",
    "webhook",
    *PAYLOAD,
}
RESULT = {"model", "result_sha256", "result_codec", "result_ref", "result_inline"}
INBOX = {"inbox_state", "inbox_via"}
ENDS = {"state", "owner", "fence", "attempts", "abandoned", "lease_until", "lease_seconds", "touched_at", "reason"}
NEW = {*REQUEST, *ENDS, "superseded", "sent"} - {"reason"}
ALL = set(COLUMNS["ai_jobs"])
# What each role may do with ai_jobs: verb → columns. All the rest it must not.
JOBS: dict[str, dict[str, set[str]]] = {
    "submitter": {
        "SELECT": ALL,
        "INSERT": NEW,
        "UPDATE": {"superseded", "sent", "state", "reason", "fence", "touched_at", *INBOX},
    },
    "worker": {"SELECT": ALL, "UPDATE": ENDS | RESULT},
    "dispatcher": {"SELECT": ALL, "UPDATE": ENDS | RESULT | INBOX | {"sent"}, "DELETE": ALL},
    "operator": {"SELECT": ALL, "INSERT": NEW, "UPDATE": ENDS | RESULT | INBOX | {"sent", "superseded"}},
    "reader": {"SELECT": ALL - (RESULT - {"model"}) - {"payload_inline"}},
    "rotator": {
        "SELECT": {"job_id", "payload_inline", "result_inline"},
        "UPDATE": {"payload_inline", "result_inline"},
    },
    "auditor": {},
    "caller": {},
    "batch": {},
}
WRITERS = ("submitter", "worker", "dispatcher", "operator", "caller", "batch")
AUDIT = {**{role: {"INSERT"} for role in WRITERS}, "auditor": {"SELECT"}}
LETTERS = {"dispatcher": {"INSERT"}, "operator": {"SELECT", "INSERT", "DELETE"}}
STATE = {"caller": {"SELECT", "INSERT", "UPDATE"}}
IN_STORE = [
    (kind, role) for kind in ROLES for role in ROLES[kind] if store_grants(kind, role) | audit_grants(kind, role)
]


@pytest.fixture(scope="module")
def database(postgres_server: PostgresServer) -> Iterator[str]:
    """The URL of a store, as its owner."""
    name = postgres_server.create_database()
    store = open_store(postgres_server.url(name))
    store.upgrade()
    store.close()
    yield postgres_server.url(name)
    postgres_server.drop_database(name)


def login(database: str, kind: Kind, role: Role, *, tenant: str | None = None, more: Any = None) -> str:
    """The URL of a new login with a role's rights. ``more``: the mutant's."""
    grants = {**store_grants(kind, role), **audit_grants(kind, role), **(more or {})}
    name = f"ai_{role.value}_{uuid4().hex[:8]}"
    script = store_script(role, grants, schema="public", name=name, tenant=tenant)
    with psycopg.connect(database, autocommit=True) as owner:
        owner.execute(script)
        owner.execute(script)  # it may be run again
        owner.execute(f'CREATE ROLE "{name}_login" LOGIN IN ROLE "{name}"')
    return database.replace("//postgres@", f"//{name}_login@")


def statements(table: str, column: str, kind: str) -> dict[str, str]:
    """A statement for each verb that touches nothing but the column, and no row."""
    return {
        "SELECT": f'SELECT "{column}" FROM {table} WHERE false',
        "INSERT": f'INSERT INTO {table} ("{column}") SELECT NULL::{kind} WHERE false',
        "UPDATE": f'UPDATE {table} SET "{column}" = DEFAULT WHERE false',
    }


def found(url: str) -> dict[str, dict[str, set[str]]]:
    """Table → verb → columns that a login may use it on; ``DELETE`` and the owner's verbs are of the whole table."""
    may: dict[str, dict[str, set[str]]] = {}
    with psycopg.connect(url, autocommit=True) as connection:
        for table in METADATA.sorted_tables:
            verbs: dict[str, set[str]] = {}
            for column in table.columns:
                kind = column.type.compile(postgresql.dialect())
                for verb, text in statements(table.name, column.name, kind).items():
                    if passes(connection, text):
                        verbs.setdefault(verb, set()).add(column.name)
            whole = {
                "DELETE": f"DELETE FROM {table.name} WHERE false",
                "TRUNCATE": f"TRUNCATE {table.name}",
                "ALTER": f"ALTER TABLE {table.name} DISABLE ROW LEVEL SECURITY",
                "DROP": f"DROP TABLE {table.name}",
                "LOCK": f"LOCK TABLE {table.name} IN ACCESS EXCLUSIVE MODE",
                "TRIGGER": f"CREATE TRIGGER t AFTER INSERT ON {table.name} EXECUTE FUNCTION pg_notify()",
            }
            verbs |= {verb: set(COLUMNS[table.name]) for verb, text in whole.items() if passes(connection, text)}
            may[table.name] = verbs
    return may


def passes(connection: psycopg.Connection[Any], text: str) -> bool:
    try:
        with connection.transaction(force_rollback=True):
            connection.execute(text)
    except psycopg.errors.InsufficientPrivilege:
        return False
    return True


def locks(verbs: dict[str, set[str]]) -> dict[str, set[str]]:
    """Whoever may delete, or update the whole table, may also lock it; that is no right to rows."""
    return {verb: columns for verb, columns in verbs.items() if verb != "LOCK"}


@pytest.mark.parametrize(("kind", "role"), IN_STORE, ids=str)
def test_a_role_may_do_its_row_and_nothing_else(database: str, kind: Kind, role: Role) -> None:
    """Jobs by column; the audit insert-only for who writes it; nothing of the owner's."""
    may = {table: locks(verbs) for table, verbs in found(login(database, kind, role)).items()}
    assert may["ai_jobs"] == JOBS[role.value]
    for table in ("ai_audit_events", "ai_audit_heads"):
        assert set(may[table]) == AUDIT.get(role.value, set())
    if role not in (Role.READER, Role.ROTATOR):
        assert set(may["ai_dead_letters"]) == LETTERS.get(role.value, set())
        assert set(may["ai_breakers"]) == STATE.get(role.value, set())
    grants = store_grants(kind, role) | audit_grants(kind, role)
    for table, verbs in may.items():
        assert set(verbs) == verbs_of(grants.get(table, Grant())), table


def verbs_of(grant: Grant) -> set[str]:
    return {verb.upper() for verb in ("select", "insert", "update", "delete") if getattr(grant, verb)}


@pytest.mark.parametrize(
    ("role", "more"),
    [
        (Role.WORKER, {"ai_jobs": Grant(select=True, insert=True, update=True, delete=True)}),
        (Role.WORKER, {"ai_audit_events": Grant(select=True, insert=True, update=True)}),
        (Role.READER, {"ai_jobs": Grant(select=True)}),
    ],
    ids=["all of ai_jobs", "an audit that can be changed", "a reader who sees payloads"],
)
def test_broader_grants_do_not_pass(database: str, role: Role, more: dict[str, Grant]) -> None:
    """The mutants: the test above fails with them."""
    may = found(login(database, "jobs", role, more=more))
    changed = next(iter(more))
    expected = JOBS[role.value] if changed == "ai_jobs" else dict.fromkeys(AUDIT[role.value], COLUMNS[changed])
    assert locks(may[changed]) != expected


def test_nobody_else_has_rights(database: str) -> None:
    """A login without a role is refused at every table; a role's login makes no table and becomes no one else."""
    worker = login(database, "jobs", Role.WORKER)
    with psycopg.connect(database, autocommit=True) as owner:
        owner.execute(f'CREATE ROLE "nobody_{uuid4().hex[:8]}" LOGIN')
        (name,) = owner.execute("SELECT rolname FROM pg_roles WHERE rolname LIKE 'nobody_%'").fetchall()[-1]
    assert not any(verbs for verbs in found(database.replace("//postgres@", f"//{name}@")).values())
    with psycopg.connect(worker, autocommit=True) as connection:
        assert not passes(connection, f"INSERT INTO {REVISIONS} (version_num) VALUES ('9999')")
        assert not passes(connection, "SET ROLE postgres")
        assert not passes(connection, "CREATE TABLE public.ai_mine (n int)")


def test_a_caller_shares_breakers_and_answers(database: str) -> None:
    """The gate and the last good answers under the caller's grants."""
    store = open_store(login(database, "call", Role.CALLER))
    gate, answers = store.gate(CallSettings()), store.answers()
    admission = gate.admit("models:443/a")
    gate.settle(admission, Evidence.ALIVE)
    answers.save("key", {"label": 1}, model="m")
    kept = answers.load("key")
    store.close()
    assert admission.refused is None
    assert kept is not None
    assert kept.output == {"label": 1}


def new_job(name: str, tenant: str | None) -> NewJob:
    payload = Content(sha256="0" * 64, inline=b"{}", codec="identity")
    return NewJob(job_id=name, submission=f"s-{name}", position=0, payload=payload, group=tenant)


def test_a_tenant_s_roles_see_no_other_tenant(database: str) -> None:
    """Not to read, to write, to claim or to cancel, whatever a session sets; a role without a tenant sees all."""
    tag = uuid4().hex[:6]
    stores = {
        (role, tenant): open_store(login(database, "jobs", role, tenant=tenant))
        for role in (Role.SUBMITTER, Role.WORKER)
        for tenant in ("a", "b", None)
    }
    for tenant in ("a", "b"):
        stores[Role.SUBMITTER, tenant].jobs().submit([new_job(f"{tag}-{tenant}", tenant)])
    with pytest.raises(StoreError):
        stores[Role.SUBMITTER, "a"].jobs().submit([new_job(f"{tag}-c", "b")])
    with pytest.raises(StoreError):
        stores[Role.SUBMITTER, "a"].jobs().submit([new_job(f"{tag}-d", None)])
    lease = {"sha256": "0" * 64, "owner": "w", "lease_seconds": 30.0, "max_attempts": 3}
    refused = stores[Role.WORKER, "a"].jobs().claim(f"{tag}-b", **lease)
    assert refused.refusal is ClaimRefusal.UNKNOWN
    assert stores[Role.SUBMITTER, "a"].jobs().cancel(f"s-{tag}-b") == 0
    assert stores[Role.WORKER, "a"].jobs().claim(f"{tag}-a", **lease).refusal is None
    assert stores[Role.WORKER, None].jobs().job(f"{tag}-b") is not None
    for store in stores.values():
        store.close()
    with psycopg.connect(login(database, "jobs", Role.WORKER, tenant="a"), autocommit=True) as connection:
        assert not passes(connection, "ALTER TABLE ai_jobs DISABLE ROW LEVEL SECURITY")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("SET row_security = off; SELECT job_id FROM ai_jobs")
