"""A warehouse that is down costs retries and never an inference call: it comes back during the run, or after it."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from tests.faults.conftest import MakeBatch
from tests.faults.support.batch import Batch
from tests.faults.support.invariants import problems, verify
from tests.faults.support.restartable import held, impatient, restartable_postgres

ROWS = 400
FOR_LONG = [0.2] * 200
NOT_FOR_LONG = [0.1, 0.1]


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadWarehouse:
    """A warehouse that is down; ``revive`` brings it back."""

    url: str
    revive: Callable[[], None]


@contextmanager
def dead_warehouse(kind: str, folder: Path) -> Iterator[DeadWarehouse]:
    """A stopped PostgreSQL server, or a file that another process has locked."""
    with ExitStack() as stack:
        if kind == "postgresql":
            server = stack.enter_context(restartable_postgres())
            url = server.server.url(server.server.create_database())
            server.stop()
            yield DeadWarehouse(url=url, revive=server.start)
        else:
            path = folder / f"warehouse.{kind}"
            holder = stack.enter_context(held(kind, path))
            yield DeadWarehouse(url=f"{kind}:///{path}", revive=partial(_let_go, holder))


def _let_go(holder: subprocess.Popen[str]) -> None:
    holder.kill()
    holder.wait()


@pytest.fixture(params=["duckdb", "sqlite", pytest.param("postgresql", marks=pytest.mark.real)])
def warehouse(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[DeadWarehouse]:
    """One of each kind, down."""
    with dead_warehouse(request.param, tmp_path) as dead:
        yield dead


def all_called_once(batch: Batch) -> bool:
    """Whether the server has been paid for every record exactly once."""
    calls = batch.stub.counts("called")
    return len(calls) == ROWS and set(calls.values()) == {1}


def test_it_comes_back_while_the_run_waits(make_batch: MakeBatch, warehouse: DeadWarehouse) -> None:
    """The run ends well, and not one record is called again."""
    batch = make_batch(rows=ROWS, latency_ms=1, sink_url=warehouse.url)
    run = batch.start(under=impatient(sink_waits=FOR_LONG))
    run.until(lambda: run.stderr.count("warehouse unavailable") > 2, "it has tried a few times")
    assert all_called_once(batch)
    warehouse.revive()
    run.expect(0)
    verify(batch, repeated=0)


def test_it_stays_down(make_batch: MakeBatch, warehouse: DeadWarehouse) -> None:
    """The run fails and says what to do; once the warehouse is back, another one publishes without a call."""
    batch = make_batch(rows=ROWS, latency_ms=1, sink_url=warehouse.url)
    end = batch.run(code=1, under=impatient(sink_waits=NOT_FOR_LONG))
    assert "a retry publishes from the checkpoints without calling the model" in end.stderr
    assert all_called_once(batch)
    requests = batch.stub.progress()["requests"]
    warehouse.revive()
    report = batch.run().report
    assert report is not None
    assert (report["requests"], report["published"]) == (0, ROWS)
    assert batch.stub.progress()["requests"] == requests
    assert problems(batch) == []


def test_the_status_does_not_wait_as_long_as_a_publisher(make_batch: MakeBatch, tmp_path: Path) -> None:
    """It shows what the checkpoints hold, and says why it cannot tell what stands in the table."""
    with dead_warehouse("duckdb", tmp_path) as dead:
        batch = make_batch(rows=ROWS, latency_ms=1, sink_url=dead.url)
        batch.run(code=1, under=impatient(sink_waits=NOT_FOR_LONG))
        status = batch.status()
    assert (status["plan"], status["would_call"]) == ("unfinished", 0)
    assert "has held it for 6 s" in status["warehouse"]
