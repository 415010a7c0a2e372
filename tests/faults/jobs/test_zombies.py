"""A worker that is frozen past its lease, while its calls are answered, and wakes up when others have done its jobs."""

from __future__ import annotations

from pathlib import Path

import pytest

from airflow_provider_ai.core.jobs import JobState
from tests.faults.jobs.support.invariants import problems
from tests.faults.jobs.support.opening import pack
from tests.faults.jobs.support.scenarios import zombie
from tests.support.ministack import MiniStack


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_a_zombie_cannot_overwrite(
    tmp_path: Path, ministack_server: MiniStack, request: pytest.FixtureRequest, kind: str
) -> None:
    """What it comes to say is not believed, nor published; it goes on as a worker like any other."""
    url = request.getfixturevalue("postgres_url") if kind == "postgresql" else None
    with pack(tmp_path, ministack_server, seed=0, store_url=url, latency_ms=1200) as jobs:
        zombie(jobs)
        assert problems(jobs) == []
        for job in jobs.jobs("frozen"):
            assert (job.state, job.fence) == (JobState.SUCCEEDED, 2)
        assert all(b'"attempt":2' in (job.result.inline or b"") for job in jobs.jobs("frozen") if job.result)
        [after] = jobs.jobs("after")
        assert after.fence == 1
