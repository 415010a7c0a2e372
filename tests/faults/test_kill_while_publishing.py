"""``kill -9`` before, in and after the commit of a partition: readers see all of it or nothing, in the end one copy.

Publishing never costs a call, so the bound here is zero.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random

import psycopg
import pytest

from tests.adapters.sinks.warehouses import FIRST, ROWS, SCOPE, SECOND, TestWarehouse, publish, publish_both, rows
from tests.adapters.sinks.warehouses import TABLE as SINK_TABLE
from tests.faults.conftest import MakeBatch
from tests.faults.support import forks
from tests.faults.support.batch import Batch
from tests.faults.support.forks import Point
from tests.faults.support.invariants import verify
from tests.faults.support.strace import needs_strace
from tests.faults.support.warehouse import read_rows
from tests.support.processes import REPOSITORY, child_environment, wait_until

PARTITION_ROWS = 100
PARTITIONS = 4
KILLED = -signal.SIGKILL


def whole_partitions(batch: Batch) -> int:
    """How many partitions readers see; every one of them is whole."""
    sizes = Counter(row["_partition"] for row in batch.rows())
    assert set(sizes.values()) <= {PARTITION_ROWS}
    return len(sizes)


def die(batch: Batch, do: str, *, nth: int = 1) -> None:
    """A run that is killed at the ``nth`` commit of a partition."""
    end = batch.start(faults={"rules": [{"call": "commit", "path": "", "do": do, "nth": nth}]}).wait()
    assert end.code == KILLED, f"it never came to that commit\n{end.stderr}"


@pytest.fixture(params=["duckdb", "sqlite", pytest.param("postgresql", marks=pytest.mark.real)])
def batch(request: pytest.FixtureRequest, make_batch: MakeBatch, tmp_path: Path) -> Batch:
    """A batch for each kind of warehouse."""
    if request.param == "postgresql":
        url = request.getfixturevalue("postgres_url")
    else:
        url = f"{request.param}:///{tmp_path}/warehouse.{request.param}"
    return make_batch(rows=PARTITIONS * PARTITION_ROWS, latency_ms=1, sink_url=url)


def test_before_and_after_the_commit(batch: Batch) -> None:
    """A partition is there if its commit happened, and whoever comes next goes on behind it."""
    die(batch, "die")
    assert whole_partitions(batch) == 0
    die(batch, "die after", nth=2)
    assert whole_partitions(batch) == 2
    batch.run()
    verify(batch, repeated=0)


# --- killed by the kernel as the database writes, syncs and folds in its log

POINTS = 6  # of each kind of file: the first call of every sort, and others drawn by the seed


def drawn(points: list[Point], seed: int) -> list[Point]:
    """The first point of each call and file, and then some."""
    sorts = {(point.call, Path(point.file).suffix): point for point in reversed(points)}
    others = [point for point in points if point not in sorts.values()]
    return [*sorts.values(), *Random(seed).sample(others, max(0, min(len(others), POINTS - len(sorts))))]


@needs_strace
@pytest.mark.parametrize("kind", ["duckdb", "sqlite"])
def test_in_a_call_of_the_database(tmp_path: Path, seed: int, kind: str) -> None:
    """Half a file, half a log or half a partition is never seen, and the next publisher makes it whole."""

    def empty(name: str) -> TestWarehouse:
        (tmp_path / name).mkdir()
        return TestWarehouse(url=f"{kind}:///{tmp_path}/{name}/warehouse.{kind}")

    chosen = drawn(forks.points(empty("unharmed").url, tmp_path / "trace"), seed)
    deaths = [(empty(f"killed-{number}"), point) for number, point in enumerate(chosen)]
    forks.die([(warehouse.url, point) for warehouse, point in deaths], tmp_path / "deaths")
    for warehouse, point in deaths:
        there = Counter(row["_partition"] for row in read_rows(warehouse.url, SINK_TABLE))
        assert there in (Counter(), Counter({FIRST: ROWS}), Counter({FIRST: ROWS, SECOND: ROWS})), point
        found = warehouse.sink().publications(SCOPE)
        assert {name: publication.rows_present for name, publication in found.items()} == there, point
        assert publish_both(warehouse.url) == [ROWS - there[FIRST], ROWS - there[SECOND]], point
        assert warehouse.ids() == list(range(2 * ROWS)), point


# --- a server


SLOW_COMMIT = """
CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(1); RETURN NULL; END $$;
CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON _ai_publications DEFERRABLE INITIALLY DEFERRED
FOR EACH ROW EXECUTE FUNCTION slow()
"""
ACTIVE = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
PUBLISHER = "import sys; from tests.adapters.sinks.warehouses import publish_both; publish_both(sys.argv[1])"


def kill_publisher_when(url: str, condition: Callable[[], bool]) -> None:
    """Start a publisher of both partitions and kill it once ``condition`` holds."""
    command = [sys.executable, "-c", PUBLISHER, url]
    with subprocess.Popen(command, cwd=REPOSITORY, env=child_environment()) as publisher:
        try:
            wait_until(condition, deadline_seconds=30, what="the moment of its death", poll_seconds=0.005)
            assert publisher.poll() is None
        finally:
            publisher.kill()


def test_in_the_commit_of_a_server(postgres_url: str) -> None:
    """PostgreSQL goes on with a COMMIT whose client is dead: the acknowledgement is lost, the rows are not doubled."""
    warehouse = TestWarehouse(url=postgres_url)
    publish(warehouse.sink(), rows([1], "a/9"))
    with psycopg.connect(postgres_url, autocommit=True) as watcher:
        watcher.execute(SLOW_COMMIT)
        committing = f"{ACTIVE} AND query = 'COMMIT' AND state = 'active' AND wait_event = 'PgSleep'"
        kill_publisher_when(postgres_url, lambda: _count(watcher, committing) > 0)
        _until_alone(watcher)
        watcher.execute("DROP FUNCTION slow CASCADE")
    assert len(warehouse.ids()) == 1 + ROWS
    assert publish_both(postgres_url) == [0, ROWS]
    assert len(warehouse.ids()) == 1 + 2 * ROWS


def test_while_the_server_loads_rows(postgres_url: str) -> None:
    """Killed while its COPY waits for a lock: the server finds its client gone and keeps nothing of it."""
    warehouse = TestWarehouse(url=postgres_url)
    publish(warehouse.sink(), rows([1], "a/9"))
    with psycopg.connect(postgres_url) as blocker, psycopg.connect(postgres_url, autocommit=True) as watcher:
        blocker.execute(f"LOCK TABLE {SINK_TABLE} IN EXCLUSIVE MODE")
        waiting = f"{ACTIVE} AND wait_event_type = 'Lock'"
        kill_publisher_when(postgres_url, lambda: _count(watcher, waiting) > 0)
        blocker.rollback()
        blocker.close()
        _until_alone(watcher)
    assert warehouse.ids() == [1]
    assert publish_both(postgres_url) == [ROWS, ROWS]


def _count(connection: psycopg.Connection, query: str) -> int:
    row = connection.execute(query).fetchone()
    assert row is not None
    return int(row[0])


def _until_alone(watcher: psycopg.Connection) -> None:
    wait_until(lambda: _count(watcher, ACTIVE) == 0, deadline_seconds=20, what="the dead client's session has ended")
