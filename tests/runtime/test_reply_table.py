"""Replies as rows of a table: once each, with where they come from."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pytest

from airflow_provider_ai.adapters.sinks import open_sink
from airflow_provider_ai.core.config import SinkSettings
from airflow_provider_ai.core.identity import record_key
from airflow_provider_ai.core.jobs import JobState, Outcome, job_id
from airflow_provider_ai.core.manifest import FileSlice, Manifest, Partition, SourceFile
from airflow_provider_ai.exceptions import ReconciliationError, SinkError
from airflow_provider_ai.patterns.batch_inference import Provenance
from airflow_provider_ai.patterns.request_reply import Submission, Submitter
from airflow_provider_ai.runtime import reply_table
from airflow_provider_ai.runtime.reply_table import Landed, land_replies, requests_manifest
from airflow_provider_ai.testing import InMemoryJobStore, InMemorySink
from tests.patterns.jobs import Contents, Deployment

PROVENANCE = Provenance(run_id="run", model="nobody asked it", prompt_hash="ph", schema_version="sv")
AT = 1_700_000_000.25


def finished(*outputs: Any, key: str = "s", inline_limit: int = 65_536) -> Deployment:
    to = Deployment(store=InMemoryJobStore(clock=lambda: AT), contents=Contents(inline_limit=inline_limit))
    submit(to, len(outputs), key)
    to.finish(key, outputs)
    return to


def submit(to: Deployment, count: int, key: str = "s") -> None:
    sender = Submitter(store=to.store, queue=to.queue, contents=to.contents)
    sender.submit(Submission(key=key), [{"patient": f"p{n}", "n": n} for n in range(count)])


def land(to: Deployment, sink: Any, key: str = "s", **given: Any) -> Landed:
    return land_replies(to.store, to.contents, key, sink, PROVENANCE, **given)


def dataset(*cuts: int) -> Manifest:
    """Rows of two files, ``a`` with 3 rows and ``b`` with the others, in partitions that end at ``cuts``."""
    rows = cuts[-1]
    bounds = list(zip((0, *cuts), cuts, strict=False))

    def pieces(start: int, end: int) -> Iterator[FileSlice]:
        if start < 3:
            yield FileSlice(file=0, start=start, end=min(end, 3))
        if end > 3:
            yield FileSlice(file=1, start=max(start, 3) - 3, end=end - 3)

    return Manifest(
        input_uri="lake/notes",
        format="jsonl",
        id_column="patient",
        schema=(("patient", "string"), ("n", "int64")),
        files=(
            SourceFile(path="a", size=1, version="1", rows=3),
            SourceFile(path="b", size=1, version="1", rows=rows - 3),
        ),
        partitions=tuple(Partition(index=i, slices=tuple(pieces(*bound))) for i, bound in enumerate(bounds)),
        listing="l",
    )


@pytest.mark.parametrize("inline_limit", [0, 65_536])
def test_rows_of_a_dataset_keep_their_ids_and_places(inline_limit: int) -> None:
    """Partition by partition, also across files; a job without a result has no row."""
    outputs = [{"score": n, "label": f"l{n}"} for n in range(7)]
    to, sink = finished(*outputs[:4], JobState.FAILED, *outputs[5:], inline_limit=inline_limit), InMemorySink()
    done = land(to, sink, manifest=dataset(4, 7), scope="notes-1")
    assert done == Landed(jobs=7, rows=6, failed=1, written=6, partitions=2, reasons={"was_failed": 1})
    rows = sorted(sink.rows, key=lambda row: row["patient"])
    assert [row["patient"] for row in rows] == ["p0", "p1", "p2", "p3", "p5", "p6"]
    assert [row["score"] for row in rows] == [0, 1, 2, 3, 5, 6]
    places = [(row["_source_file"], row["_source_row"]) for row in rows]
    assert places == [("a", 0), ("a", 1), ("a", 2), ("b", 0), ("b", 2), ("b", 3)]
    assert {row["_partition"].rsplit("/", 1)[1] for row in rows} == {"00000", "00001"}
    assert {row["_inferred_at"] for row in rows} == {datetime.fromtimestamp(AT, UTC)}
    assert rows[0]["_record_key"] == record_key("p0")
    assert {(row["_run_id"], row["_prompt_hash"]) for row in rows} == {("run", "ph")}


def test_other_requests_are_rows_named_by_their_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    """An output that is no object is one column."""
    monkeypatch.setattr(reply_table, "_PAGE", 2)
    to, sink = finished("low", "high", JobState.CANCELLED, "low", "low"), InMemorySink()
    manifest = requests_manifest("s", 5, source="triage.jsonl", rows_per_partition=3)
    done = land(to, sink, manifest=manifest)
    assert (done.rows, done.partitions, done.reasons) == (4, 2, {"was_cancelled": 1})
    rows = sorted(sink.rows, key=lambda row: row["_source_row"])
    assert [(row["job_id"], row["output"], row["_source_row"]) for row in rows] == [
        (job_id("s", n), output, n) for n, output in ((0, "low"), (1, "high"), (3, "low"), (4, "low"))
    ]
    assert {row["_source_file"] for row in rows} == {"triage.jsonl"}


def test_types_are_those_of_all_replies() -> None:
    """Whatever page and partition they are in."""
    to, sink = finished({"x": 1}, {"x": 0.5}, {"y": True}), InMemorySink()
    land(to, sink, manifest=requests_manifest("s", 3, rows_per_partition=1))
    rows = sorted(sink.rows, key=lambda row: row["_source_row"])
    assert [(row["x"], row["y"]) for row in rows] == [(1.0, None), (0.5, None), (None, True)]


def test_every_row_says_what_answered_it() -> None:
    """As its worker has said; nothing where it has not. Another model's answer is other content."""
    to, sink = Deployment(store=InMemoryJobStore(clock=lambda: AT)), InMemorySink()
    submit(to, 4)
    for job, model in zip(to.store.jobs("s"), ("risk-1", "risk-2", None, "risk-1"), strict=True):
        content = to.contents.pack(b'{"x":1}', kind="result", job_id=job.job_id)
        to.store.receive(job.job_id, Outcome(state=JobState.SUCCEEDED, content=content, model=model), via="test")
    land(to, sink)
    rows = sorted(sink.rows, key=lambda row: row["_source_row"])
    assert [row["_model"] for row in rows] == ["risk-1", "risk-2", None, "risk-1"]


