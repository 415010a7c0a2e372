"""What is particular to PostgreSQL: its URL, its types, privileges, locks, the index, and a server that goes away."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import psycopg
import pyarrow as pa
import pytest
import sqlalchemy as sa

from airflow_provider_ai.adapters.sinks import postgresql_warehouse
from airflow_provider_ai.adapters.sinks.postgresql_warehouse import PostgresqlSession, libpq_uri
from airflow_provider_ai.exceptions import SinkError, SinkUnavailableError
from tests.adapters.sinks.warehouses import SCOPE, TABLE, TestWarehouse, publish, rows, unit
from tests.faults.support.restartable import RestartablePostgres, restartable_postgres
from tests.support import processes

WITH_A_ROW_BYTES = 12 * 1024  # an empty table takes one page of 8 KiB, a table with a row two
DEFAULTS = "connect_timeout=10&application_name=airflow-ai"


@pytest.fixture
def warehouse(postgres_url: str) -> TestWarehouse:
    return TestWarehouse(url=postgres_url)


# --- the URL


@pytest.mark.parametrize(
    ("url", "uri"),
    [
        ("postgresql://h/db", f"postgresql://h/db?{DEFAULTS}"),
        ("postgresql+psycopg2://u:p@h:5433/db", f"postgresql://u:p@h:5433/db?{DEFAULTS}"),
        # every reserved character of a password, a user and a database name
        ("postgresql://us%40er:p%40%2F%3A%3F%23%25@h/d%20b", f"postgresql://us%40er:p%40%2F%3A%3F%23%25@h/d%20b?{DEFAULTS}"),
        ("postgresql://u@[::1]:5432/db", f"postgresql://u@[::1]:5432/db?{DEFAULTS}"),
        (
            "postgresql://h/db?sslmode=verify-full&sslrootcert=/etc/ca%20s.pem&connect_timeout=3",
            "postgresql://h/db?sslmode=verify-full&sslrootcert=%2Fetc%2Fca%20s.pem&connect_timeout=3&application_name=airflow-ai",
        ),
        ("postgresql+asyncpg://h/db?ssl=require", f"postgresql://h/db?sslmode=require&{DEFAULTS}"),
        ("postgresql:///db?host=/var/run/pg", f"postgresql:///db?host=%2Fvar%2Frun%2Fpg&port=5432&{DEFAULTS}"),
        ("postgresql://u@/db?host=a:1&host=b:2", f"postgresql://u@/db?host=a%2Cb&port=1%2C2&{DEFAULTS}"),
        ("postgresql://u@/db?host=a,b&port=1,2", f"postgresql://u@/db?host=a%2Cb&port=1%2C2&{DEFAULTS}"),
        ("postgresql://u@/db?host=a,b&port=6432", f"postgresql://u@/db?host=a%2Cb&port=6432%2C6432&{DEFAULTS}"),
    ],
)  # fmt: skip
def test_urls_become_libpqs(url: str, uri: str) -> None:
    """Drivers go, credentials and TLS settings stay."""
    given, wanted = (sa.make_url(text) for text in (libpq_uri(sa.make_url(url)), uri))
    assert given == wanted
    assert given.render_as_string(hide_password=False).startswith("postgresql://")


@pytest.mark.parametrize(
    "url", ["postgresql://u:hunter2@127.0.0.1:1/x", "postgresql+psycopg2://u:hunter2@127.0.0.1:1/x"]
)
def test_a_server_that_is_not_there_is_unavailable_and_keeps_the_password_to_itself(url: str) -> None:
    with pytest.raises(SinkUnavailableError, match=r"127\.0\.0\.1:1: connection refused; a retry") as caught:
        publish(TestWarehouse(url=url).sink(), rows([1], "v/p/0"))
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"database": "nosuchdb"}, "does not exist"),
        ({"username": "nosuchuser"}, "does not exist"),
        ({"query": {"nosuchargument": "hunter2"}}, "an argument that libpq does not know"),
        ({"query": {"sslmode": "require"}}, "TLS"),
    ],
)
def test_urls_that_cannot_work_are_refused_for_good(warehouse: TestWarehouse, change: dict[str, Any], why: str) -> None:
    wrong = warehouse.with_url(lambda url: url.set(password="hunter2", **change))
    with pytest.raises(SinkError, match=why) as caught:
        publish(wrong.sink(), rows([1], "v/p/0"))
    assert not isinstance(caught.value, SinkUnavailableError)
    assert "hunter2" not in str(caught.value)


# --- types


def test_new_columns_have_postgresqls_own_types(warehouse: TestWarehouse) -> None:
    columns = {
        "vector": pa.array([[0.5]], pa.list_(pa.float32(), 1)),
        "logits": pa.array([[0.5]], pa.list_(pa.float64())),
        "words": pa.array([["a"]]),
        "record": pa.array([{"a": 1}]),
        "big": pa.array([2**64 - 1], pa.uint64()),
        "amount": pa.array([1], pa.decimal128(12, 2)),
    }
    publish(warehouse.sink(), rows([1], "v/p/0", **columns))
    types = warehouse.read(
        "SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute "
        f"WHERE attrelid = '{TABLE}'::regclass AND attnum > 0"
    )
    assert (
        dict(types).items()
        >= {
            "vector": "real[]",
            "logits": "double precision[]",
            "words": "jsonb",
            "record": "jsonb",
            "big": "numeric(20,0)",
            "amount": "numeric(12,2)",
            "_inferred_at": "timestamp with time zone",
            "_partition": "text",
        }.items()
    )
    assert warehouse.read(f"SELECT words ->> 0, record -> 'a', big::text FROM {TABLE}") == [("a", 1, str(2**64 - 1))]


def test_columns_of_the_users_own_are_filled(warehouse: TestWarehouse) -> None:
    warehouse.execute("CREATE TYPE level AS ENUM ('low', 'high'); CREATE DOMAIN percent AS integer CHECK (VALUE < 101)")
    warehouse.execute(
        f"CREATE TABLE {TABLE} (visit_id smallint, score numeric, fixed numeric(10,2), share percent, level level, "
        "answer jsonb, raw json, ref uuid, label varchar(4), tags text[], counts integer[], at timestamp, "
        "_partition text, _record_key text)"
    )
    ref = "8f14e45f-ceea-467f-ab9a-0a1b2c3d4e5f"
    moment = pa.array([1_700_000_000_000_000], pa.timestamp("us", "UTC"))
    columns = {
        "score": pa.array([7]),
        "fixed": pa.array([3]),
        "share": pa.array([99]),
        "level": pa.array(["low"]),
        "answer": pa.array(['{"a": "x\\u0000"}']),
        "raw": pa.array([{"b": [1]}]),
        "ref": pa.array([ref]),
        "label": pa.array(["ab"]),
        "tags": pa.array([["x", None]]),
        "counts": pa.array([[1, 2]]),
        "at": moment,
    }
    publish(warehouse.sink(), rows([1], "v/p/0", **columns))
    query = (
        "SELECT visit_id, score::text, fixed::text, share, level::text, answer ->> 'a', raw::text, ref::text, label, "
        f"tags, counts, at = timestamp '2023-11-14 22:13:20' FROM {TABLE}"
    )
    assert warehouse.read(query) == [
        (1, "7", "3.00", 99, "low", "x\N{REPLACEMENT CHARACTER}", '{"b":[1]}', ref, "ab", ["x", None], [1, 2], True)
    ]


@pytest.mark.parametrize(
    ("column", "value", "why"),
    [
        ("visit_id", pa.array([71875]), "'visit_id'.*smallint"),               # does not fit, found by us
        ("answer", pa.array(["canary {"]), "'answer'.*jsonb"),                 # no JSON
        ("ref", pa.array(["canary"]), "'ref'.*uuid"),                          # no UUID
        ("spot", pa.array(["canary"]), "'spot'.*point"),                       # a type that is not filled
        ("label", pa.array(["canary"]), "longer than its column"),             # found by the server
        ("level", pa.array(["canary"]), "does not fit"),
        ("checked", pa.array([71875]), "constraint.*'scores_checked_check'"),
        ("needed", pa.nulls(1, pa.int64()), "must not be null.*'needed'"),
        ("moment", pa.array([71875], pa.timestamp("ns")), "'moment'"),         # nanoseconds
    ],
)  # fmt: skip
def test_what_postgresql_refuses_is_named_without_values(
    warehouse: TestWarehouse, column: str, value: pa.Array, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    warehouse.execute("CREATE TYPE level AS ENUM ('low', 'high')")
    warehouse.execute(
        f"CREATE TABLE {TABLE} (visit_id smallint, answer jsonb, ref uuid, spot point, label varchar(4), level level, "
        "checked bigint CHECK (checked < 10), needed bigint NOT NULL, moment timestamp, "
        "_partition text, _record_key text)"
    )
    table = rows([1], "v/p/0", needed=pa.array([1]), **({} if column in ("visit_id", "needed") else {column: value}))
    if column in ("visit_id", "needed"):
        table = table.set_column(table.schema.get_field_index(column), column, value)
    with pytest.raises(SinkError, match=why) as caught:
        publish(warehouse.sink(), table)
    assert not isinstance(caught.value, SinkUnavailableError)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    for secret in ("canary", "71875"):
        assert secret not in f"{caught.value} {caplog.text}"
    assert warehouse.ids() == []


def test_a_character_postgresql_cannot_store_does_not_hold_up_the_partition(
    warehouse: TestWarehouse, caplog: pytest.LogCaptureFixture
) -> None:
    """U+0000 in text, in JSON and in arrays becomes U+FFFD, and the log says in which column."""
    columns = {"answer": pa.array(["a\0b", None]), "record": pa.array([{"k\0": ["\0", "1"]}, None])}
    publish(warehouse.sink(), rows([1, 2], "v/p/0", **columns))
    found = warehouse.read(f"SELECT answer, record FROM {TABLE} ORDER BY visit_id")
    assert found == [("a\ufffdb", {"k\ufffd": ["\ufffd", "1"]}), (None, None)]
    assert "'answer'" in caplog.text


def test_arrays_keep_what_json_cannot(warehouse: TestWarehouse) -> None:
    publish(warehouse.sink(), rows([1], "v/p/0", logits=pa.array([[float("nan"), float("-inf"), None]])))
    [(logits,)] = warehouse.read(f"SELECT logits::text FROM {TABLE}")
    assert logits == "{NaN,-Infinity,NULL}"


def test_names_longer_than_postgresqls_are_refused(warehouse: TestWarehouse) -> None:
    """It would cut them, and look for the cut name in vain the next time."""
    with pytest.raises(SinkError, match="1 to 63 bytes"):
        publish(warehouse.sink("t" * 64), rows([1], "v/p/0"))
    with pytest.raises(SinkError, match="1 to 63 bytes"):
        publish(warehouse.sink(), rows([1], "v/p/0", **{"ä" * 32: pa.array([1])}))


# --- one transaction


def test_rows_and_marker_commit_in_one_transaction(warehouse: TestWarehouse, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody sees either before our COMMIT, and PostgreSQL says that the same transaction wrote both."""
    publish(warehouse.sink(), rows([1], "v/p/0"))
    counts = f"SELECT (SELECT count(*) FROM {TABLE}), (SELECT count(*) FROM _ai_publications)"
    seen: list[tuple[int, int]] = []
    real_commit = PostgresqlSession.commit

    def watched_commit(session: PostgresqlSession) -> None:
        seen.extend(warehouse.read(counts))
        real_commit(session)

    monkeypatch.setattr(PostgresqlSession, "commit", watched_commit)
    publish(warehouse.sink(), rows(range(10, 300), "v/p/1"))
    assert set(seen) == {(1, 1)}
    assert warehouse.read(counts) == [(291, 2)]
    [(marker,)] = warehouse.read("SELECT xmin::text FROM _ai_publications WHERE partition = 'v/p/1'")
    assert warehouse.read(f"SELECT DISTINCT xmin::text FROM {TABLE} WHERE _partition = 'v/p/1'") == [(marker,)]


