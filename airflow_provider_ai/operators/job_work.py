"""The blocking work of an operator that submits and waits: what it does in its worker thread, and in no other.

Everything here may run again on another attempt, and then finds what is done already: jobs that are in the store are
not submitted twice, rows that stand in the table are not written twice.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

from airflow_provider_ai.core.audit import Actor
from airflow_provider_ai.core.config import InputSettings, SinkSettings
from airflow_provider_ai.core.identity import scope_name
from airflow_provider_ai.core.job_waiting import WaitPolicy, WaitVerdict, without_result
from airflow_provider_ai.core.jobs import JobCounts, JobState
from airflow_provider_ai.core.report import Progress, StopToken
from airflow_provider_ai.exceptions import StoppedError
from airflow_provider_ai.operators.attended import OnProgress
from airflow_provider_ai.patterns.batch_inference import Provenance
from airflow_provider_ai.patterns.request_reply import Submission
from airflow_provider_ai.runtime.embedded_dispatcher import embedded_dispatcher
from airflow_provider_ai.runtime.job_service import JobSettings, open_client
from airflow_provider_ai.runtime.request_reply import JobClient

log = logging.getLogger(__name__)
T = TypeVar("T")

WITHOUT_RESULT = frozenset({JobState.FAILED, JobState.EXPIRED, JobState.CANCELLED})
CANCELLED = frozenset({JobState.CANCELLED})


@dataclass(frozen=True, slots=True, kw_only=True)
class JobDataset:
    """Requests that are the rows of a dataset. ``columns``: those to send besides the id; None for all."""

    input: InputSettings
    columns: Sequence[str] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Submitted:
    """``expected``: jobs there are. ``expires_at``: until when they may begin, epoch seconds."""

    expected: int
    counts: JobCounts
    expires_at: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class JobWork:
    """The work on one submission.

    :param stop: ends the work; what has not begun by then is cancelled, and submitted again by a task that runs again
    :param actor: who does it, for the audit
    """

    settings: JobSettings
    submission: Submission
    stop: StopToken
    actor: Actor | None = None

    @property
    def key(self) -> str:
        """Names the submission."""
        return self.submission.key

    def submit(self, requests: Sequence[Any] | JobDataset, again: frozenset[JobState], note: OnProgress) -> Submitted:
        """Submit what is not there yet, and once more what ended in one of the states ``again``."""

        def call(client: JobClient) -> Submitted:
            before = client.counts(self.key)
            expected, sent = self._submit(client, requests, before, note)
            resent = client.submit_again(self.key, again, stop=self.stop) if without_result(before) else 0
            log.info(
                "Submission %s: %s jobs, %s of them submitted now, %s once more",
                *(self.key, f"{expected:,}", f"{sent:,}", f"{resent:,}"),
            )
            anew = self.submission.expires_at if sent or resent else None
            expires_at = anew or client.expires_at(self.key)
            return Submitted(expected=expected, counts=client.counts(self.key), expires_at=expires_at)

        return self._opened(call)

    def wait(
        self, policy: WaitPolicy, *, deadline: float, expected: int, dispatch: bool, note: OnProgress
    ) -> WaitVerdict:
        """Wait here, as the trigger does elsewhere."""

        def look(counts: JobCounts) -> None:
            done, failed = counts.jobs - counts.pending, without_result(counts)
            note(Progress(phase="wait", done=done, quarantined=failed, total=expected))

        def call(client: JobClient) -> WaitVerdict:
            return client.wait(self.key, policy, deadline=deadline, expected=expected, on_look=look, stop=self.stop)

        with embedded_dispatcher(self.settings) if dispatch else nullcontext():
            return self._opened(call)

    def counts(self) -> JobCounts:
        """How many jobs there are, and how they ended."""
        return self._opened(lambda client: client.counts(self.key))

    def reasons(self) -> dict[str, int]:
        """How many jobs ended without a result, by reason, most frequent first."""
        return self._opened(lambda client: client.reasons(self.key))

    def manifest(self, counts: JobCounts) -> dict[str, Any]:
        """What XCom holds of jobs that have ended: ids, counts and words."""
        reasons = self.reasons() if without_result(counts) else {}
        return {"submission": self.key, **asdict(counts), "reasons": reasons}

    def land(self, sink: SinkSettings, provenance: Provenance) -> dict[str, int]:
        """Bring a table to the replies; how many rows stand there, and how many of them were written now."""
        from airflow_provider_ai.adapters.sinks import open_sink
        from airflow_provider_ai.runtime.job_datasets import JobDatasets

        manifest = JobDatasets(self.settings).planned(self.key)
        scope = None if manifest is None else scope_name(manifest.input_uri, manifest.id_column)
        table = open_sink(sink)
        try:
            landed = self._opened(
                lambda client: client.land(self.key, table, provenance, manifest=manifest, scope=scope, stop=self.stop)
            )
        finally:
            table.close()
        return {"rows": landed.rows, "written": landed.written}

    def _submit(
        self, client: JobClient, requests: Sequence[Any] | JobDataset, before: JobCounts, note: OnProgress
    ) -> tuple[int, int]:
        """How many jobs there are, and how many messages were sent for them now."""
        if not isinstance(requests, JobDataset):
            return self._send(client, requests, len(requests), note)
        from airflow_provider_ai.runtime.job_datasets import JobDatasets

        datasets = JobDatasets(self.settings)
        plan = datasets.plan(self.key, requests.input)
        if before.jobs == plan.rows:
            return plan.rows, 0  # all of them are in the store: a file that has changed since does not matter
        rows = datasets.requests(plan, requests.columns, auditor=client.auditor, submission=self.key)
        return self._send(client, rows, plan.rows, note)

    def _send(self, client: JobClient, requests: Iterable[Any], total: int, note: OnProgress) -> tuple[int, int]:
        told = _Submitting(note, total)
        done = client.submit(self.submission, requests, on_submitted=told, stop=self.stop)
        return done.jobs, done.sent

    def _opened(self, call: Callable[[JobClient], T]) -> T:
        with open_client(self.settings, actor=self.actor) as client:
            try:
                return call(client)
            except StoppedError:
                client.cancel(self.key)
                raise


class _Submitting:
    """Progress of submitting."""

    def __init__(self, note: OnProgress, total: int) -> None:
        self._note = note
        self._total = total
        self._done = 0
        self._began = time.monotonic()

    def __call__(self, ids: Sequence[str]) -> None:
        self._done += len(ids)
        rate = self._done / max(time.monotonic() - self._began, 1e-3)
        self._note(
            Progress(
                phase="submit",
                done=self._done,
                quarantined=0,
                total=self._total,
                records_per_second=rate,
                eta_seconds=(self._total - self._done) / rate,
            )
        )
