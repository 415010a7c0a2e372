"""The same while jobs go over the other transports: SQS FIFO on SQLite, and Kafka on PostgreSQL."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.faults.jobs.support.chaos import MODEL_MS, check, database, hanging, locking, outage, rage, refused
from tests.faults.jobs.support.opening import pack
from tests.faults.jobs.test_chaos import ROUNDS, postgres
from tests.faults.support.restartable import RestartablePostgres
from tests.support.kafka import KafkaCluster
from tests.support.ministack import MiniStack

__all__ = ["postgres"]


@pytest.mark.parametrize("round_number", ROUNDS)
def test_fifo_queues(tmp_path: Path, ministack_server: MiniStack, seed: int, round_number: int) -> None:
    """Queues that refuse, and a file that is locked."""
    draw = random.Random(seed)
    with (
        pack(tmp_path, ministack_server, seed=seed, kind="sqs-fifo", latency_ms=MODEL_MS) as jobs,
        locking(tmp_path / "store.db") as store,
    ):
        rage(jobs, draw, [*refused(jobs), *store])
        check(jobs, draw)


@pytest.mark.parametrize("queue", ["refuses", "hangs"])
@pytest.mark.parametrize("round_number", ROUNDS)
def test_kafka(
    tmp_path: Path,
    kafka_cluster: KafkaCluster,
    postgres: RestartablePostgres,
    seed: int,
    round_number: int,
    queue: str,
) -> None:
    """Members of a group come and go every second; the database crashes."""
    draw = random.Random(seed)
    with (
        database(postgres) as url,
        pack(tmp_path, kafka_cluster, seed=seed, store_url=url, latency_ms=MODEL_MS) as jobs,
    ):
        down = refused(jobs) if queue == "refuses" else hanging(kafka_cluster.service)
        rage(jobs, draw, [*down, *outage(postgres.kill, postgres.start)])
        check(jobs, draw, crashes=1)
