"""Parts of the asynchronous pattern in memory, and the little that is missing to put them together."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from airflow_provider_ai.adapters.claim_checks import InlineOrClaimCheck
from airflow_provider_ai.core.jobs import Content, Job, JobState, Outcome
from airflow_provider_ai.core.messages import decode_request
from airflow_provider_ai.testing import InMemoryClaimChecks, InMemoryJobStore, InMemoryQueue


class Contents(InlineOrClaimCheck):
    """Remembers what was unpacked."""

    def __init__(self, *, inline_limit: int = 65_536) -> None:
        self.claims = InMemoryClaimChecks()
        self.unpacked: list[str] = []
        super().__init__(self.claims, inline_limit_bytes=inline_limit)

    def unpack(self, content: Content, *, kind: str, job_id: str, origin: str | None = None) -> bytes:
        self.unpacked.append(job_id)
        return super().unpack(content, kind=kind, job_id=job_id, origin=origin)


@dataclass
class Deployment:
    """A store, a queue and contents."""

    store: InMemoryJobStore = field(default_factory=InMemoryJobStore)
    queue: InMemoryQueue = field(default_factory=InMemoryQueue)
    contents: Contents = field(default_factory=Contents)

    def messages(self) -> list[str]:
        """Ids of the messages in the queue, however often each."""
        found = self.queue.peek(most=1_000_000)
        return [decode_request(delivery.body).job_id for delivery in found]

    def finish(self, submission: str, outputs: Sequence[Any]) -> None:
        """End the jobs of a submission: with an output, or (a JobState) without one."""
        for job, output in zip(self.store.jobs(submission, most=1_000_000), outputs, strict=True):
            self.store.receive(job.job_id, self._outcome(job, output), via="test")

    def _outcome(self, job: Job, output: Any) -> Outcome:
        if isinstance(output, JobState):
            return Outcome(state=output, reason=f"was_{output.value}")
        data = json.dumps(output).encode()
        return Outcome(state=JobState.SUCCEEDED, content=self.contents.pack(data, kind="result", job_id=job.job_id))
