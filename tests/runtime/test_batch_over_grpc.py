"""A whole batch against a real model server over gRPC, and against servers over gRPC that fail."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from airflow_provider_ai.adapters.endpoints.open_inference_messages import ModelInferRequest, ModelInferResponse
from airflow_provider_ai.core.config import (
    CheckpointSettings,
    EndpointSettings,
    InputSettings,
    Limits,
    SinkSettings,
)
from airflow_provider_ai.core.report import BatchReport
from airflow_provider_ai.core.requests import OpenInferenceRequest
from airflow_provider_ai.runtime.batch_inference import BatchJob, run_batch
from tests.adapters.endpoints.grpc_servers import Context, serve_grpc
from tests.support import clinical_data
from tests.support.mlserver import MODEL

if TYPE_CHECKING:
    from tests.support.mlserver import ModelServer

ROWS = 300


def job_of(folder: Path, url: str, protocol: Any, columns: list[str], **limits: Any) -> BatchJob:
    """A job over ``folder/visits`` whose checkpoints and table are named after the protocol."""
    return BatchJob(
        input=InputSettings(uri=str(folder / "visits"), id_column="visit_id", rows_per_partition=200),
        endpoint=EndpointSettings(url=url, protocol=protocol, model=MODEL),
        request=OpenInferenceRequest(columns=columns, output_names=["predict"], records_per_request=16),
        limits=Limits(concurrency=8, backoff_base_seconds=0.01, backoff_cap_seconds=0.1, **limits),
        checkpoint=CheckpointSettings(uri=str(folder / protocol)),
        sink=SinkSettings(url=f"sqlite:///{folder}/{protocol}.sqlite", table="scores"),
    )


def table_of(folder: Path, protocol: str) -> list[tuple[Any, ...]]:
    with sqlite3.connect(folder / f"{protocol}.sqlite") as warehouse:
        return warehouse.execute("SELECT visit_id, predict FROM scores ORDER BY visit_id").fetchall()


def counts(report: BatchReport) -> tuple[int, int, int]:
    return report.succeeded, report.quarantined, report.published


def test_the_same_table_as_over_rest(model_server: ModelServer, tmp_path: Path) -> None:
    """Every patient is scored and published once, with the score that REST gives; a second run calls nothing."""
    rows = sum(clinical_data.write_visits(tmp_path / "visits").values())
    columns = clinical_data.feature_columns()
    over_grpc = job_of(tmp_path, f"grpc://{model_server.grpc_target}", "open-inference-grpc", columns)
    over_rest = job_of(tmp_path, model_server.url, "open-inference", columns)
    assert counts(run_batch(over_grpc)) == counts(run_batch(over_rest)) == (rows, 0, rows)
    assert table_of(tmp_path, "open-inference-grpc") == table_of(tmp_path, "open-inference")
    assert len(table_of(tmp_path, "open-inference-grpc")) == rows
    assert run_batch(over_grpc).requests == 0


@pytest.fixture
def visits(tmp_path: Path) -> Path:
    """A folder with one column of ``ROWS`` numbers."""
    (tmp_path / "visits").mkdir()
    numbers = list(range(ROWS))
    table = pa.table({"visit_id": numbers, "a": [float(number) for number in numbers]})
    pq.write_table(table, tmp_path / "visits" / "a.parquet")
    return tmp_path


def doubled(message: bytes) -> bytes:
    """``predict`` is twice the input, as raw contents."""
    tensor = ModelInferRequest.FromString(message).inputs[0]
    values = [2 * value for value in tensor.contents.fp64_contents]
    answer = ModelInferResponse(raw_output_contents=[b"".join(int(value).to_bytes(8, "little") for value in values)])
    answer.outputs.add(name="predict", datatype="INT64", shape=[len(values)])
    written: bytes = answer.SerializeToString()
    return written


def test_a_server_that_fails_now_and_then(visits: Path) -> None:
    """Throttling, outages, aborted and broken calls are tried again until every record has its answer."""
    codes = [grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.ABORTED]
    codes += [grpc.StatusCode.CANCELLED, grpc.StatusCode.INTERNAL, grpc.StatusCode.DEADLINE_EXCEEDED]

    def fails_first(message: bytes, context: Context) -> bytes:
        if codes:
            context.abort(codes.pop(), "no")
        return doubled(message)

    with serve_grpc(fails_first) as server:
        report = run_batch(job_of(visits, server.url, "open-inference-grpc", ["a"]))
    assert counts(report) == (ROWS, 0, ROWS)
    assert codes == []
    assert table_of(visits, "open-inference-grpc") == [(number, 2 * number) for number in range(ROWS)]


def test_records_a_server_refuses(visits: Path) -> None:
    """One bad record is found and quarantined; the others of its call are answered."""

    def refuses_seven(message: bytes, context: Context) -> bytes:
        if 7.0 in ModelInferRequest.FromString(message).inputs[0].contents.fp64_contents:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "seven")
        return doubled(message)

    with serve_grpc(refuses_seven) as server:
        report = run_batch(job_of(visits, server.url, "open-inference-grpc", ["a"]))
    assert counts(report) == (ROWS - 1, 1, ROWS - 1)


def test_calls_too_large_for_a_server(visits: Path) -> None:
    """A call over the server's own limit is not sent again without end: it is taken apart."""
    few = [("grpc.max_receive_message_length", 120)]
    with serve_grpc(lambda message, _: doubled(message), options=few) as server:
        report = run_batch(job_of(visits, server.url, "open-inference-grpc", ["a"]))
    assert counts(report) == (ROWS, 0, ROWS)
