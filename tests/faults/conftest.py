"""Fixtures of the fault tests. ``AI_FAULT_SEED`` repeats a run: every test prints the seed it used."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from benchmarks.stub import StubServer
from tests.faults.support.batch import Batch
from tests.faults.support.dataset import Dataset

SEED_VARIABLE = "AI_FAULT_SEED"
MakeBatch = Callable[..., Batch]


@pytest.fixture
def seed() -> int:
    """The seed of a test, new on every run and printed with a failure; ``AI_FAULT_SEED`` repeats one."""
    value = int(os.environ.get(SEED_VARIABLE) or secrets.randbits(32))
    print(f"{SEED_VARIABLE}={value}")
    return value


@pytest.fixture
def make_batch(tmp_path: Path) -> Iterator[MakeBatch]:
    """Makes batches, each with an input and a model server of its own: ``make_batch(rows=…, latency_ms=…, …)``.

    ``numbers`` gives integer ids and a server that keeps its counts when it is killed. Other names go to the batch.
    """
    with ExitStack() as stack:

        def make(*, rows: int = 600, latency_ms: float = 10.0, numbers: bool = False, **settings: Any) -> Batch:
            folder = tmp_path / f"batch-{len(list(tmp_path.iterdir()))}"
            counting = {"count_ids": "bitmap", "max_id": 100_000, "keep_counts": True} if numbers else {}
            stub = stack.enter_context(StubServer(latency_ms=latency_ms, max_in_flight=1000, **counting))
            dataset = Dataset(folder=folder / "visits", rows=rows, numbers=numbers)
            return stack.enter_context(Batch(folder=folder, dataset=dataset, stub=stub, **settings))

        yield make
