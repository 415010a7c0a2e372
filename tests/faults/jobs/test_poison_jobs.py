"""Jobs that kill their worker: they end as failed, with that reason, and whoever else was in flight is done."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

from airflow_provider_ai.core.jobs import JobState
from tests.faults.jobs.support.opening import pack
from tests.faults.jobs.support.pack import CONCURRENCY
from tests.support.ministack import MiniStack

DEADLY, INNOCENT = range(900, 901), range(20)
ATTEMPTS = 3


def test_a_job_that_kills_its_worker_ends(tmp_path: Path, ministack_server: MiniStack) -> None:
    """After max_attempts deaths; its reason reaches the waiter, and its message the dead letters."""
    with pack(tmp_path, ministack_server, seed=0, latency_ms=200) as jobs:
        jobs.submit("innocent", INNOCENT)
        jobs.submit("deadly", DEADLY, deadly=True)
        jobs.tend_until(lambda: jobs.done("submit-innocent", "submit-deadly"), deadline_seconds=60, what="submitted")
        worker = jobs.worker("worker", max_attempts=ATTEMPTS, visibility_timeout_seconds=2)
        for key in ("innocent", "deadly"):
            jobs.wait(key)
        jobs.tend_until(
            lambda: all(job.state.final for key in jobs.inputs for job in jobs.jobs(key)),
            deadline_seconds=90,
            what="all jobs ended",
        )
        states = {key: Counter(job.state for job in jobs.jobs(key)) for key in jobs.inputs}
        print(states, worker.started)
        assert states["deadly"] == {JobState.FAILED: len(DEADLY)}
        assert {job.reason for job in jobs.jobs("deadly")} == {"attempts_exhausted"}
        assert worker.started == 1 + ATTEMPTS
        assert states["innocent"] == {JobState.SUCCEEDED: len(INNOCENT)}
        calls = sum(jobs.stub.counts("called").values())
        assert calls <= len(INNOCENT) + 2 * CONCURRENCY * ATTEMPTS
        told = jobs.output("deadly")
        jobs.tend_until(told.exists, deadline_seconds=60, what="the waiter was told")
        assert json.loads(told.read_text())["reason"] == "attempts_exhausted"
