"""Before anything is called: do the partitions of a run together hold more quarantined records than are allowed?

The engine counts partitions as it opens them, one after the other. A run that ended because of several partitions
together would therefore, when it is started again, call for the first of them before it has seen the last.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from airflow_provider_ai.adapters.checkpoints import segments
from airflow_provider_ai.adapters.checkpoints.partition_files import PartitionFiles
from airflow_provider_ai.core.manifest import Manifest
from airflow_provider_ai.core.outcomes import Quarantined
from airflow_provider_ai.core.report import PlanReference, QuarantineReason
from airflow_provider_ai.exceptions import QuarantineThresholdError
from airflow_provider_ai.patterns.batch_inference import merge_reasons
from airflow_provider_ai.patterns.tally import Tally
from airflow_provider_ai.runtime.job import READERS, BatchJob, open_plans, read_seals
from airflow_provider_ai.runtime.status import outcomes_of


def require_allowance(job: BatchJob, plan: PlanReference, manifest: Manifest, tally: Tally) -> None:
    """QuarantineThresholdError, with the counts in the tally, when too many records are in quarantine already.

    Reads the seals of finished partitions, and of the others what can hold quarantined records: not their outputs.
    """
    store = open_plans(job)
    files = [store.files(plan, part.index) for part in manifest.partitions]
    allowed = job.limits.quarantine_allowance(plan.rows)
    seals = read_seals(store, plan, range(plan.partitions))
    begun = [file for file, sealed in zip(files, seals, strict=True) if sealed is None]
    with ThreadPoolExecutor(READERS, thread_name_prefix="ai-allowance") as pool:
        # The engine reads the first of them before it calls anything, and knows what the seals say.
        others = sum(pool.map(lambda file: _at_most(file, plan.round), begun[1:]))
    if not others:
        return
    sealed_before = sum(sealed.quarantined for sealed in seals if sealed is not None)
    if sealed_before + others + _at_most(begun[0], plan.round) > allowed:
        _count(job, plan, manifest, tally, allowed)


def _at_most(files: PartitionFiles, round_: int) -> int:
    """How many rows of a partition have been quarantined in this round, some of which may have succeeded later."""
    rows: set[int] = set()
    for name in files.storage.names():
        found: list[Quarantined] = []
        if name.startswith("bad-"):
            found = segments.quarantined(segments.from_bytes(files.segment(name)))
        elif name.endswith(".wal") and (log := files.outcomes(name)) is not None:
            found = [outcome for outcome in log.outcomes if isinstance(outcome, Quarantined)]
        rows.update(outcome.row for outcome in found if outcome.round == round_)
    return len(rows)


def _count(job: BatchJob, plan: PlanReference, manifest: Manifest, tally: Tally, allowed: int) -> None:
    """Count exactly. The tally keeps the counts only when they end the run: else the engine counts."""
    store = open_plans(job)
    found = [outcomes_of(store, plan, part.index, part.rows) for part in manifest.partitions]
    quarantined = sum(outcomes.quarantined for outcomes in found)
    if quarantined > allowed:
        tally.finished_before(succeeded=sum(outcomes.succeeded for outcomes in found), quarantined=quarantined)
        reasons = merge_reasons(reason for outcomes in found for reason in outcomes.reasons)
        raise QuarantineThresholdError(_message(job, quarantined, allowed, reasons))


def _message(job: BatchJob, quarantined: int, allowed: int, reasons: list[QuarantineReason]) -> str:
    frequent = ", ".join(f"{reason.error_class} × {reason.count}" for reason in reasons[:3])
    return (
        f"{quarantined} records are in quarantine since earlier runs, {allowed} are allowed "
        f"(max_quarantined_fraction = {job.limits.max_quarantined_fraction:g}); most frequent: {frequent}. Nothing was "
        "called: fix the cause and run with verb retry_failed, or allow a larger fraction"
    )
