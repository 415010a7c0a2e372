"""Replies into a warehouse table: the batch pattern's publishing, fed from the inbox instead of from checkpoints.

Some thousand neighbouring jobs are one partition, replaced in one transaction with its marker, so landing a submission
twice, or from two processes, leaves one copy of every row. Jobs without a result have no row; they are counted by
reason, and ``rows + failed = jobs`` is checked.

Replies are read twice, for their types and for their values, and never held beyond a page.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import orjson

from airflow_provider_ai.adapters.checkpoints.segments import good_table, output_columns
from airflow_provider_ai.core.arrow_arrays import array_of
from airflow_provider_ai.core.identity import record_key
from airflow_provider_ai.core.job_ports import ContentCodec, JobStore
from airflow_provider_ai.core.jobs import Job, JobState, origin_of
from airflow_provider_ai.core.manifest import FileSlice, Manifest, Partition, SourceFile
from airflow_provider_ai.core.outcomes import Succeeded
from airflow_provider_ai.core.ports import Sink
from airflow_provider_ai.core.report import PlanReference, QuarantineReason, StopToken
from airflow_provider_ai.core.requests.values import flaw
from airflow_provider_ai.exceptions import ReconciliationError
from airflow_provider_ai.patterns.batch_inference import (
    FinishedPartition,
    Provenance,
    check_published,
    merge_reasons,
    publish,
)
from airflow_provider_ai.patterns.collecting import CollectedReply, collect
from airflow_provider_ai.patterns.lineage import MODEL
from airflow_provider_ai.patterns.request_reply import PAYLOAD

if TYPE_CHECKING:
    import pyarrow as pa

JOB_ID = "job_id"
OUTPUT = "output"
ROWS_PER_PARTITION = 10_000
_PAGE = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Landed:
    """What stands in the table: ``rows + failed = jobs``. Small, JSON-able, without data: fit for XCom.

    :param written: rows written by this call; the others stood there already
    :param reasons: of jobs without a row, most frequent first
    """

    jobs: int
    rows: int
    failed: int
    written: int
    partitions: int
    reasons: Mapping[str, int]


def requests_manifest(
    submission: str, jobs: int, *, source: str = "requests", rows_per_partition: int = ROWS_PER_PARTITION
) -> Manifest:
    """How the rows of a submission whose requests were no dataset are laid out: their id is the job's.

    :param source: where the requests came from: ``_source_file`` of every row
    """
    starts = range(0, jobs, rows_per_partition)
    cuts = [FileSlice(file=0, start=start, end=min(jobs, start + rows_per_partition)) for start in starts]
    return Manifest(
        input_uri=source,
        format="jsonl",
        id_column=JOB_ID,
        schema=((JOB_ID, "string"),),
        files=(SourceFile(path=source, size=0, version=submission, rows=jobs),),
        partitions=tuple(Partition(index=index, slices=(cut,)) for index, cut in enumerate(cuts)),
        listing=submission,
    )


def land_replies(
    store: JobStore,
    contents: ContentCodec,
    submission: str,
    sink: Sink,
    provenance: Provenance,
    *,
    manifest: Manifest | None = None,
    scope: str | None = None,
    stop: StopToken | None = None,
    record_key: Callable[[object], str] = record_key,
) -> Landed:
    """Bring a table to what the submission's replies are. Every job must be final.

    :param manifest: of the dataset that was submitted: its id column names the rows, its partitions are the table's.
        None for requests that were no dataset
    :param provenance: ``_model`` of a row is what its worker says, whatever this says
    :param scope: the slice of the table that belongs to the input, of which older runs' rows are removed; None for the
        submission's own
    :param record_key: the opaque name of a row's record
    :raises ReconciliationError: jobs are pending, or there are more or fewer of them than the dataset has rows
    :raises SinkError: the warehouse refuses the rows. SinkUnavailableError: a retry lands them
    """
    jobs = _final_jobs(store, submission, manifest)
    manifest = manifest or requests_manifest(submission, jobs)
    plan = PlanReference(
        run=submission,
        directory="",
        fingerprint=manifest.fingerprint,
        epoch=0,
        round=0,
        scope=scope or f"jobs-{submission}",
        partitions=len(manifest.partitions),
        rows=jobs,
    )
    replies = [
        _Replies(store, contents, submission, part, start, record_key) for part, start in _starts(manifest.partitions)
    ]
    parts = [
        FinishedPartition(
            index=each.partition.index, sealed=each.sealed(), tables=partial(each.tables, manifest.id_column)
        )
        for each in replies
    ]
    done = publish(plan, manifest, parts, sink, provenance, on_done=lambda _: None, stop=stop or StopToken())
    sealed = [part.sealed for part in parts]
    rows = check_published(plan, sealed, sink.publications(plan.scope))
    reasons = merge_reasons(reason for each in sealed for reason in each.reasons)
    return Landed(
        jobs=jobs,
        rows=rows,
        failed=jobs - rows,
        written=done.written,
        partitions=done.partitions,
        reasons={reason.error_class: reason.count for reason in reasons},
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sealed:
    """What publishing asks of a partition."""

    rows: int
    succeeded: int
    quarantined: int
    columns: tuple[tuple[str, str], ...]
    reasons: tuple[QuarantineReason, ...]
    content: str


@dataclass(frozen=True, slots=True)
class _Replies:
    """The replies of one partition: the positions ``[start, start + partition.rows)``."""

    store: JobStore
    contents: ContentCodec
    submission: str
    partition: Partition
    start: int
    record_key: Callable[[object], str]

    @property
    def end(self) -> int:
        return self.start + self.partition.rows

    def sealed(self) -> _Sealed:
        """What publishing must know beforehand."""
        rows = 0
        columns: dict[tuple[str, str], None] = {}
        reasons: Counter[str] = Counter()
        content = hashlib.sha256()
        for page in self._pages():
            good = [reply for reply in page if _why_not(reply) is None]
            reasons.update(word for reply in page if (word := _why_not(reply)) is not None)
            content.update("".join(f"{reply.job_id}/{reply.sha256}/{reply.model}\n" for reply in page).encode())
            table = self._table(good, dict.fromkeys((reply.position for reply in good), 0))
            columns.update(((name, kind), None) for name, kind in output_columns(table.schema))
            rows += len(good)
        self._require_all(rows, reasons.total())
        return _Sealed(
            rows=self.partition.rows,
            succeeded=rows,
            quarantined=reasons.total(),
            columns=tuple(columns),
            reasons=tuple(QuarantineReason(error_class=word, status=None, count=n) for word, n in reasons.items()),
            content=content.hexdigest()[:32],
        )

    def tables(self, id_column: str) -> Iterator[pa.Table]:
        """Rows of the replies with an output, a page at a time."""
        for page in self._pages():
            good = [reply for reply in page if _why_not(reply) is None]
            if good:
                yield self._table(good, self._ids(good, id_column))

    def _pages(self) -> Iterator[list[CollectedReply]]:
        for start in range(self.start, self.end, _PAGE):
            end = min(self.end, start + _PAGE)
            yield list(collect(self.store, self.contents, self.submission, start=start, end=end))

    def _table(self, replies: Sequence[CollectedReply], ids: Mapping[int, Any]) -> pa.Table:
        import pyarrow as pa

        table = good_table([self._outcome(reply, ids[reply.position]) for reply in replies])
        return table.append_column(MODEL, array_of([reply.model for reply in replies]).cast(pa.string()))

    def _outcome(self, reply: CollectedReply, name: Any) -> Succeeded:
        return Succeeded(
            rows=[reply.position - self.start],
            keys=[self.record_key(name)],
            ids=[name],
            outputs=[_columns(reply)],
            inferred_at=round(reply.arrived_at * 1e6),
        )

    def _ids(self, replies: Sequence[CollectedReply], id_column: str) -> dict[int, Any]:
        """What each reply's row is called: the job, or what the request itself says."""
        if id_column == JOB_ID:
            return {reply.position: reply.job_id for reply in replies}
        first, last = replies[0].position, replies[-1].position
        jobs = self.store.jobs(self.submission, after=first - 1, most=last - first + 1)
        wanted = {reply.position for reply in replies}
        return {job.position: self._request(job)[id_column] for job in jobs if job.position in wanted}

    def _request(self, job: Job) -> Any:
        return orjson.loads(self.contents.unpack(job.payload, kind=PAYLOAD, job_id=job.job_id, origin=origin_of(job)))

    def _require_all(self, rows: int, failed: int) -> None:
        if rows + failed != self.partition.rows:
            raise ReconciliationError(
                f"{rows} replies and {failed} failures are not the {self.partition.rows} jobs of partition "
                f"{self.partition.index}; a retry looks again"
            )


def _final_jobs(store: JobStore, submission: str, manifest: Manifest | None) -> int:
    counts = store.counts([submission])[submission]
    if counts.pending or not counts.jobs:
        raise ReconciliationError(
            f"{counts.pending} of {counts.jobs} jobs are pending: nothing is published before all have ended"
        )
    if manifest is not None and manifest.rows != counts.jobs:
        raise ReconciliationError(
            f"the dataset has {manifest.rows} rows and the submission {counts.jobs} jobs: nothing is published"
        )
    return counts.jobs


def _starts(partitions: tuple[Partition, ...]) -> Iterator[tuple[Partition, int]]:
    """Each partition, and the position of its first row in the submission."""
    start = 0
    for partition in partitions:
        yield partition, start
        start += partition.rows


def _columns(reply: CollectedReply) -> dict[str, Any]:
    """An object's members are columns; any other output is one."""
    return reply.output if isinstance(reply.output, dict) else {OUTPUT: reply.output}


def _why_not(reply: CollectedReply) -> str | None:
    """Why a reply has no row: it has no output, or one that cannot stand in a table."""
    if reply.state is not JobState.SUCCEEDED:
        return reply.reason or reply.state.value
    return flaw(_columns(reply), nul=True)
