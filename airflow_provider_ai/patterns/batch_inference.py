"""The batch pattern after inference: publish what the checkpoints hold, and check that it all adds up.

Publishing reads only checkpoints and so never costs an inference call, however often a dead warehouse makes it start
again. ``succeeded + quarantined = input`` is checked for every partition before anything is published, and the rows
that really stand in the table are counted afterwards.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar

from airflow_provider_ai.core.config import Limits
from airflow_provider_ai.core.identity import partition_label
from airflow_provider_ai.core.manifest import Manifest
from airflow_provider_ai.core.ports import Publication, PublishUnit, Sink
from airflow_provider_ai.core.report import PlanReference, PublishReport, QuarantineReason, StopToken
from airflow_provider_ai.exceptions import (
    QuarantineThresholdError,
    ReconciliationError,
    SinkUnavailableError,
    StoppedError,
)
from airflow_provider_ai.patterns.lineage import Lineage, output_types, row_schema, rows_of

if TYPE_CHECKING:
    import pyarrow as pa

T = TypeVar("T")
log = logging.getLogger(__name__)

_SINK_WAITS_SECONDS = (1.0, 2.0, 4.0, 8.0, 15.0)
_NAMED = 5


class Sealed(Protocol):
    """What a finished partition says of itself."""

    @property
    def rows(self) -> int: ...
    @property
    def succeeded(self) -> int: ...
    @property
    def quarantined(self) -> int: ...
    @property
    def columns(self) -> tuple[tuple[str, str], ...]: ...
    @property
    def reasons(self) -> tuple[QuarantineReason, ...]: ...
    @property
    def content(self) -> str: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class FinishedPartition:
    """A partition to publish: its seal, and its segments as tables, one at a time."""

    index: int
    sealed: Sealed
    tables: Callable[[], Iterator[pa.Table]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """What is the same on every row of a run."""

    run_id: str
    model: str
    prompt_hash: str
    schema_version: str


def finished_partitions(
    plan: PlanReference, manifest: Manifest, seals: Sequence[Sealed | None], limits: Limits
) -> list[Sealed]:
    """The seals of all partitions, checked: none is missing, each adds up, the run's quarantine is within bounds."""
    missing = [index for index, sealed in enumerate(seals) if sealed is None]
    if missing:
        raise ReconciliationError(
            f"{len(missing)} of {len(seals)} partitions are not finished ({_some(missing)}): nothing is published. "
            "A retry of their infer tasks resumes them"
        )
    whole = [sealed for sealed in seals if sealed is not None]
    wrong = [
        index
        for index, (sealed, part) in enumerate(zip(whole, manifest.partitions, strict=True))
        if sealed.rows != part.rows or sealed.succeeded + sealed.quarantined != part.rows
    ]
    if wrong:
        raise ReconciliationError(
            f"succeeded + quarantined = input does not hold in partitions {_some(wrong)} of {plan.directory}"
        )
    _check_quarantine(plan, whole, limits)
    return whole


def publish(
    plan: PlanReference,
    manifest: Manifest,
    partitions: Iterable[FinishedPartition],
    sink: Sink,
    provenance: Provenance,
    *,
    on_done: Callable[[int], None],
    stop: StopToken,
) -> PublishReport:
    """Bring the table to what the partitions hold. Partitions that stand there already are left alone.

    :param on_done: told the rows that stand in the table after each partition
    """
    started = time.monotonic()
    parts = list(partitions)
    columns = [column for part in parts for column in part.sealed.columns]
    schema = row_schema(manifest, output_types(columns, reserved=manifest.id_column))
    there = _patiently(lambda: sink.publications(plan.scope), stop)
    written = published = 0
    for part in parts:
        label = partition_label(plan.scope, plan.fingerprint, part.index)
        if not _stands(there.get(label), part.sealed):
            written += _publish_one(plan, manifest, part, sink, schema, _lineage(provenance, label), stop)
        published += part.sealed.succeeded
        on_done(published)
    _patiently(lambda: sink.prune(plan.scope, plan=plan.fingerprint), stop)
    seconds = time.monotonic() - started
    return PublishReport(published=published, written=written, partitions=len(parts), seconds=seconds)