def test_landing_again_writes_nothing() -> None:
    """What stands there is left alone; after a refusal all of it is still to be had."""
    to, sink = finished({"x": 1}, {"x": 2}), InMemorySink()
    with pytest.raises(SinkError):
        land(to, Refusing())
    assert land(to, sink).written == 2
    assert land(to, sink).written == 0
    assert len(sink.rows) == 2


class Refusing(InMemorySink):
    """Takes nothing."""

    def publications(self, scope: str) -> Any:
        raise SinkError("refused")


def test_another_run_of_the_same_input_takes_the_place_of_the_first() -> None:
    """Other submissions' rows stay when each has a scope of its own."""
    sink = InMemorySink()
    land(finished({"x": 1}, {"x": 2}, key="one"), sink, "one", scope="in")
    land(finished({"x": 3}, {"x": 4}, key="two"), sink, "two", scope="in")
    assert sorted(row["x"] for row in sink.rows) == [3, 4]
    land(finished({"x": 5}, key="three"), sink, "three")
    land(finished({"x": 6}, key="four"), sink, "four")
    assert sorted(row["x"] for row in sink.rows) == [3, 4, 5, 6]


@pytest.mark.parametrize("output", [{"_x": 1}, {"x": "nul \0"}])
def test_an_output_that_no_table_holds_is_counted(output: dict[str, Any]) -> None:
    """By its reason; the others are there."""
    to, sink = finished({"x": 1}, output), InMemorySink()
    done = land(to, sink)
    assert (done.rows, done.failed, sum(done.reasons.values())) == (1, 1, 1)
    assert set(done.reasons) <= {"reserved_column", "nul_character"}


def test_pending_jobs_are_no_table() -> None:
    """Nothing is written before all have ended, or when they are not those of the dataset."""
    to, sink = Deployment(), InMemorySink()
    submit(to, 3)
    with pytest.raises(ReconciliationError, match="3 of 3 jobs are pending"):
        land(to, sink)
    with pytest.raises(ReconciliationError, match="the dataset has 9 rows and the submission 1 jobs"):
        land(finished(1), sink, manifest=dataset(9))
    assert sink.rows == []


def test_a_real_table(tmp_path: Path) -> None:
    """DuckDB: rows, markers, and the second landing."""
    sink = open_sink(SinkSettings(url=f"duckdb:///{tmp_path}/lake.duckdb", table="replies"))
    to = finished(*({"score": n / 2, "tags": ["a", "b"]} for n in range(25)), JobState.FAILED)
    manifest = requests_manifest("s", 26, rows_per_partition=10)
    assert land(to, sink, manifest=manifest).written == 25
    assert land(to, sink, manifest=manifest).written == 0
    sink.close()
    with duckdb.connect(f"{tmp_path}/lake.duckdb") as connection:
        found = connection.sql("select count(*), count(distinct job_id), sum(score) from replies").fetchall()
    assert found == [(25, 25, 150.0)]
