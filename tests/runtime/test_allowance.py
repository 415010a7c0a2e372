"""A run that holds too many quarantined records calls nothing, wherever in its checkpoints they stand."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from airflow_provider_ai.adapters.checkpoints.partition import PartitionCheckpoint, try_open
from airflow_provider_ai.core.config import (
    CheckpointSettings,
    EndpointSettings,
    InputSettings,
    Limits,
    SinkSettings,
)
from airflow_provider_ai.core.outcomes import Quarantined, Succeeded
from airflow_provider_ai.core.ports import Usage
from airflow_provider_ai.core.report import PlanReference
from airflow_provider_ai.core.requests.json_request import JsonRequest
from airflow_provider_ai.exceptions import QuarantineThresholdError
from airflow_provider_ai.patterns.tally import Tally
from airflow_provider_ai.runtime.allowance import require_allowance
from airflow_provider_ai.runtime.batch_inference import BatchJob, infer_partition, plan_batch, run_batch
from airflow_provider_ai.runtime.job import load_manifest, open_plans
from airflow_provider_ai.runtime.status import run_key_of

PARTITIONS = 4
ROWS = 10  # of a partition
ALLOWED = 4  # of all


@pytest.fixture
def server() -> Iterator[socket.socket]:
    """A port that takes connections and never answers; none may come."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)
        yield listening


@pytest.fixture
def job(tmp_path: Path, server: socket.socket) -> BatchJob:
    path = tmp_path / "visits.parquet"
    pq.write_table(pa.table({"id": list(range(PARTITIONS * ROWS))}), path)
    return BatchJob(
        input=InputSettings(uri=str(path), id_column="id", rows_per_partition=ROWS),
        endpoint=EndpointSettings(url=f"http://127.0.0.1:{server.getsockname()[1]}", protocol="json", model="m"),
        request=JsonRequest(),
        limits=Limits(max_quarantined_fraction=ALLOWED / (PARTITIONS * ROWS)),
        checkpoint=CheckpointSettings(uri=str(tmp_path / "checkpoints")),
        sink=SinkSettings(url=f"sqlite:///{tmp_path}/warehouse.sqlite", table="scores"),
    )


@pytest.fixture
def plan(job: BatchJob) -> PlanReference:
    return plan_batch(job, run_key=run_key_of(job))


def opened(job: BatchJob, plan: PlanReference, index: int, *, rotate_records: int = 1000) -> PartitionCheckpoint:
    files = open_plans(job).files(plan, index)
    lock = files.storage.try_lock("test")
    assert lock is not None
    return PartitionCheckpoint(files, lock, rows=ROWS, round_=plan.round, rotate_records=rotate_records)


def bad(row: int, *, round_: int = 0) -> Quarantined:
    return Quarantined(
        row=row, key=f"k{row}", error_class="rejected", status=400, attempts=1, round=round_, quarantined_at=1
    )


def good(*rows: int) -> Succeeded:
    return Succeeded(
        rows=list(rows),
        keys=[f"k{row}" for row in rows],
        ids=list(rows),
        outputs=[{"score": 0.5} for _ in rows],
        inferred_at=1,
        attempts=1,
        usage=Usage(),
    )


def hold(job: BatchJob, plan: PlanReference, index: int, rows: int, *, stage: str, round_: int = 0) -> None:
    """Leave quarantined records behind in one partition: in its ``log``, a ``segment`` or behind its ``seal``."""
    checkpoint = opened(job, plan, index, rotate_records=1 if stage == "segment" else 1000)
    for row in range(rows):
        checkpoint.record(bad(row, round_=round_))
    if stage == "segment":
        checkpoint.sync()
    if stage == "seal":
        checkpoint.record(good(*range(rows, ROWS)))
        checkpoint.complete()
    checkpoint.close()


def check(job: BatchJob, plan: PlanReference) -> Tally:
    """The tally, which knows something only when the check ends the run."""
    tally = Tally(job.endpoint)
    require_allowance(job, plan, load_manifest(open_plans(job), plan), tally)
    return tally


STAGES = [
    ("log", "log"),
    ("segment", "segment"),
    ("log", "segment"),
    ("seal", "log"),
    ("seal", "segment"),
]