def check_published(plan: PlanReference, seals: Sequence[Sealed], there: dict[str, Publication]) -> int:
    """Rows that stand in the table; ReconciliationError, naming the partitions, when they are not what was inferred."""
    wrong = []
    for index, sealed in enumerate(seals):
        found = there.get(partition_label(plan.scope, plan.fingerprint, index))
        if not _stands(found, sealed):
            rows = "no marker" if found is None else f"{found.rows_present} rows"
            wrong.append(f"partition {index}: {sealed.succeeded} rows succeeded, the table has {rows}")
    if wrong:
        more = f" and {len(wrong) - _NAMED} more" if len(wrong) > _NAMED else ""
        raise ReconciliationError(
            f"the table does not hold what was inferred: {'; '.join(wrong[:_NAMED])}{more}. "
            "A retry of the publish task writes them again without calling the model"
        )
    return sum(sealed.succeeded for sealed in seals)


def _publish_one(
    plan: PlanReference,
    manifest: Manifest,
    part: FinishedPartition,
    sink: Sink,
    schema: pa.Schema,
    lineage: Lineage,
    stop: StopToken,
) -> int:
    unit = PublishUnit(
        scope=plan.scope,
        partition=lineage.partition,
        plan=plan.fingerprint,
        content=part.sealed.content,
        rows=part.sealed.succeeded,
        run_id=lineage.run_id,
    )
    planned = manifest.partitions[part.index]

    def load() -> int:
        return sink.publish(unit, schema, rows_of(part.tables(), schema, manifest, planned, lineage))

    return _patiently(load, stop)


def _patiently(work: Callable[[], T], stop: StopToken) -> T:
    """Do it; when the warehouse is unavailable, again after a while."""
    for wait in _SINK_WAITS_SECONDS:
        if stop.stopped:
            raise StoppedError(f"stopped ({stop.reason}); a retry publishes the rest without calling the model")
        try:
            return work()
        except SinkUnavailableError as error:
            log.warning("warehouse unavailable, trying again in %.0f s: %s", wait, error)
            stop.wait(wait)
    return work()


def _stands(found: Publication | None, sealed: Sealed) -> bool:
    return (
        found is not None and found.content == sealed.content and found.rows == found.rows_present == sealed.succeeded
    )


def _lineage(provenance: Provenance, label: str) -> Lineage:
    return Lineage(
        run_id=provenance.run_id,
        partition=label,
        model=provenance.model,
        prompt_hash=provenance.prompt_hash,
        schema_version=provenance.schema_version,
    )


def _check_quarantine(plan: PlanReference, seals: Sequence[Sealed], limits: Limits) -> None:
    quarantined = sum(sealed.quarantined for sealed in seals)
    allowed = limits.quarantine_allowance(plan.rows)
    if quarantined > allowed:
        reasons = merge_reasons(reason for sealed in seals for reason in sealed.reasons)
        frequent = ", ".join(f"{reason.error_class} × {reason.count}" for reason in reasons[:3])
        raise QuarantineThresholdError(
            f"{quarantined} of {plan.rows} records are quarantined, {allowed} are allowed "
            f"(max_quarantined_fraction = {limits.max_quarantined_fraction:g}); most frequent: {frequent}. Nothing "
            "is published, what was paid for is kept. Fix the cause and run with verb retry_failed, or allow a larger "
            "fraction"
        )


def merge_reasons(reasons: Iterable[QuarantineReason]) -> list[QuarantineReason]:
    """Counts of equal reasons added up, most frequent first."""
    counts: dict[tuple[str, int | None], int] = {}
    for reason in reasons:
        name = (reason.error_class, reason.status)
        counts[name] = counts.get(name, 0) + reason.count
    merged = [QuarantineReason(error_class=name, status=status, count=n) for (name, status), n in counts.items()]
    return sorted(merged, key=lambda reason: (-reason.count, reason.error_class, reason.status or 0))


def _some(indexes: Sequence[int]) -> str:
    more = ", …" if len(indexes) > _NAMED else ""
    return ", ".join(str(index) for index in indexes[:_NAMED]) + more