# --- schemas and privileges


def test_a_schema_is_used_and_must_exist(warehouse: TestWarehouse) -> None:
    with pytest.raises(SinkError, match="the schema does not exist"):
        publish(warehouse.sink(schema="Mart"), rows([1], "v/p/0"))
    warehouse.execute('CREATE SCHEMA "Mart"')
    assert publish(warehouse.sink(schema="Mart"), rows([1], "v/p/0")) == 1
    assert warehouse.read(f'SELECT m."rows", t.visit_id FROM "Mart"._ai_publications m, "Mart".{TABLE} t') == [(1, 1)]
    assert warehouse.sink(schema="Mart").publications(SCOPE)["v/p/0"].rows_present == 1
    assert warehouse.read("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == [(0,)]


def test_the_search_path_decides_where_no_schema_is_named(warehouse: TestWarehouse) -> None:
    warehouse.execute("CREATE SCHEMA mart")
    given = warehouse.with_url(lambda url: url.set(query={"options": "-csearch_path=mart"}))
    publish(given.sink(), rows([1], "v/p/0"))
    assert warehouse.read(f"SELECT visit_id FROM mart.{TABLE}") == [(1,)]
    nowhere = warehouse.with_url(lambda url: url.set(query={"options": "-csearch_path=nosuch"}))
    with pytest.raises(SinkError, match="search_path"):
        publish(nowhere.sink(), rows([1], "v/p/0"))


def test_a_writer_needs_no_more_than_to_write(
    warehouse: TestWarehouse, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Least privilege: with both tables there, SELECT, INSERT and DELETE (and TEMPORARY for a new plan) are enough."""
    monkeypatch.setattr(postgresql_warehouse, "INDEX_FROM_BYTES", WITH_A_ROW_BYTES)
    publish(warehouse.sink(), rows([1], "v/p/0"))
    role = f"writer_{os.getpid()}"
    warehouse.execute(f"CREATE ROLE {role} LOGIN; REVOKE CREATE ON SCHEMA public FROM PUBLIC")
    try:
        warehouse.execute(f"GRANT SELECT, INSERT, DELETE ON {TABLE}, _ai_publications TO {role}")
        writer = warehouse.with_url(lambda url: url.set(username=role))
        publish(writer.sink(), rows([1, 2], "v/p/0"), content="c2")
        publish(writer.sink(), rows([2, 3], "v/new/0"), plan="new")
        assert writer.sink().prune(SCOPE, plan="new") == 1
        assert warehouse.ids() == [2, 3]
        assert "not ours to index" in caplog.text
        with pytest.raises(SinkError, match="lacks a privilege"):
            publish(writer.sink(), rows([4], "v/new/1", label=pa.array(["x"])), plan="new")
    finally:
        warehouse.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


# --- the index


def test_a_table_is_indexed_once_it_is_worth_it(warehouse: TestWarehouse, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not while it is small, once when it has grown, and not again when it is renamed or somebody else has done it."""
    indexes = f"SELECT indexdef FROM pg_indexes WHERE tablename = '{TABLE}'"
    publish(warehouse.sink(), rows([1], "v/p/0"))
    assert warehouse.read(indexes) == []
    monkeypatch.setattr(postgresql_warehouse, "INDEX_FROM_BYTES", WITH_A_ROW_BYTES)
    publish(warehouse.sink(), rows([2], "v/p/1"))
    publish(warehouse.sink(), rows([3], "v/p/2"))
    [(definition,)] = warehouse.read(indexes)
    assert definition.endswith("USING brin (_partition)")
    warehouse.execute(f"ALTER TABLE {TABLE} RENAME TO archived")
    publish(warehouse.sink(), rows([4], "v/p/3"))
    publish(warehouse.sink(), rows([5], "v/p/4"))
    assert len(warehouse.read(indexes)) == 1
    warehouse.execute(f"DROP TABLE {TABLE}")
    publish(warehouse.sink(), rows([1], "v/p/0"))
    warehouse.execute(f"CREATE INDEX by_hand ON {TABLE} (_partition, _record_key)")
    publish(warehouse.sink(), rows([2], "v/p/1"))
    assert len(warehouse.read(indexes)) == 1


def test_the_index_knows_what_was_just_loaded(warehouse: TestWarehouse, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of other partitions are not read when one is replaced, without waiting for a vacuum."""
    publish(warehouse.sink(), rows(range(20_000), "v/p/0"))
    monkeypatch.setattr(postgresql_warehouse, "INDEX_FROM_BYTES", WITH_A_ROW_BYTES)
    for number in range(1, 4):
        publish(warehouse.sink(), rows(range(20_000 * number, 20_000 * (number + 1)), f"v/p/{number}"))
    with psycopg.connect(warehouse.url) as reader:
        reader.execute("SET enable_seqscan = off")
        query = f"EXPLAIN (ANALYZE, FORMAT JSON) SELECT * FROM {TABLE} WHERE _partition = 'v/p/2'"
        [(plan,)] = reader.execute(query).fetchall()
    scan = plan[0]["Plan"]
    assert (scan["Actual Rows"], scan["Node Type"]) == (20_000, "Bitmap Heap Scan")
    assert scan["Rows Removed by Index Recheck"] < 40_000


def test_a_publish_uses_the_index(warehouse: TestWarehouse, monkeypatch: pytest.MonkeyPatch) -> None:
    """Although the planner knows nothing of the table yet: it would read all of it for every partition."""
    monkeypatch.setattr(postgresql_warehouse, "INDEX_FROM_BYTES", WITH_A_ROW_BYTES)
    sink = warehouse.sink()
    for number in range(3):
        publish(sink, rows(range(20_000 * number, 20_000 * (number + 1)), f"v/p/{number}"))
    scans = "SELECT coalesce(sum(idx_scan), 0)::int FROM pg_stat_user_indexes WHERE relname = 'scores'"
    sink.close()  # a backend that ends reports what it has done
    [(before,)] = warehouse.read(scans)
    publish(sink, rows(range(60_000, 80_000), "v/p/3"))
    sink.close()
    processes.wait_until(lambda: warehouse.read(scans)[0][0] > before, deadline_seconds=10, what="a scan of the index")


def test_upkeep_that_has_to_wait_is_left_out(warehouse: TestWarehouse, monkeypatch: pytest.MonkeyPatch) -> None:
    """A vacuum holds the lock that bringing the index up to date needs: the publish has succeeded all the same."""
    monkeypatch.setattr(postgresql_warehouse, "INDEX_FROM_BYTES", WITH_A_ROW_BYTES)
    monkeypatch.setattr(postgresql_warehouse, "_UPKEEP_WAIT", "50ms")
    publish(warehouse.sink(), rows([1], "v/p/0"))
    publish(warehouse.sink(), rows([2], "v/p/1"))
    with psycopg.connect(warehouse.url) as vacuum:
        vacuum.execute(f"LOCK TABLE {TABLE} IN SHARE UPDATE EXCLUSIVE MODE")
        assert publish(warehouse.sink(), rows([3], "v/p/2")) == 1
    assert warehouse.ids() == [1, 2, 3]


# --- locks


def test_a_lock_that_is_not_given_within_the_wait_is_unavailable(warehouse: TestWarehouse) -> None:
    publish(warehouse.sink(), rows([1], "v/p/0"))
    with psycopg.connect(warehouse.url) as other:
        other.execute(f"LOCK TABLE {TABLE} IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(SinkUnavailableError, match="holds a lock"):
            publish(warehouse.sink(lock_wait_seconds=0.1), rows([2], "v/p/1"))
    assert publish(warehouse.sink(), rows([2], "v/p/1")) == 1


def test_publishers_of_different_partitions_load_at_the_same_time(warehouse: TestWarehouse) -> None:
    """One publishes while the other is in the middle of it; of one partition, the second has to wait."""
    publish(warehouse.sink(), rows([1], "v/p/0"))
    table = rows([2, 3], "v/p/1")

    def while_another_publishes() -> Iterator[pa.RecordBatch]:
        assert publish(warehouse.sink(lock_wait_seconds=5.0), rows([4], "v/p/2")) == 1
        with pytest.raises(SinkUnavailableError, match="holds a lock"):
            publish(warehouse.sink(lock_wait_seconds=0.1), rows([5], "v/p/1"))
        with pytest.raises(SinkUnavailableError, match="holds a lock"):
            warehouse.sink(lock_wait_seconds=0.1).prune(SCOPE, plan="other")
        yield from table.to_batches()

    warehouse.sink().publish(unit("v/p/1", 2), table.schema, while_another_publishes())
    assert warehouse.ids() == [1, 2, 3, 4]


def test_a_terminated_session_is_unavailable_and_the_next_one_works(warehouse: TestWarehouse) -> None:
    publish(warehouse.sink(), rows([1], "v/p/0"))
    table = rows(range(10, 30), "v/p/0")

    def terminated() -> Iterator[pa.RecordBatch]:
        first, *others = table.to_batches(max_chunksize=5)
        yield first
        warehouse.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'airflow-ai'"
        )
        yield from others

    sink = warehouse.sink()
    with pytest.raises(SinkUnavailableError):
        sink.publish(unit("v/p/0", 20, content="c2"), table.schema, terminated())
    assert warehouse.ids() == [1]
    assert publish(sink, table, content="c2") == 20


def test_a_read_only_server_is_refused(warehouse: TestWarehouse) -> None:
    standby = warehouse.with_url(lambda url: url.set(query={"options": "-cdefault_transaction_read_only=on"}))
    publish(warehouse.sink(), rows([1], "v/p/0"))
    assert standby.sink().publications(SCOPE)["v/p/0"].rows_present == 1


# --- a server that stops and starts


@pytest.mark.real
def test_a_server_that_stops_is_unavailable_and_nothing_is_lost_when_it_is_back() -> None:
    """Stopped before a publish, in the middle of one, and killed in the middle of one."""
    with restartable_postgres() as server:
        warehouse = TestWarehouse(url=server.server.url(server.server.create_database()))
        sink = warehouse.sink()
        publish(sink, rows([1, 2], "v/p/0"))
        server.stop()
        for operation in (
            lambda: publish(sink, rows([3], "v/p/1")),
            lambda: sink.publications(SCOPE),
            lambda: sink.prune(SCOPE, plan="p1"),
        ):
            with pytest.raises(SinkUnavailableError, match=r"connection (refused|broke)"):
                operation()
        for content, end in (("c2", RestartablePostgres.stop), ("c3", RestartablePostgres.kill)):
            server.start()
            assert sink.publications(SCOPE)["v/p/0"].rows_present == 2
            table = rows(range(10, 30), "v/p/0")
            with pytest.raises(SinkUnavailableError):
                sink.publish(unit("v/p/0", 20, content=content), table.schema, _ended(table, partial(end, server)))
        server.start()
        assert warehouse.ids() == [1, 2]
        assert publish(sink, rows([3], "v/p/0"), content="c4") == 1
        assert warehouse.ids() == [3]


def _ended(table: pa.Table, end: Callable[[], None]) -> Iterator[pa.RecordBatch]:
    first, *others = table.to_batches(max_chunksize=5)
    yield first
    end()
    yield from others
