"""``kill -9`` before, in and after the commit of a partition: readers see all of it or nothing, in the end one copy.

Publishing never costs a call, so the bound here is zero.
"""

from __future__ import annotations

import re
import signal
from collections import Counter
from pathlib import Path

import psycopg
import pytest

from tests.faults.conftest import MakeBatch
from tests.faults.support.batch import Batch
from tests.faults.support.invariants import verify
from tests.faults.support.strace import Tampering, last_call, needs_strace
from tests.support.processes import wait_until

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
    die(batch, "die after")
    assert whole_partitions(batch) == 1
    die(batch, "die", nth=2)
    assert whole_partitions(batch) == 2
    die(batch, "die after", nth=2)
    assert whole_partitions(batch) == PARTITIONS
    batch.run()
    verify(batch, repeated=0)


DUCKDB = [  # what DuckDB does for a partition: append to its write-ahead log, sync it, move it into the file, unlink it
    (".wal", "write", 1, r"write\("),
    (".wal", "fdatasync", 1, r"fdatasync\("),
    (".wal", "write", 3, r"write\("),
    (".wal", "fdatasync", 2, r"fdatasync\("),
    ("", "pwrite64", 3, r"pwrite64\("),
    ("", "fdatasync", 1, r"fdatasync\("),
    (".wal", "unlink", 1, r"unlink\("),
]
NEW_DUCKDB = [
    ("", "pwrite64", 1, r"pwrite64\("),
    ("", "pwrite64", 2, r"pwrite64\("),
    ("", "fdatasync", 1, r"fdatasync\("),
]
NEW_SQLITE = [  # killed before it is in WAL mode, it stays in the classic one, in which unlinking the journal commits
    ("", "pwrite64", 1, r"pwrite64\("),
    ("-journal", "unlink", 1, r"unlink\("),
    ("-journal", "unlink", 2, r"unlink\("),
    ("", "pwrite64", 3, r"pwrite64\("),
]
SQLITE = [
    ("-wal", "pwrite64", 1, r"pwrite64\("),
    ("-wal", "fdatasync", 2, r"fdatasync\("),
    ("-wal", "pwrite64", 25, r"pwrite64\("),
    ("-wal", "fdatasync", 1, r"fdatasync\("),
    ("", "pwrite64", 2, r"pwrite64\("),
    ("", "fdatasync", 1, r"fdatasync\("),
    ("-wal", "unlink", 1, r"unlink\("),
]


@needs_strace
@pytest.mark.parametrize(
    ("kind", "points"),
    [
        pytest.param("duckdb", DUCKDB, id="duckdb"),
        pytest.param("sqlite", SQLITE, id="sqlite"),
        pytest.param("duckdb", NEW_DUCKDB, id="duckdb, while the file is made"),
        pytest.param("sqlite", NEW_SQLITE, id="sqlite, while the file is made"),
    ],
)
def test_in_the_commit_of_a_file(make_batch: MakeBatch, tmp_path: Path, kind: str, points: list) -> None:
    """The command itself, killed by the kernel as the database writes, syncs and folds in its log."""
    warehouse = tmp_path / f"warehouse.{kind}"
    batch = make_batch(rows=PARTITIONS * PARTITION_ROWS, latency_ms=1, sink_url=f"{kind}:///{warehouse}")
    for number, (suffix, call, when, line) in enumerate(points):
        trace = batch.folder / f"trace-{number}"
        only = warehouse.with_name(warehouse.name + suffix)
        tampering = Tampering(calls=call, fault="signal=KILL", when=str(when), only=only)
        end = batch.start(under=tampering.command(trace)).wait()
        assert end.code == KILLED, f"it never came to {call} number {when} of {only.name}\n{end.stderr}"
        assert re.match(line, last_call(trace))
        whole_partitions(batch)
    batch.run()
    verify(batch, repeated=0)


SLOW_COMMIT = """
CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(1); RETURN NULL; END $$;
CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON _ai_publications DEFERRABLE INITIALLY DEFERRED
FOR EACH ROW EXECUTE FUNCTION slow()
"""
ACTIVE = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"


def test_in_the_commit_of_a_server(make_batch: MakeBatch, postgres_url: str) -> None:
    """PostgreSQL goes on with a COMMIT whose client is dead: the acknowledgement is lost, the rows are not doubled."""
    batch = make_batch(rows=PARTITIONS * PARTITION_ROWS, latency_ms=1, sink_url=postgres_url)
    die(batch, "die after")
    with psycopg.connect(postgres_url, autocommit=True) as watcher:
        watcher.execute(SLOW_COMMIT)
        run = batch.start()
        run.until(lambda: _count(watcher, f"{ACTIVE} AND query = 'COMMIT' AND state = 'active'") > 0, "a COMMIT")
        run.kill()
        _until_alone(watcher)
        watcher.execute("DROP FUNCTION slow CASCADE")
    assert whole_partitions(batch) == 2
    batch.run()
    verify(batch, repeated=0)


def test_while_the_server_loads_rows(make_batch: MakeBatch, postgres_url: str) -> None:
    """Killed while its COPY waits for a lock: the server finds its client gone and keeps nothing of it."""
    batch = make_batch(rows=PARTITIONS * PARTITION_ROWS, latency_ms=1, sink_url=postgres_url)
    die(batch, "die after")
    with psycopg.connect(postgres_url) as blocker, psycopg.connect(postgres_url, autocommit=True) as watcher:
        blocker.execute("LOCK TABLE predictions IN EXCLUSIVE MODE")
        run = batch.start()
        run.until(lambda: _count(watcher, f"{ACTIVE} AND wait_event_type = 'Lock'") > 0, "it waits for the table")
        run.kill()
        blocker.rollback()
        blocker.close()
        _until_alone(watcher)
    assert whole_partitions(batch) == 1
    batch.run()
    verify(batch, repeated=0)


def _count(connection: psycopg.Connection, query: str) -> int:
    row = connection.execute(query).fetchone()
    assert row is not None
    return int(row[0])


def _until_alone(watcher: psycopg.Connection) -> None:
    wait_until(lambda: _count(watcher, ACTIVE) == 0, deadline_seconds=20, what="the dead client's session has ended")
