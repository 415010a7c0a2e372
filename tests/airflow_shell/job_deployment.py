"""A deployment of jobs for tests of the shells: queues in memory, a store in SQLite, claim checks in a folder."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_ai.adapters.claim_checks import InlineOrClaimCheck, StoredClaimChecks
from airflow_provider_ai.adapters.store import open_store
from airflow_provider_ai.adapters.store.store import Store
from airflow_provider_ai.core.job_ports import Transport
from airflow_provider_ai.core.jobs import JobState, Outcome
from airflow_provider_ai.core.messages import decode_request
from airflow_provider_ai.runtime import dead_letter_look, dead_letters, dispatcher, job_service, request_reply
from airflow_provider_ai.testing import InMemoryQueue


class _Shared(InMemoryQueue):
    """Outlives those who close it."""

    def close(self) -> None:
        pass


@dataclass
class JobDeployment:
    """What is behind connection ``ai_jobs``."""

    folder: Path
    transport: Transport
    inline_limit: int = 65_536
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def store_file(self) -> Path:
        return self.folder / "store.db"

    @contextmanager
    def store(self) -> Iterator[Store]:
        store = open_store(f"sqlite:///{self.store_file}")
        yield store
        store.close()

    @property
    def contents(self) -> InlineOrClaimCheck:
        return InlineOrClaimCheck(StoredClaimChecks(str(self.folder / "claims")), inline_limit_bytes=self.inline_limit)

    def requests(self) -> list[Any]:
        """The payloads of the messages in the request queue, in any order, however often each."""
        found = [decode_request(delivery.body) for delivery in self.transport.requests.peek(most=1_000_000)]
        return [
            json.loads(self.contents.unpack(message.payload, kind="payload", job_id=message.job_id))
            for message in found
        ]

    def finish(self, submission: str, outputs: Sequence[Any] | Callable[[Any], Any]) -> None:
        """End the jobs of a submission: with an output, or (a JobState) without one; None: not at all."""
        with self.store() as store:
            jobs = store.jobs().jobs(submission, most=1_000_000)
            for number, job in enumerate(jobs):
                request = json.loads(self.contents.unpack(job.payload, kind="payload", job_id=job.job_id))
                output = outputs(request) if callable(outputs) else outputs[number]
                if output is not None:
                    store.jobs().receive(job.job_id, self._outcome(output, job.job_id), via="test")

    def _outcome(self, output: Any, job_id: str) -> Outcome:
        if isinstance(output, JobState):
            return Outcome(state=output, reason=f"was_{output.value}")
        content = self.contents.pack(json.dumps(output).encode(), kind="result", job_id=job_id)
        return Outcome(state=JobState.SUCCEEDED, content=content)


@pytest.fixture
def jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, set_connection: Callable[..., None]) -> JobDeployment:
    """Behind connection ``ai_jobs``, with its store behind ``ai_store``."""
    queues = {name: _Shared(name) for name in ("requests", "results", "dead")}
    transport = Transport(requests=queues["requests"], results=queues["results"], dead_letters=queues["dead"])
    for module in (request_reply, dispatcher, job_service, dead_letter_look, dead_letters):
        monkeypatch.setattr(module, "open_transport", lambda _settings: transport)
    deployment = JobDeployment(folder=tmp_path, transport=transport)
    deployment.extra = {
        "request_queue": "requests",
        "result_queue": "results",
        "dead_letter_queue": "dead",
        "claim_check_uri": str(tmp_path / "claims"),
    }
    set_connection("ai_jobs", conn_type="ai_jobs", host="http://127.0.0.1:9", extra=deployment.extra)
    set_connection("ai_store", conn_type="sqlite", host=str(deployment.store_file))
    return deployment
