"""The client's side of the asynchronous pattern, put together: store, request queue and claim checks behind a class.

What an operator, the command line and a service of one's own use alike. Nothing is connected before the first call.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from types import TracebackType
from typing import TYPE_CHECKING, Any

from airflow_provider_ai.adapters.claim_checks import InlineOrClaimCheck, StoredClaimChecks
from airflow_provider_ai.adapters.crypto.opening import open_codec
from airflow_provider_ai.adapters.queues import open_transport
from airflow_provider_ai.adapters.store import open_store
from airflow_provider_ai.core.claim_settings import ClaimCheckSettings
from airflow_provider_ai.core.config import StorageOptions
from airflow_provider_ai.core.identity import record_key
from airflow_provider_ai.core.job_ports import ContentCodec, JobStore, MessageQueue
from airflow_provider_ai.core.job_waiting import WaitPolicy, WaitVerdict
from airflow_provider_ai.core.jobs import JobCounts, JobState
from airflow_provider_ai.core.manifest import Manifest
from airflow_provider_ai.core.ports import Sink
from airflow_provider_ai.core.report import StopToken
from airflow_provider_ai.core.transport_settings import TransportSettings
from airflow_provider_ai.patterns.audited_jobs import audited_jobs
from airflow_provider_ai.patterns.audited_sink import AuditedSink
from airflow_provider_ai.patterns.auditing import Auditor
from airflow_provider_ai.patterns.batch_inference import Provenance
from airflow_provider_ai.patterns.collecting import CollectedReply, collect, count_reasons, failures
from airflow_provider_ai.patterns.patience import patiently
from airflow_provider_ai.patterns.request_reply import Submission, Submitted, Submitter, wait
from airflow_provider_ai.runtime.auditing import Audit, open_auditor

if TYPE_CHECKING:
    from airflow_provider_ai.core.key_settings import KeySettings
    from airflow_provider_ai.runtime.reply_table import Landed

STORE_TIMEOUT_SECONDS = 15.0
"""For a client that waits for many anyway: longer than a writer of SQLite keeps others out."""
_AGAIN_AT_ONCE = 500


class JobClient:
    """Submits requests, waits for their replies and collects them. Thread-safe.

    :param close: called at the end
    :param record_key: the opaque name of a record in a table
    :param auditor: what is submitted, read and landed is then audited; None for no audit
    """

    def __init__(
        self,
        *,
        store: JobStore,
        queue: MessageQueue,
        contents: ContentCodec,
        close: Sequence[Callable[[], None]] = (),
        record_key: Callable[[object], str] = record_key,
        auditor: Auditor | None = None,
    ) -> None:
        self._record_key = record_key
        self.auditor = auditor or open_auditor(None)
        self.store = audited_jobs(store, self.auditor)
        self.contents = contents
        self._queue = queue
        self._close = close

    def submit(
        self,
        submission: Submission,
        requests: Iterable[Any],
        *,
        on_submitted: Callable[[Sequence[str]], None] | None = None,
        stop: StopToken | None = None,
    ) -> Submitted:
        """Submit; see :meth:`airflow_provider_ai.patterns.request_reply.Submitter.submit`."""
        return self._submitter().submit(submission, requests, on_submitted=on_submitted, stop=stop)

    def submit_again(self, key: str, states: Collection[JobState], *, stop: StopToken | None = None) -> int:
        """Submit the jobs that ended in one of ``states`` once more, as the next generation; how many."""
        stop, submitter = stop or StopToken(), self._submitter()
        ended = (failure.job_id for failure in self.failures(key) if failure.state in states)
        total = 0
        while some := list(islice(ended, _AGAIN_AT_ONCE)):
            jobs = patiently(partial(self.store.redrive, some), stop)
            submitter.send([job for job in jobs if job.state is JobState.PENDING and not job.sent], stop=stop)
            total += len(jobs)
        return total

    def wait(
        self,
        key: str,
        policy: WaitPolicy,
        *,
        deadline: float | None = None,
        expected: int | None = None,
        on_look: Callable[[JobCounts], None] | None = None,
        stop: StopToken | None = None,
    ) -> WaitVerdict:
        """Wait; see :func:`airflow_provider_ai.patterns.request_reply.wait`."""
        return wait(self.store, key, policy, deadline=deadline, expected=expected, on_look=on_look, stop=stop)

    def expires_at(self, key: str) -> float | None:
        """Until when the jobs of a submission may begin, epoch seconds; None for an unknown one, or for ever."""
        first = self.store.jobs(key, most=1)
        return first[0].expires_at if first else None

    def counts(self, key: str) -> JobCounts:
        """How a submission stands, for whoever waits."""
        return self.store.counts([key]).get(key, JobCounts())

    def replies(self, key: str) -> Iterator[CollectedReply]:
        """The replies that have arrived, in order of their requests."""
        return collect(self.store, self.contents, key)

    def failures(self, key: str) -> Iterator[CollectedReply]:
        """The jobs that ended without a result, in order, with their reasons."""
        return failures(self.store, key)

    def reasons(self, key: str) -> dict[str, int]:
        """How many jobs ended without a result, by reason."""
        return count_reasons(self.store, key)

    def land(
        self,
        key: str,
        sink: Sink,
        provenance: Provenance,
        *,
        manifest: Manifest | None = None,
        scope: str | None = None,
        stop: StopToken | None = None,
    ) -> Landed:
        """Bring a table to the replies; see :func:`airflow_provider_ai.runtime.reply_table.land_replies`."""
        from airflow_provider_ai.runtime.reply_table import land_replies

        if self.auditor.on:
            sink = AuditedSink(sink, self.auditor, model=provenance.model, prompt_hash=provenance.prompt_hash or None)
        return land_replies(
            self.store,
            self.contents,
            key,
            sink,
            provenance,
            manifest=manifest,
            scope=scope,
            stop=stop,
            record_key=self._record_key,
        )

    def cancel(self, key: str) -> int:
        """Cancel the jobs that have not begun; how many."""
        return self.store.cancel(key)

    def close(self) -> None:
        """Let connections go."""
        for close in self._close:
            close()
        self.auditor.close()

    def _submitter(self) -> Submitter:
        return Submitter(store=self.store, queue=self._queue, contents=self.contents)

    def __enter__(self) -> JobClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_job_client(
    *,
    transport: TransportSettings,
    store: str,
    claim_check: ClaimCheckSettings | None = None,
    storage: StorageOptions | None = None,
    keys: KeySettings | None = None,
    audit: Audit | None = None,
) -> JobClient:
    """A client of a deployment.

    :param store: SQLAlchemy URL; the same for submitter, worker and dispatcher
    :param claim_check: the same as well; without a folder what is too large for a message is an error
    :param keys: the same as well; None for payloads and results in clear
    :param audit: None for no audit
    :raises SpecError: for settings that cannot be right
    """
    codec = open_codec(keys)
    queues = open_transport(transport)
    opened = open_store(store, timeout_seconds=STORE_TIMEOUT_SECONDS, codec=codec)
    claim_check = claim_check or ClaimCheckSettings()
    checks = None if claim_check.uri is None else StoredClaimChecks(claim_check.uri, storage)
    return JobClient(
        store=opened.jobs(),
        queue=queues.requests,
        contents=InlineOrClaimCheck(checks, codec=codec, inline_limit_bytes=claim_check.inline_limit_bytes),
        close=(queues.close, opened.close),
        record_key=codec.record_key,
        auditor=open_auditor(audit),
    )
