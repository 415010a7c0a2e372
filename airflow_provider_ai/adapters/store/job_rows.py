"""Between rows of ``ai_jobs`` and the values of :mod:`airflow_provider_ai.core.jobs`."""

from __future__ import annotations

from typing import Any, Literal

from airflow_provider_ai.core.job_claims import Lease
from airflow_provider_ai.core.job_ports import Arrival
from airflow_provider_ai.core.jobs import Content, Job, JobState, NewJob, Outcome

_Prefix = Literal["payload", "result"]


def new_row(job: NewJob) -> dict[str, Any]:
    """The columns of a job that is submitted, as far as they differ from one to the next."""
    return {
        "job_id": job.job_id,
        "queue": job.queue,
        "submission": job.submission,
        "position": job.position,
        "generation": job.generation,
        "predecessor": job.predecessor,
        "expires_at": job.expires_at,
        "tenant": job.group,
        "webhook": job.webhook,
        **_columns("payload", job.payload),
    }


def outcome_values(outcome: Outcome) -> dict[str, Any]:
    """Parameters ``new_…`` of a statement that records an outcome."""
    columns = {"state": outcome.state.value, "reason": outcome.reason, "model": outcome.model}
    columns |= _columns("result", outcome.content)
    return {f"new_{name}": value for name, value in columns.items()}


def job_of(row: Any) -> Job:
    """A whole row as a job."""
    payload = _content(row, "payload")
    assert payload is not None  # noqa: S101 - the column is NOT NULL
    return Job(
        job_id=row.job_id,
        submission=row.submission,
        position=row.position,
        generation=row.generation,
        state=JobState(row.state),
        payload=payload,
        attempts=row.attempts,
        abandoned=row.abandoned,
        fence=row.fence,
        expires_at=row.expires_at,
        group=row.tenant,
        webhook=row.webhook,
        sent=row.sent,
        result=_content(row, "result"),
        reason=row.reason,
        model=row.model,
        predecessor=row.predecessor,
        queue=row.queue,
    )


def outcome_of(row: Any) -> Outcome | None:
    """The outcome in a row that has at least those columns; None while there is none."""
    return _outcome(row) if JobState(row.state).final else None


def lease_of(row: Any) -> Lease:
    """The lease that a row speaks of."""
    return Lease(until=row.lease_until, seconds=row.lease_seconds)


def arrival_of(row: Any) -> Arrival:
    """A row whose outcome has arrived: it is the job's own."""
    return Arrival(job_id=row.job_id, outcome=_outcome(row), position=row.position, arrived_at=row.touched_at)


def _outcome(row: Any) -> Outcome:
    state, content = JobState(row.state), _content(row, "result")
    return Outcome(state=state, content=content, reason=row.reason, model=row.model)


def _columns(prefix: _Prefix, content: Content | None) -> dict[str, Any]:
    return {
        f"{prefix}_sha256": content and content.sha256,
        f"{prefix}_codec": content and content.codec,
        f"{prefix}_ref": content and content.ref,
        f"{prefix}_inline": content and content.inline,
    }


def _content(row: Any, prefix: _Prefix) -> Content | None:
    sha256, codec, ref, inline = (getattr(row, f"{prefix}_{name}") for name in ("sha256", "codec", "ref", "inline"))
    return None if sha256 is None else Content(sha256=sha256, inline=inline, ref=ref, codec=codec)
