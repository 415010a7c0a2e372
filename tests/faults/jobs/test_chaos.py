"""Three hundred jobs while somebody is killed or frozen every second, and queue and store are down for ten seconds.

What happens then is in :mod:`.support.chaos`. ``AI_FAULT_ROUNDS`` repeats each run so many times: `make chaos`.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.jobs.support.chaos import MODEL_MS, check, database, hanging, locking, outage, rage, refused
from tests.faults.jobs.support.opening import pack
from tests.faults.support.restartable import RestartablePostgres, restartable_postgres
from tests.support.ministack import MiniStack

ROUNDS = range(int(os.environ.get("AI_FAULT_ROUNDS", "1")))


@pytest.fixture(scope="module")
def postgres() -> Iterator[RestartablePostgres]:
    with restartable_postgres() as server:
        yield server


@pytest.mark.parametrize("round_number", ROUNDS)
def test_a_file_that_is_locked_and_a_queue_that_refuses(
    tmp_path: Path, ministack_server: MiniStack, seed: int, round_number: int
) -> None:
    """SQLite."""
    draw = random.Random(seed)
    with (
        pack(tmp_path, ministack_server, seed=seed, latency_ms=MODEL_MS) as jobs,
        locking(tmp_path / "store.db") as store,
    ):
        poisons = rage(jobs, draw, [*refused(jobs), *store])
        check(jobs, draw, poisons)


@pytest.mark.parametrize("round_number", ROUNDS)
def test_a_server_that_is_restarted_and_a_queue_that_hangs(
    tmp_path: Path, ministack_server: MiniStack, postgres: RestartablePostgres, seed: int, round_number: int
) -> None:
    """PostgreSQL, stopped in good order; SQS takes connections and answers nothing."""
    draw = random.Random(seed)
    with (
        database(postgres) as url,
        pack(tmp_path, ministack_server, seed=seed, store_url=url, latency_ms=MODEL_MS) as jobs,
    ):
        poisons = rage(jobs, draw, [*hanging(ministack_server.service), *outage(postgres.stop, postgres.start)])
        check(jobs, draw, poisons)


@pytest.mark.parametrize("round_number", ROUNDS)
def test_a_server_that_crashes_and_a_queue_that_refuses(
    tmp_path: Path, ministack_server: MiniStack, postgres: RestartablePostgres, seed: int, round_number: int
) -> None:
    """PostgreSQL, killed: what it had not written yet (claims, heartbeats) is lost, and jobs are claimed once more."""
    draw = random.Random(seed)
    with (
        database(postgres) as url,
        pack(tmp_path, ministack_server, seed=seed, store_url=url, latency_ms=MODEL_MS) as jobs,
    ):
        poisons = rage(jobs, draw, [*refused(jobs), *outage(postgres.kill, postgres.start)])
        check(jobs, draw, poisons, crashes=1)