@pytest.mark.parametrize("stages", STAGES)
@pytest.mark.parametrize("last", [1, 3])
def test_too_many_in_several_partitions(
    job: BatchJob, plan: PlanReference, server: socket.socket, stages: tuple[str, str], last: int
) -> None:
    """The whole run ends before its first call, and its report holds the counts."""
    for index, stage in zip((0, last), stages, strict=True):
        hold(job, plan, index, 3, stage=stage)
    with pytest.raises(QuarantineThresholdError, match=f"6 records.*{ALLOWED} are allowed") as caught:
        run_batch(job)
    report = caught.value.report
    assert report is not None
    assert (report.quarantined, report.requests, report.published) == (6, 0, 0)
    assert report.reused == report.succeeded + report.quarantined
    with pytest.raises(BlockingIOError):
        server.accept()


def test_the_reasons_are_named(job: BatchJob, plan: PlanReference) -> None:
    """Added up over the partitions."""
    for index in range(2):
        hold(job, plan, index, 3, stage="log")
    with pytest.raises(QuarantineThresholdError, match=r"rejected × 6.*Nothing was called.*retry_failed"):
        check(job, plan)


@pytest.mark.parametrize("stage", ["log", "segment"])
def test_as_many_as_are_allowed(job: BatchJob, plan: PlanReference, stage: str) -> None:
    """The run goes on, and counts what it opens."""
    for index in range(2):
        hold(job, plan, index, ALLOWED // 2, stage=stage)
    assert check(job, plan).done == 0


def test_those_of_an_earlier_round_do_not_count(job: BatchJob, plan: PlanReference) -> None:
    """retry_failed is to call them again."""
    for index, stage in enumerate(("log", "segment")):
        hold(job, plan, index, 3, stage=stage)
    again = plan_batch(job, verb="retry_failed", run_key=run_key_of(job))
    assert check(job, again).done == 0


def test_those_that_succeeded_after_all_do_not_count(job: BatchJob, plan: PlanReference) -> None:
    """Two runners had them: one gave them up, the other got an answer."""
    for index in range(2):
        hold(job, plan, index, 3, stage="segment")
        checkpoint = opened(job, plan, index, rotate_records=1)
        checkpoint.record(good(0, 1, 2))
        checkpoint.sync()
        checkpoint.close()
    assert check(job, plan).done == 0


def test_a_record_in_a_log_and_in_the_segment_that_replaces_it_counts_once(job: BatchJob, plan: PlanReference) -> None:
    """A process that is killed between writing the segment and deleting the log leaves both."""
    for index in range(2):
        hold(job, plan, index, 2, stage="log")
        storage = open_plans(job).files(plan, index).storage
        logs = {name: storage.read(name) or b"" for name in storage.names()}
        checkpoint = try_open(open_plans(job).files(plan, index), rows=ROWS, round_=0, holder="test")
        assert checkpoint is not None
        checkpoint.record(good(*range(2, ROWS)))
        checkpoint.complete()
        checkpoint.close()
        storage.delete("done-000.json")
        for name, data in logs.items():
            storage.write(name, data)
    assert check(job, plan).done == 0


@pytest.mark.parametrize("stage", ["log", "segment"])
def test_a_mapped_task_alone(job: BatchJob, plan: PlanReference, server: socket.socket, stage: str) -> None:
    """A partition that holds too many by itself is refused before its first call, in Airflow's tasks too."""
    hold(job, plan, 2, ALLOWED + 1, stage=stage)
    with pytest.raises(QuarantineThresholdError, match=f"{ALLOWED} are allowed"):
        infer_partition(job, plan, 2)
    with pytest.raises(BlockingIOError):
        server.accept()


def test_what_holds_no_quarantine_is_not_read(job: BatchJob, plan: PlanReference, tmp_path: Path) -> None:
    """A resume of millions of rows must not read their outputs twice: damage in them is not even noticed here."""
    for index in range(2):
        checkpoint = opened(job, plan, index, rotate_records=1)
        checkpoint.record(good(0))
        checkpoint.sync()
        checkpoint.close()
    for path in tmp_path.rglob("good-*.arrow"):
        path.write_bytes(b"damaged")
    assert check(job, plan).done == 0
