"""The warehouse under the grants of its roles: a batch publishes into its own table, a reader counts, and no more."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import uuid4

import psycopg
import pytest

from airflow_provider_ai.adapters.sinks import open_sink
from airflow_provider_ai.core.config import SinkSettings
from airflow_provider_ai.core.policies.roles import Role
from airflow_provider_ai.core.policies.sql import warehouse_script
from airflow_provider_ai.exceptions import SinkError
from tests.adapters.sinks.warehouses import SCOPE, publish, rows
from tests.support.postgres import PostgresServer

TABLE, OTHER = "predictions", "other_team"


@pytest.fixture
def database(postgres_server: PostgresServer) -> Iterator[str]:
    """The URL of a warehouse, as its owner, with two tables that have each a partition."""
    name = postgres_server.create_database()
    url = postgres_server.url(name)
    for table in (TABLE, OTHER):
        publish(open_sink(SinkSettings(url=url, table=table)), rows(range(10), "first"))
    yield url
    postgres_server.drop_database(name)


def login(database: str, role: Role) -> str:
    name = f"ai_{role.value}_{uuid4().hex[:8]}"
    with psycopg.connect(database, autocommit=True) as owner:
        for _ in range(2):  # it may be run again
            owner.execute(warehouse_script(role, schema="public", table=TABLE, name=name))
        owner.execute(f'CREATE ROLE "{name}_login" LOGIN IN ROLE "{name}"')
    return database.replace("//postgres@", f"//{name}_login@")


def refused(url: str, text: str) -> bool:
    with psycopg.connect(url, autocommit=True) as connection:
        try:
            connection.execute(text)
        except psycopg.errors.InsufficientPrivilege:
            return True
    return False


def test_a_batch_publishes_supersedes_and_prunes(database: str) -> None:
    """Another partition, the same one anew, and one of another plan, which goes through a temporary table."""
    sink = open_sink(SinkSettings(url=login(database, Role.BATCH), table=TABLE))
    assert publish(sink, rows(range(10, 20), "second")) == 10
    assert publish(sink, rows(range(10, 20), "second"), content="c2") == 10
    assert publish(sink, rows(range(5), "third"), plan="p2") == 5
    assert set(sink.publications(SCOPE)) == {"first", "second", "third"}
    assert sink.prune(SCOPE, plan="p2") == 15
    sink.close()


def test_a_batch_is_refused_everything_else(database: str) -> None:
    """Other tables, other tables' markers, new tables and changes of its own."""
    url = login(database, Role.BATCH)
    with pytest.raises(SinkError):
        publish(open_sink(SinkSettings(url=url, table=OTHER)), rows(range(3), "mine"))
    with psycopg.connect(url, autocommit=True) as connection:
        seen = connection.execute("SELECT DISTINCT target_table FROM _ai_publications").fetchall()
        assert seen == [(TABLE,)]
        assert connection.execute("DELETE FROM _ai_publications WHERE target_table = %s", [OTHER]).rowcount == 0
    for text in (
        f"SELECT * FROM {OTHER}",
        f"DELETE FROM {OTHER}",
        f"TRUNCATE {TABLE}",
        f"UPDATE {TABLE} SET _model = 'another'",
        f"ALTER TABLE {TABLE} ADD COLUMN x int",
        "CREATE TABLE public.mine (n int)",
        f"INSERT INTO _ai_publications VALUES ('{OTHER}', 's', 'p', 'p', 'c', 1, 'r', now())",
    ):
        assert refused(url, text), text


def test_a_reader_counts_and_sees_no_row(database: str) -> None:
    """Publications; of the target table only which partition a row is of."""
    url = login(database, Role.READER)
    sink = open_sink(SinkSettings(url=url, table=TABLE))
    found = sink.publications(SCOPE)
    sink.close()
    assert {name: each.rows_present for name, each in found.items()} == {"first": 10}
    for text in (f"SELECT * FROM {TABLE}", f"SELECT _record_key FROM {TABLE}", f"DELETE FROM {TABLE}"):
        assert refused(url, text), text
