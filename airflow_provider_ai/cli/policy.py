"""``airflow-ai policy iam`` and ``airflow-ai policy sql``: the text on stdout, what is wrong on stderr."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable

from airflow_provider_ai.cli.endings import COMPLETE, Endings, attempt
from airflow_provider_ai.cli.policy_spec import PolicySpec, load_policy_spec
from airflow_provider_ai.cli.progress import logging_to
from airflow_provider_ai.core.policies.iam import iam_policy
from airflow_provider_ai.core.policies.places import Account
from airflow_provider_ai.core.policies.roles import role_of
from airflow_provider_ai.core.policies.sql import store_script, warehouse_script
from airflow_provider_ai.core.policies.store_grants import audit_grants, store_grants
from airflow_provider_ai.exceptions import SpecError

_ENDINGS = Endings(advice=((SpecError, "correct it, then run again; nothing was printed"),), otherwise="then run again")
_PUBLIC = "public"


def iam(arguments: argparse.Namespace) -> int:
    """``policy iam``; the exit code."""

    def work() -> str:
        account = Account(number=arguments.account, region=arguments.region, partition=arguments.partition)
        spec = load_policy_spec(arguments.spec)
        policy = iam_policy(spec.places, role_of(arguments.role, spec.places.kind), account)
        return json.dumps(policy, indent=2) + "\n"

    return _printed(work, arguments)


def sql(arguments: argparse.Namespace) -> int:
    """``policy sql``; the exit code."""

    def work() -> str:
        spec = load_policy_spec(arguments.spec)
        return {"store": _store, "audit": _audit, "warehouse": _warehouse}[arguments.database](spec, arguments)

    return _printed(work, arguments)


def _store(spec: PolicySpec, arguments: argparse.Namespace) -> str:
    kind = spec.places.kind
    role = role_of(arguments.role, kind)
    _require_postgresql(spec.store, "[store] url")
    _refuse(arguments, "table", "warehouse")
    grants = store_grants(kind, role) | (audit_grants(kind, role) if spec.audit == spec.store else {})
    schema = arguments.schema or _PUBLIC
    return store_script(role, grants, schema=schema, name=arguments.name, tenant=arguments.tenant)


def _audit(spec: PolicySpec, arguments: argparse.Namespace) -> str:
    role = role_of(arguments.role, spec.places.kind)
    _require_postgresql(spec.audit, "[audit] store")
    _refuse(arguments, "table", "warehouse")
    _refuse(arguments, "tenant", "store")
    grants = audit_grants(spec.places.kind, role)
    return store_script(role, grants, schema=arguments.schema or _PUBLIC, name=arguments.name)


def _warehouse(spec: PolicySpec, arguments: argparse.Namespace) -> str:
    role = role_of(arguments.role, spec.places.kind)
    _refuse(arguments, "tenant", "store")
    if spec.sink is not None:
        _require_postgresql(spec.sink, "[sink] url")
    table = arguments.table or spec.table
    if table is None:
        raise SpecError("the warehouse's table is not known: set [sink], or --table")
    schema = arguments.schema or spec.schema or _PUBLIC
    return warehouse_script(role, schema=schema, table=table, name=arguments.name)


def _refuse(arguments: argparse.Namespace, option: str, database: str) -> None:
    if getattr(arguments, option) is not None:
        raise SpecError(f"--{option} must be absent: it is for --database {database}")


def _require_postgresql(url: str | None, what: str) -> None:
    """Other databases have no roles (SQLite, DuckDB), or others than these."""
    if url is None:
        raise SpecError(f"the database is not known: set {what}")
    if url.partition(":")[0].partition("+")[0] not in ("postgresql", "postgres"):
        raise SpecError(f"{what} must be a postgresql:// URL: only there are rights granted by this script")


def _printed(work: Callable[[], str], arguments: argparse.Namespace) -> int:
    with logging_to(sys.stderr, arguments.log_level):
        text, code = attempt(work, _ENDINGS, debug=arguments.log_level == "debug")
    if text is None:
        return code
    sys.stdout.write(text)
    sys.stdout.flush()
    return COMPLETE
