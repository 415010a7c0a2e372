"""What is particular to DuckDB: a file that appears whole or not at all, and that one process at a time may write."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest
import sqlalchemy as sa

from airflow_provider_ai.adapters.sinks import duckdb_warehouse
from airflow_provider_ai.adapters.sinks.duckdb_file import create_file
from airflow_provider_ai.adapters.sinks.duckdb_warehouse import DuckdbWarehouse
from airflow_provider_ai.exceptions import SinkError, SinkUnavailableError
from tests.adapters.sinks.warehouses import SCOPE, TABLE, TestWarehouse, publish, rows


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ware [house].duckdb"


@pytest.fixture
def warehouse(path: Path) -> TestWarehouse:
    return TestWarehouse(url=f"duckdb:///{path}")


# --- the file is made


def _die(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _die_after(real: Callable[..., None]) -> Callable[..., None]:
    def dying(*arguments: object, **options: object) -> None:
        real(*arguments, **options)
        _die()

    return dying


def _publish_and_die(warehouse: TestWarehouse, moment: str) -> None:
    os.link = {"before the link": _die, "after the link": _die_after(os.link)}[moment]
    publish(warehouse.sink(), rows([1, 2], "a/0"))


@pytest.mark.fault
@pytest.mark.parametrize("moment", ["before the link", "after the link"])
def test_a_process_killed_while_it_makes_the_file_leaves_none_or_a_good_one(
    warehouse: TestWarehouse, path: Path, moment: str
) -> None:
    """The next publisher makes or takes it, and removes what is left of the other one."""
    child = multiprocessing.get_context("spawn").Process(target=_publish_and_die, args=(warehouse, moment))
    child.start()
    child.join(60)
    assert child.exitcode == -signal.SIGKILL
    assert len(list(path.parent.iterdir())) == 1 + (moment == "after the link")
    assert warehouse.sink().publications(SCOPE) == {}
    assert publish(warehouse.sink(), rows([1, 2], "a/0")) == 2
    assert warehouse.ids() == [1, 2]
    assert list(path.parent.iterdir()) == [path]


def test_a_file_made_meanwhile_is_not_replaced(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever is first makes the file; the other one takes it as it is."""
    real_link = os.link

    def late_link(source: Path, target: Path) -> None:
        with duckdb.connect(str(target)) as other:
            other.execute("CREATE TABLE theirs AS SELECT 7 AS x")
        real_link(source, target)

    monkeypatch.setattr(os, "link", late_link)
    with duckdb.connect() as own:
        create_file(path, own)
    with duckdb.connect(str(path)) as connection:
        assert connection.execute("SELECT x FROM theirs").fetchall() == [(7,)]
    assert list(path.parent.iterdir()) == [path]


def test_a_file_system_without_links_will_do(
    warehouse: TestWarehouse, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FAT and some network file systems have none."""

    def refused(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "link", refused)
    sink = warehouse.sink()
    assert publish(sink, rows([1], "a/0")) == 1
    sink.close()
    assert list(path.parent.iterdir()) == [path]


def test_a_link_to_a_file_that_is_not_there_yet_stays_a_link(path: Path, tmp_path: Path) -> None:
    """The database is made where it points to."""
    target = tmp_path / "volume" / "real.duckdb"
    target.parent.mkdir()
    path.symlink_to(target)
    assert publish(TestWarehouse(url=f"duckdb:///{path}").sink(), rows([1], "a/0")) == 1
    assert path.is_symlink()
    assert TestWarehouse(url=f"duckdb:///{target}").ids() == [1]


@pytest.mark.parametrize("size", [0, 4096, 8192])
def test_a_file_another_program_is_still_making_is_waited_for(
    warehouse: TestWarehouse, path: Path, tmp_path: Path, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It writes the headers in place; a file cut short for good is unavailable, and the advice is to delete it."""
    whole = tmp_path / "whole"
    duckdb.connect(str(whole)).close()
    path.write_bytes(whole.read_bytes()[:size])
    for operation in (
        lambda: warehouse.sink(lock_wait_seconds=0.1).publications(SCOPE),
        lambda: publish(warehouse.sink(lock_wait_seconds=0.1), rows([1], "a/0")),
    ):
        with pytest.raises(SinkUnavailableError, match=r"is creating the file .*delete it"):
            operation()
    real_connect = DuckdbWarehouse._connect

    def finished_meanwhile(self: DuckdbWarehouse, *, read_only: bool) -> duckdb.DuckDBPyConnection:
        try:
            return real_connect(self, read_only=read_only)
        finally:
            path.write_bytes(whole.read_bytes())
            monkeypatch.undo()

    monkeypatch.setattr(DuckdbWarehouse, "_connect", finished_meanwhile)
    assert publish(warehouse.sink(lock_wait_seconds=10), rows([1], "a/0")) == 1


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda path: path.write_text("id,score\n" * 3000), "not a DuckDB database"),
        (lambda path: path.mkdir(), "no such folder, or the path is one"),
    ],
)
def test_what_is_no_database_is_refused_for_good(
    warehouse: TestWarehouse, path: Path, make: Callable[[Path], object], why: str
) -> None:
    """No retry makes a database of it."""
    make(path)
    with pytest.raises(SinkError, match=why) as caught:
        publish(warehouse.sink(), rows([1], "a/0"))
    assert not isinstance(caught.value, SinkUnavailableError)


