"""A worker and a dispatcher that die between any two of their steps. Nobody looks for what was lost: no reconciler."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.jobs.support.deaths import OF_DISPATCHER, OF_WORKER
from tests.faults.jobs.support.invariants import problems
from tests.faults.jobs.support.opening import pack
from tests.faults.jobs.support.pack import Pack
from tests.support.kafka import KafkaCluster
from tests.support.ministack import MiniStack

JOBS = range(12)
NO_RECONCILER = {"resend_after_seconds": 3600.0, "deliver_after_seconds": 3600.0}
COMMITTED_SECONDS = 1.5  # after which a stored offset is sure to be committed
SOON = {"visibility_timeout_seconds": 1, "concurrency": 1}


@pytest.fixture
def store_url(request: pytest.FixtureRequest) -> str | None:
    return request.getfixturevalue("postgres_url") if request.param == "postgresql" else None


@pytest.mark.parametrize("store_url", ["sqlite", "postgresql"], indirect=True)
def test_whatever_step_was_the_last_one(tmp_path: Path, ministack_server: MiniStack, store_url: str | None) -> None:
    """Redelivery alone finishes it: only what was called and not recorded is called again."""
    with pack(tmp_path, ministack_server, seed=0, store_url=store_url, latency_ms=5) as jobs:
        jobs.faults = {"die": {"points": [*OF_WORKER, *OF_DISPATCHER], "folder": str(tmp_path)}}
        jobs.submit("deaths", JOBS)
        jobs.tend_until(lambda: jobs.done("submit-deaths"), deadline_seconds=60, what="submitted")
        worker = jobs.worker("worker", **SOON)
        dispatcher = jobs.dispatcher("dispatcher", **{**NO_RECONCILER, "visibility_timeout_seconds": 1})
        wait(jobs, "deaths")
        assert {file.name for file in tmp_path.glob("died-*")} == {
            f"died-{point}" for point in (*OF_WORKER, *OF_DISPATCHER)
        }
        assert worker.started == 1 + len(OF_WORKER)
        assert dispatcher.started == 1 + len(OF_DISPATCHER)
        assert problems(jobs, deaths=len(OF_WORKER)) == []
        calls = sum(jobs.stub.counts("called").values())
        assert len(JOBS) < calls <= len(JOBS) + 2 * len(OF_WORKER), "one is handled, and one recorded beside it"


def test_kafka_is_told_last(tmp_path: Path, kafka_cluster: KafkaCluster) -> None:
    """Offsets are committed by a thread that goes on while a process stands still between two steps: none too early."""
    points = ("completed", "deleted", *OF_DISPATCHER)
    with pack(tmp_path, kafka_cluster, seed=0, latency_ms=5) as jobs:
        jobs.faults = {"die": {"points": points, "folder": str(tmp_path), "linger_seconds": COMMITTED_SECONDS}}
        jobs.submit("deaths", JOBS)
        jobs.worker("worker", **SOON)
        jobs.dispatcher("dispatcher", **NO_RECONCILER)
        jobs.tend_until(lambda: jobs.done("submit-deaths"), deadline_seconds=60, what="submitted")
        wait(jobs, "deaths")
        assert {file.name for file in tmp_path.glob("died-*")} == {f"died-{point}" for point in points}
        assert problems(jobs, deaths=1) == []
        assert sum(jobs.stub.counts("called").values()) <= len(JOBS) + 1, (
            "one is handled beside the one that is recorded"
        )


def wait(jobs: Pack, key: str) -> None:
    """No dispatcher of its own: it would bring the replies in."""
    file = str(jobs.output(key))
    jobs.add(f"wait-{key}", *f"jobs wait -- --key {key} --timeout 90 --no-dispatcher --quiet --output {file}".split())
    jobs.tend_until(lambda: jobs.done(f"wait-{key}"), deadline_seconds=100, what="all jobs ended")
