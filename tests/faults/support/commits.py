"""Faults at the commit that publishes a partition, whatever the database. Rules as in :mod:`.system_calls`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from airflow_provider_ai.adapters.sinks.duckdb_warehouse import DuckdbSession
from airflow_provider_ai.adapters.sinks.postgresql_warehouse import PostgresqlSession
from airflow_provider_ai.adapters.sinks.session import Session
from airflow_provider_ai.adapters.sinks.sqlite_warehouse import SqliteSession
from tests.faults.support.system_calls import Rule, suffer

COMMIT = "commit"


def install(rules: list[Rule]) -> None:
    """Strike commits of transactions in which a partition was written; reading ones and DDL are let through."""
    for kind in (DuckdbSession, PostgresqlSession, SqliteSession):
        _wrap(kind, rules)


def _wrap(kind: type[Session], rules: list[Rule]) -> None:
    real_lock, real_commit = kind.lock_publish, kind.commit
    publishing: set[int] = set()

    def lock_publish(self: Session, target: str, scope: str, partition: str) -> None:
        real_lock(self, target, scope, partition)
        publishing.add(id(self))

    def commit(self: Session) -> None:
        if id(self) not in publishing:
            real_commit(self)
            return
        publishing.discard(id(self))
        struck = [rule for rule in rules if rule.strikes(COMMIT, "")]
        _commit(struck, real_commit, self)

    kind.lock_publish, kind.commit = lock_publish, commit  # type: ignore[method-assign]


def _commit(struck: list[Rule], real: Callable[[Any], None], session: Session) -> None:
    if struck:
        suffer(struck[0].do, real, (session,), {})
    else:
        real(session)
