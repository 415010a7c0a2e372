"""Workers and dispatchers as processes, with SQS at MiniStack, SQLite and a model server that counts."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from airflow_provider_ai.core.jobs import JobState
from benchmarks.stub import StubServer
from tests.support import processes
from tests.support.job_fleet import Fleet, exit_code, fleet
from tests.support.ministack import MiniStack
from tests.support.processes import wait_until


@pytest.fixture
def jobs(tmp_path: Path, ministack_server: MiniStack) -> Iterator[Fleet]:
    with fleet(tmp_path, ministack_server) as made:
        yield made


def endpoint(stub: StubServer) -> dict[str, str]:
    return {"url": stub.url, "protocol": "json", "model": "m"}


def test_services_start_without_airflow(jobs: Fleet) -> None:
    """Where it cannot be imported at all: both get ready, and a job is done."""
    (jobs.folder / "handlers.py").write_text("def double(job):\n    return {'twice': 2 * job.payload['id']}\n")
    code = "import sys; sys.modules['airflow'] = None; from airflow_provider_ai.cli import program; program()"
    for name in ("worker", "dispatcher"):
        jobs.ports[name] = processes.free_port()
        spec = jobs.write_spec(name, **{name: {"health_port": jobs.ports[name]}}, handler={"target": "handlers:double"})
        jobs.run(name, [sys.executable, "-c", code, name, spec])
    wait_until(lambda: all(map(jobs.is_ready, jobs.ports)), deadline_seconds=30, what="both are ready")
    assert jobs.wait(jobs.submit(1), deadline_seconds=30).completed == 1


def test_three_hundred_jobs_are_paid_for_once_and_arrive(jobs: Fleet) -> None:
    """Two workers, two dispatchers, every message twice: one call a job at the server, every result in the inbox."""
    with StubServer(latency_ms=20) as stub:
        for number in range(2):
            jobs.start("worker", name=f"worker-{number}", worker={"concurrency": 16}, endpoint=endpoint(stub))
            jobs.start("dispatcher", name=f"dispatcher-{number}")
        submitted = jobs.submit(300)
        jobs.send(submitted)
        counts = jobs.wait(submitted, deadline_seconds=90)
        assert (counts.completed, counts.failed) == (300, 0)
        assert stub.counts("called") == {str(position): 1 for position in range(300)}
    for service in jobs.services:
        assert exit_code(service, deadline_seconds=30) == 0
    arrivals = jobs.store.arrivals(submitted[0].submission)
    assert [arrival.position for arrival in arrivals] == list(range(300))
    assert b'"id":7' in (arrivals[7].outcome.content.inline or b"")  # type: ignore[union-attr]


def test_a_worker_that_gets_sigterm_finishes_and_ends_with_0(jobs: Fleet) -> None:
    """What is in flight is finished and recorded within the grace; what is not fetched stays in the queue."""
    with StubServer(latency_ms=1500) as stub:
        settings = {"concurrency": 4, "grace_seconds": 20}
        worker = jobs.start_ready("worker", name="worker", settings=settings, endpoint=endpoint(stub))
        submitted = jobs.submit(12)
        wait_until(lambda: stub.progress()["in_flight"] == 4, deadline_seconds=20, what="four calls in flight")
        began = time.monotonic()
        assert exit_code(worker, deadline_seconds=20) == 0
        assert time.monotonic() - began < 8
        states = [job.state for job in jobs.store.jobs(submitted[0].submission)]
        assert states.count(JobState.SUCCEEDED) == 4
        assert states.count(JobState.PENDING) == 8
        assert stub.progress()["answered"] == 4
        assert len(jobs.transport.requests.peek(most=10)) == 8
        assert jobs.transport.results.depth() == 4


def test_a_worker_that_cannot_finish_gives_back_at_once(jobs: Fleet) -> None:
    """The grace over, messages are visible and jobs pending with no attempt used up; another worker does them."""
    with StubServer(latency_ms=60_000) as stub:
        settings = {"concurrency": 3, "grace_seconds": 4, "visibility_timeout_seconds": 300}
        worker = jobs.start_ready("worker", name="worker", settings=settings, endpoint=endpoint(stub))
        submitted = jobs.submit(3)
        wait_until(lambda: stub.progress()["in_flight"] == 3, deadline_seconds=20, what="three calls in flight")
        began = time.monotonic()
        assert exit_code(worker, deadline_seconds=20) == 0
        assert time.monotonic() - began < 6
        there = jobs.store.jobs(submitted[0].submission)
        assert [(job.state, job.attempts) for job in there] == [(JobState.PENDING, 0)] * 3
        stub.set_faults(latency_ms=1)
        jobs.start("worker", name="second", worker={"concurrency": 3}, endpoint=endpoint(stub))
        jobs.start("dispatcher", name="dispatcher")
        assert jobs.wait(submitted, deadline_seconds=30).completed == 3


def test_a_function_of_the_users_does_the_work(jobs: Fleet) -> None:
    """An import string beside the spec; a blocking one holds up no heartbeat: leases of 2 s, work of 5 s."""
    (jobs.folder / "handlers.py").write_text(
        "import time\n"
        "async def blocking(job):\n"
        "    time.sleep(5)\n"
        "    return {'key': job.idempotency_key, 'attempt': job.attempt, 'twice': 2 * job.payload['id']}\n"
    )
    settings = {"concurrency": 2, "visibility_timeout_seconds": 2}
    handler = {"target": "handlers:blocking"}
    jobs.start_ready("worker", name="worker", settings=settings, handler=handler)
    jobs.start("dispatcher", name="dispatcher")
    submitted = jobs.submit(2)
    assert jobs.wait(submitted, deadline_seconds=40).completed == 2
    for arrival in jobs.store.arrivals(submitted[0].submission):
        content = arrival.outcome.content
        assert content is not None
        assert content.inline == b'{"key":"%s","attempt":1,"twice":%d}' % (
            arrival.job_id.encode(),
            2 * arrival.position,
        )
    assert jobs.metric("worker", "ai_worker_lease_losses_total") == 0
    assert jobs.metric("worker", "ai_worker_redeliveries_total") == 0
    assert jobs.metric("worker", "ai_worker_jobs_total") == 2


def test_jobs_that_fail_are_told_with_their_reason_and_kept(jobs: Fleet) -> None:
    """A model that rejects some: FAILED rows, dead letters in the store, an empty dead letter queue."""
    with StubServer(latency_ms=1, rules=[{"do": "status", "status": 422, "ids": [3, 5]}]) as stub:
        jobs.start("worker", name="worker", endpoint=endpoint(stub))
        jobs.start_ready("dispatcher", name="dispatcher", settings={})
        submitted = jobs.submit(8)
        counts = jobs.wait(submitted, deadline_seconds=40)
    assert (counts.completed, counts.failed) == (6, 2)
    failed = [job for job in jobs.store.jobs(submitted[0].submission) if job.state is JobState.FAILED]
    assert [(job.position, job.reason) for job in failed] == [(3, "rejected"), (5, "rejected")]
    letters = jobs.opened.dead_letters()
    wait_until(lambda: len(letters.letters(most=9)) == 2, deadline_seconds=20, what="dead letters are kept")
    assert {letter.job_id for letter in letters.letters(most=9)} == {job.job_id for job in failed}
    wait_until(lambda: jobs.transport.dead_letters.depth() == 0, deadline_seconds=20, what="the queue is drained")
