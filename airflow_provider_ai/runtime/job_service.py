"""Where a deployment's jobs go and where they are kept, and what is opened from that by whoever submits and waits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from airflow_provider_ai.adapters.queues import open_transport
from airflow_provider_ai.adapters.store import open_store
from airflow_provider_ai.adapters.store.jobs import StoredJobs
from airflow_provider_ai.core.audit import Actor
from airflow_provider_ai.core.audit_settings import AuditSettings
from airflow_provider_ai.core.claim_settings import ClaimCheckSettings
from airflow_provider_ai.core.config import StorageOptions
from airflow_provider_ai.core.job_claims import count
from airflow_provider_ai.core.job_ports import Ended, JobStore
from airflow_provider_ai.core.jobs import JobCounts
from airflow_provider_ai.core.transport_settings import TransportSettings
from airflow_provider_ai.runtime.auditing import Audit
from airflow_provider_ai.runtime.request_reply import STORE_TIMEOUT_SECONDS, JobClient, open_job_client

if TYPE_CHECKING:
    from airflow_provider_ai.core.key_settings import KeySettings


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSettings:
    """A deployment.

    :param store: SQLAlchemy URL; it may hold a password
    :param claim_check: folder of large payloads and results, and of plans of datasets
    :param keys: encrypt what is sent and kept; None for all in clear
    :param storage: how that folder, and datasets, are reached on S3
    :param audit: None for no audit
    """

    transport: TransportSettings
    store: str = field(repr=False)
    claim_check: ClaimCheckSettings
    storage: StorageOptions | None = None
    keys: KeySettings | None = None
    audit: AuditSettings | None = None

    def audited_by(self, actor: Actor | None, *, role: str) -> Audit | None:
        """The audit of what somebody does, or a service in this role; None when it is off."""
        who = actor or Actor(kind="service", role=role)
        return None if self.audit is None else Audit(settings=self.audit, actor=who)


def open_client(settings: JobSettings, *, actor: Actor | None = None) -> JobClient:
    """Submits, waits and collects. Nothing is connected before the first call.

    :param actor: who does, for the audit
    """
    return open_job_client(
        transport=settings.transport,
        store=settings.store,
        claim_check=settings.claim_check,
        storage=settings.storage,
        keys=settings.keys,
        audit=settings.audited_by(actor, role="submitter"),
    )


@contextmanager
def open_jobs(store: str) -> Iterator[StoredJobs]:
    """The jobs in the store behind a URL."""
    opened = open_store(store, timeout_seconds=STORE_TIMEOUT_SECONDS)
    try:
        yield opened.jobs()
    finally:
        opened.close()


class SingleJobs:
    """Counts for waits that are for one job each, in place of those for a submission."""

    def __init__(self, jobs: JobStore) -> None:
        self._jobs = jobs

    def counts(self, job_ids: Sequence[str]) -> Mapping[str, JobCounts]:
        """The counts of each job that is known: one job, ended or pending."""
        states = self._jobs.arrived(job_ids).items()
        return {name: count(1, {} if state is None else {state: 1}) for name, state in states}


@contextmanager
def open_single_jobs(store: str) -> Iterator[SingleJobs]:
    """Likewise, for whoever waits for single jobs."""
    with open_jobs(store) as jobs:
        yield SingleJobs(jobs)


def ended_submissions(settings: JobSettings, *, since: float) -> Mapping[str, Ended]:
    """Submissions to a deployment all of whose jobs have ended, the last of them after ``since`` (epoch seconds)."""
    with open_jobs(settings.store) as jobs:
        return jobs.ended(since=since, queue=settings.transport.request_queue)


def cancel_jobs(store: str, submission: str) -> int:
    """Cancel the jobs of a submission that have not begun; how many."""
    with open_jobs(store) as jobs:
        return jobs.cancel(submission)


def check_service(settings: JobSettings) -> str:
    """Reach store and queues once; what waits in them, for people. Raises StoreError and QueueError."""
    store, transport = open_store(settings.store), open_transport(settings.transport)
    try:
        store.prepare()
        queues = (transport.requests, transport.results, transport.dead_letters)
        depths = ", ".join(f"{queue.name} about {queue.depth():,}" for queue in queues)
        return f"The store is {store.where}; messages: {depths}"
    finally:
        transport.close()
        store.close()
