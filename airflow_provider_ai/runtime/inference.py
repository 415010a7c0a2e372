"""Partitions opened, claimed and given to the engine."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from typing import Any

from airflow_provider_ai.adapters.checkpoints.partition import PartitionCheckpoint, try_open
from airflow_provider_ai.adapters.checkpoints.plans import PlanStore
from airflow_provider_ai.adapters.crypto.opening import open_codec
from airflow_provider_ai.core.identity import partition_label
from airflow_provider_ai.core.manifest import Manifest
from airflow_provider_ai.core.ports import RowBlock
from airflow_provider_ai.core.report import PlanReference, StopToken
from airflow_provider_ai.exceptions import StoppedError
from airflow_provider_ai.patterns.audited_batch import BatchFacts, PartitionAudit
from airflow_provider_ai.patterns.auditing import Auditor
from airflow_provider_ai.patterns.inference_engine import InferenceEngine, RunOpener
from airflow_provider_ai.patterns.tally import Tally
from airflow_provider_ai.patterns.work import Journal, PartitionRun
from airflow_provider_ai.runtime.auditing import auditing
from airflow_provider_ai.runtime.job import (
    BatchJob,
    OnProgress,
    open_plans,
    read_seals,
    report_progress,
    writing_checkpoints,
)
from airflow_provider_ai.runtime.process import returned_memory, undisturbed_loop

log = logging.getLogger(__name__)

_PROGRESS_SECONDS = 0.5
_BUSY_POLL_SECONDS = 0.5
_BUSY_LOG_SECONDS = 30.0


def infer(
    job: BatchJob,
    plan: PlanReference,
    manifest: Manifest,
    indexes: Sequence[int],
    on_progress: OnProgress | None,
    stop: StopToken,
    *,
    tally: Tally | None = None,
) -> tuple[Tally, float]:
    """Infer partitions in one event loop; the tally and the seconds it took."""
    from airflow_provider_ai.adapters.endpoints.opening import open_endpoint

    started = time.monotonic()
    tally = tally or Tally(job.endpoint)
    store = open_plans(job)
    total = sum(manifest.partitions[index].rows for index in indexes)
    with auditing(job.audit) as auditor:
        openers = _openers(job, plan, manifest, store, indexes, tally, _PartitionAudits(job, auditor, stop))
        if not openers:
            return tally, time.monotonic() - started
        store.prepare()

        async def main() -> None:
            async with open_endpoint(job.endpoint, max_response_bytes=job.limits.max_response_bytes) as endpoint:
                engine = InferenceEngine(
                    endpoint=endpoint,
                    settings=job.endpoint,
                    request=job.request,
                    limits=job.limits,
                    quarantine_allowance=job.limits.quarantine_allowance(plan.rows),
                    sync_seconds=job.checkpoint.interval_seconds,
                    stop=stop,
                    tally=tally,
                )
                await engine.run(openers, on_tick=_ticker(engine, tally, total, on_progress))

        _run_in_loop(main)
    return tally, time.monotonic() - started


class _PartitionAudits:
    """Puts the audit between a partition and the engine, where it is on."""

    def __init__(self, job: BatchJob, auditor: Auditor, stop: StopToken) -> None:
        self._job = job
        self._auditor = auditor
        self._stop = stop

    def around(
        self, journal: Journal, blocks: Iterator[RowBlock], *, label: str, id_column: str
    ) -> tuple[Journal, Iterator[RowBlock]]:
        """The partition's journal and blocks, audited."""
        if not self._auditor.on:
            return journal, blocks
        facts = BatchFacts(model=self._job.endpoint.model, prompt_hash=self._job.prompt_hash, reference=label)
        audit = PartitionAudit(self._auditor, facts, id_column=id_column, stop=self._stop)
        return audit.journal(journal), audit.blocks(blocks)


def _openers(
    job: BatchJob,
    plan: PlanReference,
    manifest: Manifest,
    store: PlanStore,
    indexes: Sequence[int],
    tally: Tally,
    audits: _PartitionAudits,
) -> list[RunOpener]:
    """What opens each partition that is not finished; the finished ones go straight into the tally."""
    openers: list[RunOpener] = []
    for index, sealed in zip(indexes, read_seals(store, plan, indexes), strict=True):
        if sealed is None:
            openers.append(_opener(job, plan, manifest, store, index, audits))
        else:
            tally.finished_before(succeeded=sealed.succeeded, quarantined=sealed.quarantined)
    return openers


def _opener(
    job: BatchJob, plan: PlanReference, manifest: Manifest, store: PlanStore, index: int, audits: _PartitionAudits
) -> RunOpener:
    def open_partition(halted: Callable[[], bool]) -> PartitionRun:
        from airflow_provider_ai.adapters.datasets import DatasetReader

        part = manifest.partitions[index]
        checkpoint = _claim(store, plan, index, part.rows, halted)
        reader = DatasetReader(job.storage, columns=job.columns)
        label = partition_label(plan.scope, plan.fingerprint, index)
        blocks = reader.blocks(manifest, part, done=checkpoint.done)
        journal, blocks = audits.around(checkpoint, blocks, label=label, id_column=manifest.id_column)
        return PartitionRun(
            index=index,
            rows=part.rows,
            journal=journal,
            blocks=blocks,
            id_column=manifest.id_column,
            key_of=open_codec(job.keys).record_key,
            label=label,
        )

    return open_partition


def _claim(
    store: PlanStore, plan: PlanReference, index: int, rows: int, halted: Callable[[], bool]
) -> PartitionCheckpoint:
    """The partition's checkpoint; waits while another live runner works on it, for then its answers come for free."""
    files = store.files(plan, index)
    holder = f"{socket.gethostname()} pid {os.getpid()}"
    logged = float("-inf")
    while True:
        with writing_checkpoints():
            checkpoint = try_open(files, rows=rows, round_=plan.round, holder=holder)
        if checkpoint is not None:
            return checkpoint
        if halted():
            raise StoppedError("stopped while another runner was working on the partition; a retry resumes")
        if time.monotonic() - logged > _BUSY_LOG_SECONDS:
            log.info("another runner is working on partition %d of this plan; waiting to take its results", index)
            logged = time.monotonic()
        time.sleep(_BUSY_POLL_SECONDS)


def _ticker(engine: InferenceEngine, tally: Tally, total: int, on_progress: OnProgress | None) -> Callable[[], None]:
    last = float("-inf")

    def tick() -> None:
        nonlocal last
        now = time.monotonic()
        if on_progress is None or now - last < _PROGRESS_SECONDS:
            return
        last = now
        rate = tally.rate(now)
        report_progress(
            on_progress,
            phase="infer",
            done=tally.done,
            quarantined=tally.quarantined,
            total=total,
            records_per_second=rate,
            eta_seconds=(total - tally.done) / rate if rate > 0 else None,
            concurrency=engine.concurrency,
            in_flight=engine.in_flight,
            prompt_tokens=tally.prompt_tokens,
            completion_tokens=tally.completion_tokens,
            cost_usd=tally.cost_usd,
        )

    return tick


def _run_in_loop(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    # Not uvloop: it writes at the end of a turn of the loop, so calls leave in bunches and the endpoint waits for them.
    with undisturbed_loop(), returned_memory():
        asyncio.run(main())
