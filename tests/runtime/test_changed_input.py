"""An input that is not as it was planned: what the plan step and the status make of it. No model is called."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from airflow_provider_ai.adapters.checkpoints.plans import PlanPointer
from airflow_provider_ai.core.config import (
    CheckpointSettings,
    EndpointSettings,
    InputSettings,
    Limits,
    SinkSettings,
)
from airflow_provider_ai.core.report import PlanReference
from airflow_provider_ai.core.requests.json_request import JsonRequest
from airflow_provider_ai.exceptions import EmptyDatasetError, InputChangedError, SpecError
from airflow_provider_ai.runtime.batch_inference import BatchJob, batch_status, plan_batch
from airflow_provider_ai.runtime.job import load_manifest, open_plans
from airflow_provider_ai.runtime.status import run_key_of

ROWS = 3


@pytest.fixture
def job(tmp_path: Path) -> BatchJob:
    """A job over a folder of two files."""
    folder = tmp_path / "visits"
    folder.mkdir()
    for name, first in (("a", 0), ("b", ROWS)):
        pq.write_table(pa.table({"id": list(range(first, first + ROWS))}), folder / f"{name}.parquet")
    return BatchJob(
        input=InputSettings(uri=str(folder), id_column="id"),
        endpoint=EndpointSettings(url="http://127.0.0.1:9", protocol="json", model="m"),
        request=JsonRequest(),
        limits=Limits(),
        checkpoint=CheckpointSettings(uri=str(tmp_path / "checkpoints")),
        sink=SinkSettings(url=f"sqlite:///{tmp_path}/warehouse.sqlite", table="scores"),
    )


def plan(job: BatchJob, **options: str) -> PlanReference:
    return plan_batch(job, run_key=run_key_of(job), **options)  # type: ignore[arg-type]


def finish(job: BatchJob, planned: PlanReference) -> None:
    """Mark the run complete, as its reconcile step does."""
    store = open_plans(job)
    listing = load_manifest(store, planned).listing
    key = planned.directory.rsplit("/", 1)[-1]
    store.point(planned.run, PlanPointer(key=key, fingerprint=planned.fingerprint, listing=listing, complete=True))


def files(job: BatchJob) -> list[Path]:
    return sorted(Path(job.input.uri).iterdir())


def remove_all(job: BatchJob) -> None:
    for path in files(job):
        path.unlink()


def remove_folder(job: BatchJob) -> None:
    remove_all(job)
    Path(job.input.uri).rmdir()


def add_other_format(job: BatchJob) -> None:
    (Path(job.input.uri) / "stray.csv").write_text("id\n99\n")


GONE = [
    pytest.param(remove_all, r"differ: 2 \(removed .*a\.parquet, removed .*b\.parquet\)", id="files"),
    pytest.param(remove_folder, r"differ: 2 \(removed .*a\.parquet, removed .*b\.parquet\)", id="folder"),
    pytest.param(add_other_format, r"differ: 1 \(added .*stray\.csv\)", id="another format added"),
]


@pytest.mark.parametrize(("change", "words"), GONE)
def test_an_unfinished_plan_names_what_changed(job: BatchJob, change: Callable[[BatchJob], None], words: str) -> None:
    """Planning again is refused and says how to go on; with the files back it finds the plan."""
    before = plan(job)
    contents = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in files(job)}
    change(job)
    with pytest.raises(InputChangedError, match=words) as caught:
        plan(job)
    assert "recompute" in str(caught.value)
    restore(job, contents)
    assert plan(job) == before


def restore(job: BatchJob, contents: dict[Path, tuple[bytes, int]]) -> None:
    Path(job.input.uri).mkdir(exist_ok=True)
    for path in files(job):
        path.unlink()
    for path, (data, modified) in contents.items():
        path.write_bytes(data)
        os.utime(path, ns=(modified, modified))


def test_a_finished_plan_whose_input_is_gone(job: BatchJob) -> None:
    """There is nothing to plan anew from."""
    finish(job, plan(job))
    remove_all(job)
    with pytest.raises(EmptyDatasetError, match="has no file"):
        plan(job)


def test_a_finished_plan_beside_a_file_of_another_format(job: BatchJob) -> None:
    """Planning anew finds two formats, and names a file of each."""
    finish(job, plan(job))
    add_other_format(job)
    with pytest.raises(SpecError, match=r"mixes csv and parquet.*stray\.csv, .*a\.parquet"):
        plan(job)


@pytest.mark.parametrize("complete", [False, True])
@pytest.mark.parametrize(("change", "words"), GONE)
def test_the_status_shows_what_the_plan_knows(
    job: BatchJob, change: Callable[[BatchJob], None], words: str, complete: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """All counts are there, and how the input differs is said."""
    planned = plan(job)
    if complete:
        finish(job, planned)
    change(job)
    with caplog.at_level(logging.WARNING):
        found = batch_status(job)
    assert (found.plan, found.input_changed) == ("complete" if complete else "unfinished", True)
    assert (found.records, found.would_call) == (2 * ROWS, 2 * ROWS)
    (said,) = caplog.messages
    assert re.search(f"not as it was planned: files that {words}", said)


def test_the_status_of_an_unchanged_input(job: BatchJob, caplog: pytest.LogCaptureFixture) -> None:
    """Nothing to say about it."""
    plan(job)
    assert not batch_status(job).input_changed
    assert caplog.records == []
