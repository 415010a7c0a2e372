"""Deployments under the rights of their roles."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import uuid4

import pytest

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
