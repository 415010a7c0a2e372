"""What a resume would find: read from checkpoints and warehouse, changing neither."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from airflow_provider_ai.adapters.checkpoints.partition import peek
from airflow_provider_ai.adapters.checkpoints.plans import PlanPointer, PlanStore
from airflow_provider_ai.core.identity import digest, partition_label, scope_name
from airflow_provider_ai.core.manifest import Manifest
from airflow_provider_ai.core.report import BatchStatus, PartitionStatus, PlanReference, QuarantineReason
from airflow_provider_ai.exceptions import InputError, SinkError
from airflow_provider_ai.patterns.batch_inference import merge_reasons
from airflow_provider_ai.runtime.job import BatchJob, open_plans, open_warehouse

log = logging.getLogger(__name__)

WAREHOUSE_WAIT_SECONDS = 6.0  # a publisher keeps a DuckDB file for at most five seconds after its last partition


@dataclass(frozen=True, slots=True)
class Outcomes:
    """What the checkpoints of a partition hold in the current round."""

    succeeded: int
    quarantined: int
    reasons: tuple[QuarantineReason, ...]


def batch_status(job: BatchJob) -> BatchStatus:
    """What a resume would find. Changes nothing; safe beside a running batch."""
    store = open_plans(job)
    pointer = store.pointer(run_key_of(job))
    manifest = None if pointer is None else store.manifest(pointer.key, fingerprint=pointer.fingerprint)
    if pointer is None or manifest is None:
        return BatchStatus(plan="none", input_changed=False, partitions=(), quarantine=())
    plan = _reference(job, store, pointer, manifest)
    there, warehouse = _publications(job, plan.scope)
    partitions: list[PartitionStatus] = []
    reasons: list[QuarantineReason] = []
    for part in manifest.partitions:
        found = outcomes_of(store, plan, part.index, part.rows)
        label = partition_label(plan.scope, plan.fingerprint, part.index)
        partitions.append(
            PartitionStatus(
                index=part.index,
                label=label,
                rows=part.rows,
                succeeded=found.succeeded,
                quarantined=found.quarantined,
                published=label in there and there[label] == found.succeeded,
            )
        )
        reasons += found.reasons
    return BatchStatus(
        plan="complete" if pointer.complete else "unfinished",
        input_changed=_input_changed(job, manifest),
        partitions=tuple(partitions),
        quarantine=tuple(merge_reasons(reasons)),
        warehouse=warehouse,
    )


def run_key_of(job: BatchJob) -> str:
    """The name under which the command line remembers the plan of an input: a second call finds the first one's."""
    source = job.input
    return digest(
        "cli",
        source.uri,
        source.id_column,
        source.format,
        source.rows_per_partition,
        source.max_partitions,
        job.columns,
    )


def _input_changed(job: BatchJob, manifest: Manifest) -> bool:
    """Whether the input is not as it was planned, or cannot be listed; how it differs is logged."""
    from airflow_provider_ai.adapters.datasets import input_difference

    try:
        difference = input_difference(manifest, job.input, job.storage)
    except InputError as error:
        difference = str(error)
    if difference is not None:
        log.warning("the input is not as it was planned: %s", difference)
    return difference is not None


def _reference(job: BatchJob, store: PlanStore, pointer: PlanPointer, manifest: Manifest) -> PlanReference:
    current = store.current_pass(pointer.key)
    return PlanReference(
        run=run_key_of(job),
        directory=store.directory(pointer.key),
        fingerprint=pointer.fingerprint,
        epoch=current.epoch,
        round=current.round,
        scope=scope_name(job.input.uri, job.input.id_column),
        partitions=len(manifest.partitions),
        rows=manifest.rows,
    )


def outcomes_of(store: PlanStore, plan: PlanReference, index: int, rows: int) -> Outcomes:
    """The outcomes of one partition, from its seal or from all of its files."""
    files = store.files(plan, index)
    sealed = files.sealed(plan.round)
    if sealed is not None:
        return Outcomes(sealed.succeeded, sealed.quarantined, sealed.reasons)
    found = peek(files, rows=rows, round_=plan.round)
    return Outcomes(len(found.succeeded), len(found.given_up), found.reasons)


def _publications(job: BatchJob, scope: str) -> tuple[dict[str, int], str | None]:
    """Rows that stand in the table by partition, or why that could not be read."""
    try:
        sink = open_warehouse(job, lock_wait_seconds=WAREHOUSE_WAIT_SECONDS)
        try:
            return {name: found.rows_present for name, found in sink.publications(scope).items()}, None
        finally:
            sink.close()
    except SinkError as error:
        return {}, str(error)
