"""The batch pattern, wired: settings in, adapters opened, the pattern run. Command line and operators call this.

Every function may be called from any thread and blocks until it is done. What a plan decided (partition boundaries,
epoch, round) comes from the checkpoint folder, so each step can run in another process, on another day.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from airflow_provider_ai.adapters.checkpoints.plans import PlanPointer, PlanStore, key_of
from airflow_provider_ai.core.config import Verb
from airflow_provider_ai.core.identity import checkpoint_key, scope_name
from airflow_provider_ai.core.manifest import Manifest
from airflow_provider_ai.core.ports import Sink
from airflow_provider_ai.core.report import BatchReport, PartitionReport, PlanReference, PublishReport, StopToken
from airflow_provider_ai.exceptions import AIProviderError, SpecError, StoppedError
from airflow_provider_ai.patterns.audited_sink import AuditedSink
from airflow_provider_ai.patterns.auditing import Auditor
from airflow_provider_ai.patterns.batch_inference import (
    FinishedPartition,
    check_published,
    finished_partitions,
    publish,
)
from airflow_provider_ai.patterns.tally import Tally
from airflow_provider_ai.runtime.allowance import require_allowance
from airflow_provider_ai.runtime.auditing import auditing
from airflow_provider_ai.runtime.inference import infer
from airflow_provider_ai.runtime.job import (
    BatchJob,
    OnProgress,
    load_manifest,
    open_plans,
    open_warehouse,
    provenance,
    report_progress,
    writing_checkpoints,
)
from airflow_provider_ai.runtime.process import returned_memory
from airflow_provider_ai.runtime.status import batch_status, run_key_of

__all__ = [
    "BatchJob",
    "batch_status",
    "infer_partition",
    "plan_batch",
    "publish_batch",
    "reconcile_batch",
    "run_batch",
]


def plan_batch(
    job: BatchJob,
    *,
    verb: Verb = "resume",
    run_key: str,
    on_progress: OnProgress | None = None,
    stop: StopToken | None = None,
) -> PlanReference:
    """Make the run's plan, or find it again: the same run sees the same partitions while its input is the same.

    Raises InputChangedError when files changed since an unfinished plan, and the InputError that says what is wrong
    with the dataset; StoppedError between two files.
    """
    from airflow_provider_ai.adapters.datasets import plan_dataset

    def go_on(files: int = 0, total: int = 0) -> None:
        if stop is not None and stop.stopped:
            raise StoppedError(f"stopped ({stop.reason}) while planning; nothing was called, a retry plans again")

    go_on()
    store = open_plans(job)
    pointer = store.pointer(run_key)
    manifest = None
    if pointer is not None and verb != "recompute":
        manifest = _planned_before(job, store, pointer)
    if manifest is None:
        manifest = plan_dataset(job.input, job.storage, needed_columns=job.columns, on_progress=go_on)
    fingerprint = manifest.fingerprint
    key = checkpoint_key(fingerprint=fingerprint, request=job.request.identity(), endpoint=job.endpoint.identity())
    with writing_checkpoints():
        store.save_manifest(key, manifest)
        current = store.begin(key, verb)
        complete = pointer is not None and pointer.complete and pointer.key == key and verb == "resume"
        store.point(run_key, PlanPointer(key=key, fingerprint=fingerprint, listing=manifest.listing, complete=complete))
    report_progress(on_progress, phase="plan", done=manifest.rows, quarantined=0, total=manifest.rows)
    return PlanReference(
        run=run_key,
        directory=store.directory(key),
        fingerprint=fingerprint,
        epoch=current.epoch,
        round=current.round,
        scope=scope_name(job.input.uri, job.input.id_column),
        partitions=len(manifest.partitions),
        rows=manifest.rows,
    )


def infer_partition(
    job: BatchJob,
    plan: PlanReference,
    index: int,
    *,
    on_progress: OnProgress | None = None,
    stop: StopToken | None = None,
) -> PartitionReport:
    """Call the model for every row of one partition that has no outcome yet, and seal the partition."""
    manifest = load_manifest(open_plans(job), plan)
    if not 0 <= index < len(manifest.partitions):
        raise SpecError(f"partition must be in [0, {len(manifest.partitions)}), got {index}")
    tally, seconds = infer(job, plan, manifest, [index], on_progress, stop or StopToken())
    return PartitionReport(
        index=index,
        rows=manifest.partitions[index].rows,
        succeeded=tally.succeeded,
        quarantined=tally.quarantined,
        requests=tally.requests,
        reused=tally.reused,
        seconds=seconds,
        prompt_tokens=tally.prompt_tokens,
        completion_tokens=tally.completion_tokens,
        cost_usd=tally.cost_usd,
    )


@returned_memory()
def publish_batch(
    job: BatchJob,
    plan: PlanReference,
    *,
    run_id: str,
    on_progress: OnProgress | None = None,
    stop: StopToken | None = None,
    sink: Sink | None = None,
) -> PublishReport:
    """Write the finished partitions to the warehouse. Calls no model; running it twice leaves one copy.

    :param sink: the job's, already open; it stays open
    """
    manifest = load_manifest(open_plans(job), plan)
    store = open_plans(job)
    files = [store.files(plan, part.index) for part in manifest.partitions]
    seals = [file.sealed(plan.round) for file in files]
    finished_partitions(plan, manifest, seals, job.limits)
    parts = [
        FinishedPartition(index=i, sealed=sealed, tables=lambda f=file, s=sealed: f.good_tables(s))  # type: ignore[misc]
        for i, (file, sealed) in enumerate(zip(files, seals, strict=True))
        if sealed is not None
    ]
    with _warehouse(job, sink) as warehouse, auditing(job.audit) as auditor:
        return publish(
            plan,
            manifest,
            parts,
            _audited(warehouse, auditor, job),
            provenance(job, run_id),
            on_done=lambda rows: report_progress(
                on_progress, phase="publish", done=rows, quarantined=0, total=plan.rows
            ),
            stop=stop or StopToken(),
        )


def _audited(sink: Sink, auditor: Auditor, job: BatchJob) -> Sink:
    if not auditor.on:
        return sink
    return AuditedSink(sink, auditor, model=job.endpoint.model, prompt_hash=job.prompt_hash)


@contextmanager
def _warehouse(job: BatchJob, sink: Sink | None) -> Iterator[Sink]:
    """The sink that is open already, or one for as long as it is used."""
    if sink is not None:
        yield sink
        return
    opened = open_warehouse(job)
    try:
        yield opened
    finally:
        opened.close()


def reconcile_batch(job: BatchJob, plan: PlanReference, *, sink: Sink | None = None) -> BatchReport:
    """Check that every input row has one outcome and every success stands in the table; mark the run complete.

    :param sink: the job's, already open; it stays open
    """
    started = time.monotonic()
    manifest = load_manifest(open_plans(job), plan)
    store = open_plans(job)
    seals = [store.files(plan, part.index).sealed(plan.round) for part in manifest.partitions]
    whole = finished_partitions(plan, manifest, seals, job.limits)
    with _warehouse(job, sink) as warehouse:
        published = check_published(plan, whole, warehouse.publications(plan.scope))
    with writing_checkpoints():
        store.point(
            plan.run,
            PlanPointer(key=key_of(plan), fingerprint=plan.fingerprint, listing=manifest.listing, complete=True),
        )
    return BatchReport(
        records=plan.rows,
        succeeded=sum(sealed.succeeded for sealed in whole),
        quarantined=sum(sealed.quarantined for sealed in whole),
        requests=0,
        reused=plan.rows,
        published=published,
        seconds=time.monotonic() - started,
    )


def run_batch(
    job: BatchJob, *, verb: Verb = "resume", on_progress: OnProgress | None = None, stop: StopToken | None = None
) -> BatchReport:
    """Plan, infer, publish and reconcile in this process. Errors after planning carry a ``report``."""
    started = time.monotonic()
    stop = stop or StopToken()
    tally = Tally(job.endpoint)
    plan = plan_batch(job, verb=verb, run_key=run_key_of(job), on_progress=on_progress, stop=stop)
    rows, published = plan.rows, 0
    try:
        manifest = load_manifest(open_plans(job), plan)
        threading.Thread(target=_warm_up, args=(job,), name="ai-warm-up", daemon=True).start()
        require_allowance(job, plan, manifest, tally)
        with auditing(job.audit):  # one chain for all steps
            infer(job, plan, manifest, range(plan.partitions), on_progress, stop, tally=tally)
            with _warehouse(job, None) as sink:
                done = publish_batch(job, plan, run_id=_run_id(), on_progress=on_progress, stop=stop, sink=sink)
                published = done.published
                reconcile_batch(job, plan, sink=sink)
    except AIProviderError as error:
        error.report = _batch_report(tally, rows, published, started)
        raise
    return _batch_report(tally, rows, published, started)


def _planned_before(job: BatchJob, store: PlanStore, pointer: PlanPointer) -> Manifest | None:
    """The manifest the run made before, or None when it should plan anew."""
    from airflow_provider_ai.adapters.datasets import listing_digest, rewritten_files, verify_unchanged

    manifest = store.manifest(pointer.key, fingerprint=pointer.fingerprint)
    if manifest is None:
        return None
    if not pointer.complete:
        verify_unchanged(manifest, job.input, job.storage)
        return manifest
    same = listing_digest(job.input, job.storage) == pointer.listing and not rewritten_files(manifest, job.storage)
    return manifest if same else None


def _warm_up(job: BatchJob) -> None:
    """Load while the calls wait what sealing and publishing need later: half a second of imports.

    After what the first call needs, for two threads that import take turns and are both late.
    """
    from airflow_provider_ai.adapters.endpoints import http  # noqa: F401

    with suppress(AIProviderError, ImportError):
        open_warehouse(job).close()


def _run_id() -> str:
    """A name for a run outside Airflow: start time (UTC) and eight random hex digits."""
    return f"cli__{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())}__{uuid.uuid4().hex[:8]}"


def _batch_report(tally: Tally, rows: int, published: int, started: float) -> BatchReport:
    return BatchReport(
        records=rows,
        succeeded=tally.succeeded,
        quarantined=tally.quarantined,
        requests=tally.requests,
        reused=tally.reused,
        published=published,
        seconds=time.monotonic() - started,
    )