def test_a_folder_that_is_missing_is_named_as_such(tmp_path: Path) -> None:
    """Nothing is created on the way to it."""
    with pytest.raises(SinkError, match="there is no such folder"):
        publish(TestWarehouse(url=f"duckdb:///{tmp_path}/nowhere/w.duckdb").sink(), rows([1], "a/0"))
    assert list(tmp_path.iterdir()) == []


# --- the rest


def test_reading_creates_no_file(warehouse: TestWarehouse, path: Path) -> None:
    """A look at what is published leaves a missing warehouse missing."""
    assert warehouse.sink().publications(SCOPE) == {}
    assert warehouse.sink().prune(SCOPE, plan="p1") == 0
    assert not path.exists()


def test_new_columns_have_duckdbs_own_types(warehouse: TestWarehouse) -> None:
    """Lists and structs stay what they are, with their NaN."""
    columns = {
        "vector": pa.array([[0.5, float("nan")]], pa.list_(pa.float32(), 2)),
        "record": pa.array([{"a": 1}]),
        "big": pa.array([2**64 - 1], pa.uint64()),
        "word": pa.array(["a\0\N{SNOWMAN}"]).dictionary_encode(),
    }
    publish(warehouse.sink(), rows([1], "a/0", **columns))
    types = dict(row[:2] for row in warehouse.read(f"DESCRIBE {TABLE}"))
    assert {name: types[name] for name in columns} == {
        "vector": "FLOAT[]",
        "record": "STRUCT(a BIGINT)",
        "big": "UBIGINT",
        "word": "VARCHAR",
    }
    [(vector, *others)] = warehouse.read(f"SELECT vector, record, big, word FROM {TABLE}")
    assert str(vector) == "[0.5, nan]"
    assert others == [{"a": 1}, 2**64 - 1, "a\0\N{SNOWMAN}"]


def test_settings_come_with_the_url(warehouse: TestWarehouse) -> None:
    """What the url does not set is bounded."""
    given = DuckdbWarehouse(sa.make_url(f"{warehouse.url}?memory_limit=300MB"), 1.0)
    with given.open(None, reading=False) as session:
        [(memory, threads)] = session.run(sa.text("SELECT current_setting('memory_limit'), current_setting('threads')"))
    assert (memory, threads) == ("286.1 MiB", 2)


def test_a_connection_of_this_process_is_waited_for(warehouse: TestWarehouse, path: Path) -> None:
    """DuckDB opens a file once a process; whoever has it is named, and nothing is broken."""
    sink = warehouse.sink(lock_wait_seconds=0.2)
    publish(sink, rows([1], "a/0"))
    sink.close()
    with duckdb.connect(str(path)), pytest.raises(SinkUnavailableError, match="another connection of this process"):
        publish(sink, rows([2], "a/1"))
    publish(sink, rows([2], "a/1"))
    assert warehouse.ids() == [1, 2]


def test_the_file_is_let_go_after_a_while(
    warehouse: TestWarehouse, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kept from one partition to the next, but not for as long as a publisher of thousands works."""
    monkeypatch.setattr(duckdb_warehouse, "_KEPT_SECONDS", 0.0)
    publish(warehouse.sink(), rows([1], "a/0"))
    with duckdb.connect(str(path)) as somebody_else:
        assert somebody_else.execute(f"SELECT count(*) FROM {TABLE}").fetchall() == [(1,)]


def test_row_groups_of_all_sizes_live_together(warehouse: TestWarehouse) -> None:
    """The file may hold tables, and the table rows, that DuckDB wrote in row groups of its own size."""
    warehouse.execute("CREATE TABLE theirs AS SELECT range AS x FROM range(300000)")
    sink = warehouse.sink()
    publish(sink, rows(range(40_000), "a/0"))
    warehouse.execute(f"INSERT INTO {TABLE} BY NAME SELECT visit_id + 40000 AS visit_id FROM {TABLE}; CHECKPOINT")
    publish(sink, rows(range(80_000, 130_000), "a/1"))
    publish(sink, rows(range(40_000), "a/0"), content="c2")
    assert warehouse.ids() == list(range(130_000))
    assert warehouse.read("SELECT count(*), sum(x) FROM theirs") == [(300_000, 300_000 * 299_999 // 2)]
