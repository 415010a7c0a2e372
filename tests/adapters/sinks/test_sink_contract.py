"""One contract for every warehouse: all or nothing, one copy, no record twice, no value in an error."""

from __future__ import annotations

import math
import multiprocessing
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from airflow_provider_ai.adapters.sinks import open_sink
from airflow_provider_ai.core.config import SinkSettings
from airflow_provider_ai.core.ports import Sink
from airflow_provider_ai.exceptions import SinkError, SinkUnavailableError
from tests.adapters.sinks.warehouses import SCOPE, TestWarehouse, publish, rows, unit

KINDS = ("duckdb", "sqlite", pytest.param("postgresql", marks=pytest.mark.real), "generic-sqlite")
KINDS += (pytest.param("generic-postgresql", marks=pytest.mark.real),)


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def url(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> str:
    if kind.endswith("postgresql"):
        return str(request.getfixturevalue("postgres_url"))
    return f"{kind.removeprefix('generic-')}:///{tmp_path}/warehouse.{kind}"


@pytest.fixture
def warehouse(kind: str, url: str) -> TestWarehouse:
    return TestWarehouse(url=url, generic=kind.startswith("generic"))


@pytest.fixture
def sink(warehouse: TestWarehouse) -> Iterator[Sink]:
    made = warehouse.sink()
    yield made
    made.close()


def test_publishing_twice_leaves_one_copy_and_writes_once(sink: Sink, warehouse: TestWarehouse) -> None:
    table = rows(list(range(250)), "a/0")
    assert publish(sink, table) == 250
    assert publish(sink, table) == 0
    assert warehouse.ids() == list(range(250))


def test_new_content_replaces_the_partition_and_no_other(sink: Sink, warehouse: TestWarehouse) -> None:
    publish(sink, rows([1, 2, 3], "a/0"))
    publish(sink, rows([4], "a/1"))
    publish(sink, rows([2, 9], "a/0"), content="c2")
    assert warehouse.ids() == [2, 4, 9]


def test_a_source_that_breaks_midway_leaves_the_old_rows(sink: Sink, warehouse: TestWarehouse) -> None:
    publish(sink, rows([1, 2], "a/0"))
    table = rows([7, 8, 9], "a/0")

    def broken() -> Iterator[pa.RecordBatch]:
        yield table.to_batches(max_chunksize=1)[0]
        raise RuntimeError("the checkpoint could not be read")

    with pytest.raises(RuntimeError, match="checkpoint"):
        sink.publish(unit("a/0", 3, content="c2"), table.schema, broken())
    assert warehouse.ids() == [1, 2]
    assert sink.publications(SCOPE)["a/0"].content == "c1"


def test_too_few_rows_are_refused_and_nothing_changes(sink: Sink, warehouse: TestWarehouse) -> None:
    publish(sink, rows([1], "a/0"))
    table = rows([2], "a/0")
    with pytest.raises(SinkError, match="announced"):
        sink.publish(unit("a/0", 2, content="c2"), table.schema, table.to_batches())
    assert warehouse.ids() == [1]


def test_a_new_plan_takes_over_record_by_record(sink: Sink, warehouse: TestWarehouse) -> None:
    publish(sink, rows([1, 2], "a/p1/0"))
    publish(sink, rows([3, 4], "a/p1/1"))
    publish(sink, rows([1, 2, 3], "a/p2/0"), plan="p2")
    assert warehouse.ids() == [1, 2, 3, 4], "every record once while the plans change over"
    assert sink.prune(SCOPE, plan="p2") == 1
    assert warehouse.ids() == [1, 2, 3]
    assert set(sink.publications(SCOPE)) == {"a/p2/0"}


def test_rows_the_user_deleted_are_noticed_and_written_again(sink: Sink, warehouse: TestWarehouse) -> None:
    table = rows([1, 2], "a/0")
    publish(sink, table)
    warehouse.execute("DELETE FROM scores WHERE visit_id = 2")
    assert sink.publications(SCOPE)["a/0"].rows_present == 1
    assert publish(sink, table) == 2
    assert warehouse.ids() == [1, 2]


def test_an_empty_partition_publishes_a_marker_and_removes_old_rows(sink: Sink, warehouse: TestWarehouse) -> None:
    publish(sink, rows([1], "a/0"))
    empty = rows([], "a/0")
    publish(sink, empty, partition="a/0", content="c2")
    assert warehouse.ids() == []
    assert sink.publications(SCOPE)["a/0"].rows == 0


def test_new_output_columns_are_added(sink: Sink, warehouse: TestWarehouse) -> None:
    publish(sink, rows([1], "a/0"))
    publish(sink, rows([2], "a/1", label=pa.array(["x"])))
    found = warehouse.read("SELECT visit_id, label FROM scores ORDER BY visit_id")
    assert [tuple(row) for row in found] == [(1, None), (2, "x")]


def test_integers_go_into_a_double_column_and_text_does_not_show_in_the_refusal(
    sink: Sink, warehouse: TestWarehouse
) -> None:
    publish(sink, rows([1], "a/0"))
    publish(sink, rows([2], "a/1", score=pa.array([2])))
    canary = rows([3], "a/2").set_column(1, "score", pa.array(["canary-value"]))
    with pytest.raises(SinkError, match="score") as caught:
        publish(sink, canary)
    assert "canary" not in str(caught.value)
    assert warehouse.ids() == [1, 2]


def test_hostile_names_are_only_names(warehouse: TestWarehouse) -> None:
    for table in ('x"; DROP TABLE scores; --', "select", "Mixed Case"):
        hostile = warehouse.sink(table)
        data = rows([1], "a/0", **{'we"ird; name': pa.array([5], pa.int64())})
        assert publish(hostile, data) == 1
        assert hostile.publications(SCOPE)["a/0"].rows_present == 1
        hostile.close()


def test_lists_and_nulls_survive(sink: Sink, warehouse: TestWarehouse) -> None:
    vectors = pa.array([[0.5, 1.0], None], pa.list_(pa.float64()))
    publish(sink, rows([1, 2], "a/0", embedding=vectors))
    found = warehouse.read("SELECT embedding FROM scores ORDER BY visit_id")
    assert found[1][0] is None
    assert found[0][0] in ([0.5, 1.0], "[0.5,1.0]")


def test_numbers_that_are_none_hold_up_nothing(sink: Sink, warehouse: TestWarehouse) -> None:
    """NaN and infinity are stored as they are, or as null where NaN is unknown."""
    numbers = pa.array([float("nan"), float("inf"), float("-inf"), None, 0.1])
    publish(sink, rows(range(5), "a/0", score=numbers))
    found = [row[0] for row in warehouse.read("SELECT score FROM scores ORDER BY visit_id")]
    assert found[0] is None or math.isnan(found[0])
    assert found[1:] == [math.inf, -math.inf, None, 0.1]


def test_texts_come_back_as_they_were(sink: Sink, warehouse: TestWarehouse) -> None:
    """Long ones, empty ones, and characters beyond the first plane."""
    texts = [
        "\N{SNOWMAN}\N{GRINNING FACE} e\N{COMBINING ACUTE ACCENT} 'quoted' %s :x",
        "x" * 3_000_000,
        "",
        None,
        " a ",
    ]
    publish(sink, rows(range(5), "a/0", note=pa.array(texts)))
    assert [row[0] for row in warehouse.read("SELECT note FROM scores ORDER BY visit_id")] == texts


@pytest.mark.fault
def test_publishers_at_once_leave_one_copy(warehouse: TestWarehouse) -> None:
    contend(warehouse, ["a/0"] * 4)
    assert warehouse.ids() == list(range(300))


@pytest.mark.fault
def test_publishers_of_different_partitions_all_arrive(warehouse: TestWarehouse) -> None:
    contend(warehouse, ["a/0", "a/1", "a/2"])
    assert len(warehouse.ids()) == 900


@pytest.mark.fault
def test_a_killed_publisher_leaves_all_or_nothing(warehouse: TestWarehouse) -> None:
    publish_in_child(warehouse, "a/0", die_after_batches=2)
    again = warehouse.sink()
    assert publish(again, rows(list(range(300)), "a/0")) == 300
    assert again.publications(SCOPE)["a/0"].rows_present == 300
    again.close()
    assert warehouse.ids() == list(range(300))


def test_a_table_of_somebody_else_is_refused_with_advice(sink: Sink, warehouse: TestWarehouse) -> None:
    warehouse.execute("CREATE TABLE scores (visit_id BIGINT)")
    with pytest.raises(SinkError, match="not made by this package"):
        publish(sink, rows([1], "a/0"))


@pytest.mark.parametrize(
    "dead", ["postgresql://u:hunter2@127.0.0.1:1/x", "postgresql+psycopg2://u:hunter2@127.0.0.1:1/x"]
)
def test_a_database_that_is_down_is_unavailable_and_keeps_the_password_to_itself(dead: str) -> None:
    sink = open_sink(SinkSettings(url=dead, table="scores"))
    with pytest.raises(SinkUnavailableError) as caught:
        publish(sink, rows([1], "a/0"))
    assert "hunter2" not in str(caught.value)


def test_a_locked_duckdb_file_is_waited_for_and_then_unavailable(tmp_path: Path) -> None:
    url = f"duckdb:///{tmp_path}/w.duckdb"
    ready, release = multiprocessing.get_context("spawn").Event(), multiprocessing.get_context("spawn").Event()
    holder = multiprocessing.get_context("spawn").Process(target=_hold_duckdb, args=(url, ready, release))
    holder.start()
    try:
        assert ready.wait(30)
        with pytest.raises(SinkUnavailableError):
            publish(TestWarehouse(url=url).sink(lock_wait_seconds=0.2), rows([1], "a/0"))
    finally:
        release.set()
        holder.join(30)
    assert publish(TestWarehouse(url=url).sink(), rows([1], "a/0")) == 1


@pytest.mark.parametrize("url", ["duckdb:///:memory:", "sqlite://", "nosuchdialect://x/y"])
def test_urls_that_cannot_keep_rows_are_refused(url: str) -> None:
    with pytest.raises(SinkError):
        open_sink(SinkSettings(url=url, table="scores"))


# --- other processes


def contend(warehouse: TestWarehouse, partitions: list[str]) -> None:
    spawn = multiprocessing.get_context("spawn")
    barrier = spawn.Barrier(len(partitions))
    workers = [spawn.Process(target=_publish_at_once, args=(warehouse, name, barrier)) for name in partitions]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
    assert [worker.exitcode for worker in workers] == [0] * len(partitions)


def publish_in_child(warehouse: TestWarehouse, partition: str, *, die_after_batches: int) -> None:
    spawn = multiprocessing.get_context("spawn")
    child = spawn.Process(target=_publish_and_die, args=(warehouse, partition, die_after_batches))
    child.start()
    child.join(60)
    assert child.exitcode == -signal.SIGKILL


def _publish_at_once(warehouse: TestWarehouse, partition: str, barrier: object) -> None:
    sink = warehouse.sink()
    table = rows(list(range(300)), partition)
    barrier.wait(60)  # type: ignore[attr-defined]
    for attempt in range(20):
        try:
            publish(sink, table)
            return
        except SinkUnavailableError:
            if attempt == 19:
                raise


def _publish_and_die(warehouse: TestWarehouse, partition: str, batches: int) -> None:
    table = rows(list(range(300)), partition)

    def fatal() -> Iterator[pa.RecordBatch]:
        for number, batch in enumerate(table.to_batches(max_chunksize=100)):
            if number == batches:
                os.kill(os.getpid(), signal.SIGKILL)
            yield batch

    warehouse.sink().publish(unit(partition, 300), table.schema, fatal())


def _hold_duckdb(url: str, ready: object, release: object) -> None:
    import duckdb

    with duckdb.connect(url.removeprefix("duckdb:///")):
        ready.set()  # type: ignore[attr-defined]
        release.wait(60)  # type: ignore[attr-defined]
