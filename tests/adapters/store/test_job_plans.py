"""No statement of the job store reads the whole table: looked up in the plans of the databases themselves."""

from __future__ import annotations

import re
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy import event

from airflow_provider_ai.adapters.store.store import Store
from airflow_provider_ai.core.job_ports import JobStore
from airflow_provider_ai.core.jobs import submission_key
from tests.adapters.store.conftest import OpenStore
from tests.adapters.store.jobs import FAILED, claim, done, finish, new_job, new_jobs

ENOUGH = 6_000
# PostgreSQL reads so small a table as a whole when it may: whether an index can serve is what is asked here.
NO_SCANS = "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET enable_seqscan = off', current_database()); END $$"
SUBMISSIONS = [submission_key("s", number) for number in range(20)]


@pytest.fixture
def store(opened: OpenStore, database: str) -> Store:
    """Jobs in every state, most of them finished."""
    store = opened(timeout_seconds=20)
    jobs = store.jobs()
    for number, submission in enumerate(SUBMISSIONS):
        wanted = new_jobs(ENOUGH // len(SUBMISSIONS), submission, expires_at=4e9)
        jobs.submit(wanted)
        jobs.receive_many({job.job_id: done() for job in wanted[: None if number else 10]}, via="queue")
    finish(jobs, new_job(11, SUBMISSIONS[0]), FAILED)
    with store.session() as session:
        for statement in ["ANALYZE"] if database == "sqlite" else ["VACUUM ANALYZE ai_jobs", NO_SCANS]:
            session.run(sa.text(statement), {})
    store.close()
    return store


def everything(jobs: JobStore) -> None:
    """Each operation once."""
    mine, failed, other = SUBMISSIONS[0], new_job(11, SUBMISSIONS[0]), new_job(12, SUBMISSIONS[0])
    jobs.submit([new_job(999, mine), other, new_job(0, "new"), new_job(0, "new", generation=1)])
    jobs.sent([other.job_id])
    fence = claim(jobs, other).fence
    jobs.heartbeat({other.job_id: fence}, owner="w1", lease_seconds=30)
    jobs.give_back(other.job_id, owner="w1", fence=fence, count_attempt=True)
    jobs.complete(other.job_id, owner="w1", fence=fence, outcome=done())
    jobs.fail(new_job(13, mine).job_id, reason="x")
    jobs.expire(most=10)
    jobs.redrive([failed.job_id])
    jobs.receive(failed.job_id, FAILED, via="queue")
    jobs.jobs(mine, after=20, most=10)
    jobs.arrivals(mine, after=3, most=10)
    jobs.counts(SUBMISSIONS[:5])
    jobs.unsent(older_than_seconds=1, most=10)
    jobs.unpublished(older_than_seconds=1, most=10)
    jobs.published([failed.job_id])
    jobs.prune(older_than_seconds=1_000, most=10)
    jobs.cancel("nobody's")


def plans(store: Store, database: str) -> dict[str, str]:
    """The plan of each statement that :func:`everything` runs on the jobs."""
    asked: dict[str, str] = {}
    explain = "EXPLAIN QUERY PLAN " if database == "sqlite" else "EXPLAIN "

    def before(connection: Any, cursor: Any, statement: str, parameters: Any, context: Any, many: bool) -> None:
        if "ai_jobs" in statement and not statement.startswith(("EXPLAIN", "INSERT")) and statement not in asked:
            other = connection.connection.driver_connection.cursor()
            other.execute(explain + statement, parameters[0] if many else parameters)
            asked[statement] = "\n".join(str(row[-1]) for row in other.fetchall())

    for engine in (store.database._engine_here(), store._durable_database()._engine_here()):
        event.listen(engine, "before_cursor_execute", before)
    everything(store.jobs())
    return asked


def test_every_statement_has_an_index(store: Store, database: str) -> None:
    """Of all, none scans the jobs; a scan of the few that a common table expression has found is none."""
    found = plans(store, database)
    assert len(found) >= 18
    whole = re.compile(r"^SCAN ai_jobs(?! USING COVERING INDEX)|Seq Scan on ai_jobs", re.MULTILINE)
    assert {statement: plan for statement, plan in found.items() if whole.search(plan)} == {}


def test_counts_are_read_from_an_index_alone(store: Store, database: str) -> None:
    """However many jobs they count, and however large those are."""
    found = [plan for statement, plan in plans(store, database).items() if "count(*) AS jobs" in statement]
    assert len(found) == 1
    assert "ix_ai_jobs_waiting" in found[0]
    assert "TEMP B-TREE" not in found[0]


def test_a_thousand_submissions_are_one_query(store: Store) -> None:
    """One tick of a triggerer with a thousand waiters."""
    queries: list[str] = []
    for engine in (store.database._engine_here(), store._durable_database()._engine_here()):
        event.listen(engine, "before_cursor_execute", lambda *arguments: queries.append(arguments[2]))
    wanted = [*SUBMISSIONS, *(submission_key("x", number) for number in range(980))]
    counts = store.jobs().counts(wanted)
    assert len(counts) == 1_000
    assert counts[SUBMISSIONS[1]].completed == ENOUGH // len(SUBMISSIONS)
    assert len(queries) == 1


def test_a_thousand_jobs_are_one_insert(store: Store) -> None:
    """And no look-up, when all of them are new."""
    queries: list[str] = []
    event.listen(
        store._durable_database()._engine_here(),
        "before_cursor_execute",
        lambda *arguments: queries.append(arguments[2].split()[0]),
    )
    store.jobs().submit(new_jobs(1_000, "new"))
    assert [query for query in queries if query not in ("BEGIN", "COMMIT")] == ["INSERT"]
