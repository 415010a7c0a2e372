"""Each real service starts and does the one thing the other tests rely on."""

from __future__ import annotations

import os
import signal

import httpx
import numpy as np
import psutil
import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.support import clinical_data, litserve, mlserver, processes
from tests.support.litserve import OpenAIServer
from tests.support.ministack import MiniStack
from tests.support.mlserver import ModelServer
from tests.support.postgres import PostgresServer


def test_postgres_answers(postgres_url: str) -> None:
    """SELECT 1, from an empty database of its own."""
    with psycopg.connect(postgres_url) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
        assert connection.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").fetchone() == (0,)


def test_postgres_listens_on_loopback_only(postgres_server: PostgresServer) -> None:
    """Trust authentication must not be reachable from another machine."""
    with psycopg.connect(postgres_server.url()) as connection:
        assert connection.execute("SHOW listen_addresses").fetchone() == ("127.0.0.1",)


def test_s3_round_trip_through_pyarrow(ministack_server: MiniStack, bucket: str) -> None:
    """A parquet file written through pyarrow's S3 is what boto3 sees, and reads back equal."""
    table = clinical_data.real_rows().slice(0, 10)
    filesystem = ministack_server.filesystem()
    pq.write_table(table, f"{bucket}/visits/part-0.parquet", filesystem=filesystem)
    listed = ministack_server.client("s3").list_objects_v2(Bucket=bucket)
    assert [entry["Key"] for entry in listed["Contents"]] == ["visits/part-0.parquet"]
    assert pq.read_table(f"{bucket}/visits/part-0.parquet", filesystem=filesystem).equals(table)


def tensors_of(model: str, rows: pa.Table) -> list[dict[str, object]]:
    columns = {name: rows[name].to_pylist() for name in clinical_data.feature_columns()}
    if model == mlserver.COLUMNS_MODEL:
        return [{"name": n, "shape": [len(v)], "datatype": "FP64", "data": v} for n, v in columns.items()]
    data = [list(row) for row in zip(*columns.values(), strict=True)]
    return [{"name": "features", "shape": [len(data), len(columns)], "datatype": "FP64", "data": data}]


@pytest.mark.parametrize("model", [mlserver.MODEL, mlserver.COLUMNS_MODEL])
def test_the_model_server_diagnoses_real_patients(model_server: ModelServer, model: str) -> None:
    """A V2 request with all 569 rows comes back with probabilities, and with the diagnoses of nearly all of them."""
    from sklearn.datasets import load_breast_cancer

    rows = clinical_data.real_rows()
    body = {"inputs": tensors_of(model, rows), "outputs": [{"name": "predict"}, {"name": "predict_proba"}]}
    with httpx.Client(trust_env=False, timeout=30.0) as client:
        answer = client.post(f"{model_server.url}/v2/models/{model}/infer", json=body).raise_for_status().json()
    outputs = {output["name"]: output for output in answer["outputs"]}
    assert outputs["predict_proba"]["shape"] == [569, 2]
    assert np.allclose(np.reshape(outputs["predict_proba"]["data"], (569, 2)).sum(axis=1), 1.0)
    assert np.mean(np.array(outputs["predict"]["data"]) == load_breast_cancer().target) > 0.95


def test_the_openai_server_listens_on_loopback_only(openai_server: OpenAIServer) -> None:
    """Nobody is asked for a key."""
    members = openai_server.service.members()
    listening = [c for process in members for c in process.net_connections() if c.status == psutil.CONN_LISTEN]
    assert {connection.laddr.ip for connection in listening} == {"127.0.0.1"}


@pytest.mark.real
def test_a_killed_openai_server_leaves_nobody_behind() -> None:
    """LitServe's workers outlive their leader, and hold its port; what the fixture stops is all of them."""
    with litserve.litserve() as server:
        members = server.service.members()
        os.kill(server.service.pid, signal.SIGKILL)
        assert len(members) > 1
    assert not processes.accepts_connections(int(server.url.rpartition(":")[2]))
    assert not [process for process in members if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]


def test_the_openai_server_gives_equal_answers_to_equal_questions(openai_server: OpenAIServer) -> None:
    """Tests compare what it says."""
    chat = {"model": litserve.CHAT_MODEL, "messages": [{"role": "user", "content": "crushing chest pain"}]}
    texts = {"model": litserve.EMBEDDING_MODEL, "input": ["chest pain", "hay fever"]}
    with httpx.Client(trust_env=False, base_url=openai_server.url, timeout=30.0) as client:
        said, vectors = [], []
        for _ in range(2):
            completion = client.post("/v1/chat/completions", json=chat).raise_for_status().json()
            said.append(completion["choices"][0]["message"]["content"])
            vectors.append(client.post("/v1/embeddings", json=texts).raise_for_status().json()["data"])
    assert said == ["Priority: emergency."] * 2
    assert vectors[0] == vectors[1]
    assert [len(item["embedding"]) for item in vectors[0]] == [litserve.DIMENSIONS] * 2
