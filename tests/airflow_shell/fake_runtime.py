"""A stand-in for the runtime: it answers at once, remembers what it was asked, and fails where a test says so."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from airflow_provider_ai.core.manifest import FileSlice, Manifest, Partition, SourceFile
from airflow_provider_ai.core.report import (
    BatchReport,
    PartitionReport,
    PlanReference,
    Progress,
    PublishReport,
    StopToken,
)

OnProgress = Callable[[Progress], None]
ROWS = 100


@dataclass
class FakeRuntime:
    """``partitions`` of 100 rows each. ``fail``: phase → what it raises. ``jobs``: phase → the jobs it was given."""

    partitions: int = 2
    fail: dict[str, BaseException] = field(default_factory=dict)
    jobs: dict[str, list[Any]] = field(default_factory=dict)
    asked: list[tuple[Any, ...]] = field(default_factory=list)
    threads: set[str] = field(default_factory=set)

    def _enter(self, phase: str, job: Any, *arguments: Any) -> None:
        self.jobs.setdefault(phase, []).append(job)
        self.asked.append((phase, *arguments))
        self.threads.add(threading.current_thread().name)
        if phase in self.fail:
            raise self.fail[phase]

    def plan_batch(self, job: Any, *, verb: str, run_key: str, on_progress: OnProgress) -> PlanReference:
        self._enter("plan", job, verb, run_key)
        return PlanReference(
            run=run_key,
            directory=f"{job.checkpoint.uri}k1",
            fingerprint="f" * 32,
            epoch=1 if verb == "recompute" else 0,
            round=1 if verb == "retry_failed" else 0,
            scope="dt=2026-03-01-12345678",
            partitions=self.partitions,
            rows=ROWS * self.partitions,
        )

    def load_manifest(self, _store: Any, plan: PlanReference) -> Manifest:
        file = SourceFile(path="lake/dt=2026-03-01/part-0.parquet", size=1, version="1", rows=plan.rows)
        cuts = [FileSlice(file=0, start=i * ROWS, end=(i + 1) * ROWS) for i in range(plan.partitions)]
        return Manifest(
            input_uri="lake",
            format="parquet",
            id_column="visit_id",
            schema=(),
            files=(file,),
            partitions=tuple(Partition(index=i, slices=(cut,)) for i, cut in enumerate(cuts)),
            listing="1",
        )

    def infer_partition(
        self, job: Any, plan: PlanReference, index: int, *, on_progress: OnProgress, stop: StopToken
    ) -> PartitionReport:
        self._enter("infer", job, plan, index)
        on_progress(Progress(phase="infer", done=1, quarantined=0, total=ROWS))
        return PartitionReport(
            index=index, rows=ROWS, succeeded=ROWS - 1, quarantined=1, requests=ROWS, reused=0, seconds=0.5
        )

    def publish_batch(
        self, job: Any, plan: PlanReference, *, run_id: str, on_progress: OnProgress, stop: StopToken
    ) -> PublishReport:
        self._enter("publish", job, plan, run_id)
        rows = (ROWS - 1) * plan.partitions
        return PublishReport(published=rows, written=rows, partitions=plan.partitions, seconds=0.5)

    def reconcile_batch(self, job: Any, plan: PlanReference) -> BatchReport:
        self._enter("reconcile", job, plan)
        rows, quarantined = ROWS * plan.partitions, plan.partitions
        return BatchReport(
            records=rows,
            succeeded=rows - quarantined,
            quarantined=quarantined,
            requests=rows,
            reused=0,
            published=rows - quarantined,
            seconds=1.0,
        )
