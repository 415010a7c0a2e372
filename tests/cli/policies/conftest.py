"""Deployments under the rights of their roles."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.stub import StubServer
from tests.support.moto import REGION, Moto
from tests.support.postgres import PostgresServer
from tests.support.role_deployment import RoleDeployment, audit, encryption, queues

HANDLER = """\
from airflow_provider_ai.core.job_handling import RejectedJobError


async def answer(job):
    if job.payload["n"] == 7:
        raise RejectedJobError("unlucky")
    return {"double": 2 * job.payload["n"], "text": job.payload["text"]}
"""


def new_bucket(moto: Moto, *, locked: bool = False) -> str:
    """A bucket with a fresh name."""
    name = f"policies-{uuid4().hex[:12]}"
    moto.client("s3").create_bucket(Bucket=name, ObjectLockEnabledForBucket=locked)
    return name


@pytest.fixture(scope="module")
def jobs(
    tmp_path_factory: pytest.TempPathFactory, moto_server: Moto, postgres_server: PostgresServer
) -> Iterator[RoleDeployment]:
    """The asynchronous pattern, encrypted and audited; tables made by their owner, every role granted its own."""
    folder = tmp_path_factory.mktemp("jobs")
    (folder / "answers.py").write_text(HANDLER)
    made = RoleDeployment(folder, moto_server, postgres_server, {})
    made.tables = {
        "transport": queues(moto_server, made.tag),
        "claim_check": {"uri": f"s3://{new_bucket(moto_server)}/claims", "inline_limit_bytes": 1000},
        "storage": {"endpoint_url": moto_server.url, "region": REGION},
        "encryption": encryption(folder),
        "audit": audit(folder, new_bucket(moto_server, locked=True)),
        "worker": {"concurrency": 4, "visibility_timeout_seconds": 10, "grace_seconds": 2, "poll_seconds": 1},
        "dispatcher": {"poll_seconds": 1},
        "handler": {"target": "answers:answer"},
    }
    yield from _with_store(made)


def _with_store(made: RoleDeployment) -> Iterator[RoleDeployment]:
    made.database = made.postgres.create_database()
    owner = made.grant("owner")
    done = made.run_as_nobody("store", "upgrade", "--store", made.url(owner))
    assert done.returncode == 0, done.stderr
    with made.connect() as connection:
        connection.execute(made.printed("sql", "owner", "--name", f"ai_owner_{made.tag}"))
    for role in ("submitter", "worker", "dispatcher", "operator", "reader", "auditor", "rotator"):
        made.grant(role)
    yield made
    made.postgres.drop_database(made.database)


@pytest.fixture(scope="module")
def batch(
    tmp_path_factory: pytest.TempPathFactory, moto_server: Moto, postgres_server: PostgresServer
) -> Iterator[RoleDeployment]:
    """A batch on S3 and PostgreSQL, encrypted and audited; its target table was made by the owner of the warehouse."""
    folder, bucket = tmp_path_factory.mktemp("batch"), new_bucket(moto_server)
    put_visits(moto_server, bucket, folder)
    made = RoleDeployment(folder, moto_server, postgres_server, {}, database=postgres_server.create_database())
    with StubServer(latency_ms=1, jitter_ms=0) as stub:
        made.tables = {
            "input": {"uri": f"s3://{bucket}/visits/*.parquet", "id_column": "visit_id", "rows_per_partition": 20},
            "endpoint": {"url": stub.url, "protocol": "json", "model": "stub", "path": "/predict"},
            "checkpoint": {"uri": f"s3://{bucket}/checkpoints"},
            "sink": {"url": "", "table": "predictions"},
            "storage": {"endpoint_url": moto_server.url, "region": REGION},
            "encryption": encryption(folder),
            "audit": {"store": "", **audit(folder, new_bucket(moto_server, locked=True))},
        }
        upgraded = made.run_as_owner("store", "upgrade", "--store", made.url("postgres"))
        assert upgraded.returncode == 0, upgraded.stderr
        yield made
    made.postgres.drop_database(made.database)


def put_visits(moto: Moto, bucket: str, folder: Path) -> None:
    """Two files of thirty visits."""
    for file in range(2):
        visits = pa.table({"visit_id": [f"v-{file}-{n}" for n in range(30)], "note": ["a note"] * 30})
        pq.write_table(visits, folder / "visits.parquet")
        body = (folder / "visits.parquet").read_bytes()
        moto.client("s3").put_object(Bucket=bucket, Key=f"visits/{file}.parquet", Body=body)
