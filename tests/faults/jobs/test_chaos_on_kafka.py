"""The same while jobs go over Kafka. `make chaos` runs it: where every strike changes a group, all takes longer."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from tests.faults.jobs.support.chaos import MODEL_MS, check, database, hanging, outage, rage, refused
from tests.faults.jobs.support.opening import pack
from tests.faults.jobs.test_chaos import ROUNDS, postgres
from tests.faults.support.restartable import RestartablePostgres
from tests.support.kafka import KafkaCluster

__all__ = ["postgres"]
HITS = 5  # a worker that joins has nothing to do before the group has noticed those that were killed
pytestmark = pytest.mark.skipif("AI_FAULT_ROUNDS" not in os.environ, reason="100 s; `make chaos` runs it")


@pytest.mark.parametrize("round_number", ROUNDS)
def test_groups_that_change_every_second(
    tmp_path: Path, kafka_cluster: KafkaCluster, postgres: RestartablePostgres, seed: int, round_number: int
) -> None:
    """The cluster refuses or hangs, as the seed has it; the database crashes."""
    draw = random.Random(seed)
    with (
        database(postgres) as url,
        pack(tmp_path, kafka_cluster, seed=seed, store_url=url, latency_ms=MODEL_MS) as jobs,
    ):
        down = refused(jobs) if draw.random() < 0.5 else hanging(kafka_cluster.service)
        poisons = rage(jobs, draw, [*down, *outage(postgres.kill, postgres.start)], hits=HITS)
        check(jobs, draw, poisons, crashes=1)
