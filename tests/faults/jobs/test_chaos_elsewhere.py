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
KAFKA_HITS = 5  # a worker that joins has nothing to do before the group has noticed those that were killed


@pytest.mark.parametrize("round_number", ROUNDS)
def test_fifo_queues(tmp_path: Path, ministack_server: MiniStack, seed: int, round_number: int) -> None:
    """Queues that refuse, and a file that is locked."""
    draw = random.Random(seed)
    with (
        pack(tmp_path, ministack_server, seed=seed, kind="sqs-fifo", latency_ms=MODEL_MS) as jobs,
        locking(tmp_path / "store.db") as store,
    ):
        poisons = rage(jobs, draw, [*refused(jobs), *store])
        check(jobs, draw, poisons)


@pytest.mark.parametrize("round_number", ROUNDS)
def test_kafka(
    tmp_path: Path, kafka_cluster: KafkaCluster, postgres: RestartablePostgres, seed: int, round_number: int
) -> None:
    """Members of its groups come and go every second, the cluster refuses or hangs, the database crashes."""
    draw = random.Random(seed)
    with (
        database(postgres) as url,
        pack(tmp_path, kafka_cluster, seed=seed, store_url=url, latency_ms=MODEL_MS) as jobs,
    ):
        down = refused(jobs) if draw.random() < 0.5 else hanging(kafka_cluster.service)
        poisons = rage(jobs, draw, [*down, *outage(postgres.kill, postgres.start)], hits=KAFKA_HITS)
        check(jobs, draw, poisons, crashes=1)
