"""One contract for every warehouse: all or nothing, one copy, no record twice, no value in an error."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest
import sqlalchemy as sa

from airflow_provider_ai.adapters.sinks import open_sink
from airflow_provider_ai.adapters.sinks.sqlalchemy_warehouse import SqlalchemyWarehouse
from airflow_provider_ai.adapters.sinks.table_sink import TableSink
from airflow_provider_ai.core.config import SinkSettings
from airflow_provider_ai.core.ports import PublishUnit, Sink
from airflow_provider_ai.exceptions import SinkError, SinkUnavailableError
from airflow_provider_ai.patterns.lineage import TIMESTAMP

SCOPE = "visits-1"
LINEAGE = ("_run_id", "_partition", "_model", "_prompt_hash", "_schema_version", "_source_file")
KINDS = ("duckdb", "sqlite", pytest.param("postgresql", marks=pytest.mark.real), "generic-sqlite")
KINDS += (pytest.param("generic-postgresql", marks=pytest.mark.real),)


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def url(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> str:
    if kind.endswith("postgresql"):
        plain = str(request.getfixturevalue("postgres_url"))
        return plain.replace("postgresql:", "postgresql+psycopg:") if kind.startswith("generic") else plain
    return f"{kind.removeprefix('generic-')}:///{tmp_path}/warehouse.{kind}"


@pytest.fixture
def connect(kind: str, url: str) -> Callable[..., Sink]:
    def make(table: str = "scores", **options: float) -> Sink:
        return make_sink(kind, url, table, **options)

    return make


@pytest.fixture
def sink(connect: Callable[..., Sink]) -> Iterator[Sink]:
    made = connect()
    yield made
    made.close()


def make_sink(kind: str, url: str, table: str, **options: float) -> Sink:
    settings = SinkSettings(url=url, table=table)
    if kind.startswith("generic"):
        return TableSink(settings, SqlalchemyWarehouse(sa.make_url(url)))
    return open_sink(settings, **options)


def rows(ids: list[int], partition: str, *, score: str = "double", extra: dict | None = None) -> pa.Table:
    columns = {
        "visit_id": pa.array(ids, pa.int64()),
        "score": pa.array([float(i) for i in ids]).cast(score),
        **{name: pa.array([partition if name == "_partition" else name] * len(ids), pa.string()) for name in LINEAGE},
        "_source_row": pa.array(ids, pa.int64()),
        "_record_key": pa.array([f"key-{i}" for i in ids], pa.string()),
        "_inferred_at": pa.array([datetime(2026, 1, 1, tzinfo=UTC)] * len(ids), TIMESTAMP),
        **(extra or {}),
    }
    return pa.table(columns)


def unit(partition: str, count: int, *, content: str = "c1", plan: str = "p1") -> PublishUnit:
    return PublishUnit(scope=SCOPE, partition=partition, plan=plan, content=content, rows=count, run_id="r")


def publish(sink: Sink, table: pa.Table, partition: str, **names: str) -> int:
    return sink.publish(unit(partition, len(table), **names), table.schema, table.to_batches(max_chunksize=100))


def read(kind: str, url: str, query: str = "SELECT visit_id FROM scores ORDER BY visit_id") -> list[tuple]:
    if kind == "duckdb":
        import duckdb

        with duckdb.connect(url.removeprefix("duckdb:///"), read_only=True) as connection:
            return connection.execute(query).fetchall()
    engine = sa.create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    try:
        with engine.connect() as connection:
            return [tuple(row) for row in connection.execute(sa.text(query))]
    finally:
        engine.dispose()


def ids_in(kind: str, url: str) -> list[int]:
    return [row[0] for row in read(kind, url)]


def test_publishing_twice_leaves_one_copy_and_writes_once(sink: Sink, kind: str, url: str) -> None:
    table = rows(list(range(250)), "a/0")
    assert publish(sink, table, "a/0") == 250
    assert publish(sink, table, "a/0") == 0
    assert ids_in(kind, url) == list(range(250))


def test_new_content_replaces_the_partition_and_no_other(sink: Sink, kind: str, url: str) -> None:
    publish(sink, rows([1, 2, 3], "a/0"), "a/0")
    publish(sink, rows([4], "a/1"), "a/1")
    publish(sink, rows([2, 9], "a/0"), "a/0", content="c2")
    assert ids_in(kind, url) == [2, 4, 9]


def test_a_source_that_breaks_midway_leaves_the_old_rows(sink: Sink, kind: str, url: str) -> None:
    publish(sink, rows([1, 2], "a/0"), "a/0")
    table = rows([7, 8, 9], "a/0")

    def broken() -> Iterator[pa.RecordBatch]:
        yield table.to_batches(max_chunksize=1)[0]
        raise RuntimeError("the checkpoint could not be read")

    with pytest.raises(RuntimeError, match="checkpoint"):
        sink.publish(unit("a/0", 3, content="c2"), table.schema, broken())
    assert ids_in(kind, url) == [1, 2]
    assert sink.publications(SCOPE)["a/0"].content == "c1"


def test_too_few_rows_are_refused_and_nothing_changes(sink: Sink, kind: str, url: str) -> None:
    publish(sink, rows([1], "a/0"), "a/0")
    table = rows([2], "a/0")
    with pytest.raises(SinkError, match="announced"):
        sink.publish(unit("a/0", 2, content="c2"), table.schema, table.to_batches())
    assert ids_in(kind, url) == [1]


def test_a_new_plan_takes_over_record_by_record(sink: Sink, kind: str, url: str) -> None:
    publish(sink, rows([1, 2], "a/p1/0"), "a/p1/0")
    publish(sink, rows([3, 4], "a/p1/1"), "a/p1/1")
    publish(sink, rows([1, 2, 3], "a/p2/0"), "a/p2/0", plan="p2")
    assert ids_in(kind, url) == [1, 2, 3, 4], "every record once while the plans change over"
    assert sink.prune(SCOPE, plan="p2") == 1
    assert ids_in(kind, url) == [1, 2, 3]
    assert set(sink.publications(SCOPE)) == {"a/p2/0"}


def test_rows_the_user_deleted_are_noticed_and_written_again(sink: Sink, kind: str, url: str) -> None:
    table = rows([1, 2], "a/0")
    publish(sink, table, "a/0")
    _execute(kind, url, "DELETE FROM scores WHERE visit_id = 2")
    assert sink.publications(SCOPE)["a/0"].rows_present == 1
    assert publish(sink, table, "a/0") == 2
    assert ids_in(kind, url) == [1, 2]


def test_an_empty_partition_publishes_a_marker_and_removes_old_rows(sink: Sink, kind: str, url: str) -> None:
    publish(sink, rows([1], "a/0"), "a/0")
    empty = rows([], "a/0")
    publish(sink, empty, "a/0", content="c2")
    assert ids_in(kind, url) == []
    assert sink.publications(SCOPE)["a/0"].rows == 0


def test_new_output_columns_are_added(sink: Sink, kind: str, url: str) -> None:
    publish(sink, rows([1], "a/0"), "a/0")
    publish(sink, rows([2], "a/1", extra={"label": pa.array(["x"])}), "a/1")
    found = read(kind, url, "SELECT visit_id, label FROM scores ORDER BY visit_id")
    assert [tuple(row) for row in found] == [(1, None), (2, "x")]


def test_integers_go_into_a_double_column_and_text_does_not_show_in_the_refusal(
    sink: Sink, kind: str, url: str
) -> None:
    publish(sink, rows([1], "a/0"), "a/0")
    publish(sink, rows([2], "a/1", score="int64"), "a/1")
    canary = rows([3], "a/2").set_column(1, "score", pa.array(["canary-value"]))
    with pytest.raises(SinkError, match="score") as caught:
        publish(sink, canary, "a/2")
    assert "canary" not in str(caught.value)
    assert ids_in(kind, url) == [1, 2]


def test_hostile_names_are_only_names(connect: Callable[..., Sink], kind: str, url: str) -> None:
    for table in ('x"; DROP TABLE scores; --', "select", "Mixed Case"):
        hostile = connect(table)
        data = rows([1], "a/0", extra={'we"ird; name': pa.array([5], pa.int64())})
        assert publish(hostile, data, "a/0") == 1
        assert hostile.publications(SCOPE)["a/0"].rows_present == 1
        hostile.close()


def test_lists_and_nulls_survive(sink: Sink, kind: str, url: str) -> None:
    vectors = pa.array([[0.5, 1.0], None], pa.list_(pa.float64()))
    publish(sink, rows([1, 2], "a/0", extra={"embedding": vectors}), "a/0")
    found = read(kind, url, "SELECT embedding FROM scores ORDER BY visit_id")
    assert found[1][0] is None
    assert found[0][0] in ([0.5, 1.0], "[0.5,1.0]")


def test_publishers_at_once_leave_one_copy(kind: str, url: str) -> None:
    contend(kind, url, ["a/0"] * 4)
    assert ids_in(kind, url) == list(range(300))


def test_publishers_of_different_partitions_all_arrive(kind: str, url: str) -> None:
    contend(kind, url, ["a/0", "a/1", "a/2"])
    assert len(ids_in(kind, url)) == 900


def test_a_killed_publisher_leaves_all_or_nothing(kind: str, url: str) -> None:
    publish_in_child(kind, url, "a/0", die_after_batches=2)
    again = make_sink(kind, url, "scores")
    assert publish(again, rows(list(range(300)), "a/0"), "a/0") == 300
    assert again.publications(SCOPE)["a/0"].rows_present == 300
    again.close()
    assert ids_in(kind, url) == list(range(300))


def test_a_table_of_somebody_else_is_refused_with_advice(sink: Sink, kind: str, url: str) -> None:
    _execute(kind, url, "CREATE TABLE scores (visit_id BIGINT)")
    with pytest.raises(SinkError, match="not made by this package"):
        publish(sink, rows([1], "a/0"), "a/0")


@pytest.mark.parametrize(
    "dead", ["postgresql://u:hunter2@127.0.0.1:1/x", "postgresql+psycopg2://u:hunter2@127.0.0.1:1/x"]
)
def test_a_database_that_is_down_is_unavailable_and_keeps_the_password_to_itself(dead: str) -> None:
    sink = open_sink(SinkSettings(url=dead, table="scores"))
    with pytest.raises(SinkUnavailableError) as caught:
        publish(sink, rows([1], "a/0"), "a/0")
    assert "hunter2" not in str(caught.value)


def test_a_locked_duckdb_file_is_waited_for_and_then_unavailable(tmp_path: Path) -> None:
    url = f"duckdb:///{tmp_path}/w.duckdb"
    ready, release = multiprocessing.get_context("spawn").Event(), multiprocessing.get_context("spawn").Event()
    holder = multiprocessing.get_context("spawn").Process(target=_hold_duckdb, args=(url, ready, release))
    holder.start()
    try:
        assert ready.wait(30)
        with pytest.raises(SinkUnavailableError):
            publish(make_sink("duckdb", url, "scores", lock_wait_seconds=0.2), rows([1], "a/0"), "a/0")
    finally:
        release.set()
        holder.join(30)
    assert publish(make_sink("duckdb", url, "scores"), rows([1], "a/0"), "a/0") == 1


@pytest.mark.parametrize("url", ["duckdb:///:memory:", "sqlite://", "nosuchdialect://x/y"])
def test_urls_that_cannot_keep_rows_are_refused(url: str) -> None:
    with pytest.raises(SinkError):
        open_sink(SinkSettings(url=url, table="scores"))


# --- other processes


def contend(kind: str, url: str, partitions: list[str]) -> None:
    spawn = multiprocessing.get_context("spawn")
    barrier = spawn.Barrier(len(partitions))
    workers = [spawn.Process(target=_publish_at_once, args=(kind, url, name, barrier)) for name in partitions]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
    assert [worker.exitcode for worker in workers] == [0] * len(partitions)


def publish_in_child(kind: str, url: str, partition: str, *, die_after_batches: int) -> None:
    spawn = multiprocessing.get_context("spawn")
    child = spawn.Process(target=_publish_and_die, args=(kind, url, partition, die_after_batches))
    child.start()
    child.join(60)
    assert child.exitcode == -signal.SIGKILL


def _publish_at_once(kind: str, url: str, partition: str, barrier: object) -> None:
    sink = make_sink(kind, url, "scores")
    table = rows(list(range(300)), partition)
    barrier.wait(60)  # type: ignore[attr-defined]
    for attempt in range(20):
        try:
            publish(sink, table, partition)
            return
        except SinkUnavailableError:
            if attempt == 19:
                raise


def _publish_and_die(kind: str, url: str, partition: str, batches: int) -> None:
    table = rows(list(range(300)), partition)

    def fatal() -> Iterator[pa.RecordBatch]:
        for number, batch in enumerate(table.to_batches(max_chunksize=100)):
            if number == batches:
                os.kill(os.getpid(), signal.SIGKILL)
            yield batch

    make_sink(kind, url, "scores").publish(unit(partition, 300), table.schema, fatal())


def _hold_duckdb(url: str, ready: object, release: object) -> None:
    import duckdb

    with duckdb.connect(url.removeprefix("duckdb:///")):
        ready.set()  # type: ignore[attr-defined]
        release.wait(60)  # type: ignore[attr-defined]


def _execute(kind: str, url: str, statement: str) -> None:
    if kind == "duckdb":
        import duckdb

        with duckdb.connect(url.removeprefix("duckdb:///")) as connection:
            connection.execute(statement)
        return
    engine = sa.create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    with engine.begin() as connection:
        connection.execute(sa.text(statement))
    engine.dispose()
