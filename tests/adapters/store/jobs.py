"""Jobs for tests of their store."""

from __future__ import annotations

import hashlib
from typing import Any

from airflow_provider_ai.core.job_ports import JobStore
from airflow_provider_ai.core.jobs import Claim, Content, JobState, NewJob, Outcome, job_id, submission_key

SUBMISSION = submission_key("dag", "task", "run", -1)
FAILED = Outcome(state=JobState.FAILED, reason="model_error")


def content(data: bytes) -> Content:
    return Content(sha256=hashlib.sha256(data).hexdigest(), inline=data)


def new_job(position: int = 0, submission: str = SUBMISSION, **more: Any) -> NewJob:
    generation = more.get("generation", 0)
    values = {"payload": content(b"payload %d" % position), **more}
    name = job_id(submission, position, generation=generation)
    return NewJob(job_id=name, submission=submission, position=position, **values)


def new_jobs(number: int, submission: str = SUBMISSION, **more: Any) -> list[NewJob]:
    return [new_job(position, submission, **more) for position in range(number)]


def done(data: bytes = b"result") -> Outcome:
    return Outcome(state=JobState.SUCCEEDED, content=content(data))


def claim(jobs: JobStore, job: NewJob, owner: str = "w1", *, lease: float = 30, attempts: int = 5) -> Claim:
    return jobs.claim(job.job_id, sha256=job.payload.sha256, owner=owner, lease_seconds=lease, max_attempts=attempts)


def granted(jobs: JobStore, job: NewJob, owner: str = "w1", **more: Any) -> int:
    """Its fence."""
    answer = claim(jobs, job, owner, **more)
    assert answer.refusal is None
    return answer.fence


def finish(jobs: JobStore, job: NewJob, outcome: Outcome | None = None) -> Outcome:
    """Claimed and completed, but not yet arrived."""
    fence = granted(jobs, job, "finisher")
    ended = jobs.complete(job.job_id, owner="finisher", fence=fence, outcome=outcome or done())
    assert ended is not None
    return ended
