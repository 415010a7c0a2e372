"""The three stores, behind one fixture each: in memory, SQLite, PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_ai.adapters.store import open_store
from airflow_provider_ai.adapters.store.store import Store
from airflow_provider_ai.core.call_settings import CallSettings
from airflow_provider_ai.testing import InMemoryStore

POSTGRESQL = pytest.param("postgresql", marks=pytest.mark.real)
DATABASES = ("sqlite", POSTGRESQL)
SETTINGS = CallSettings(max_concurrent_calls=3)


@dataclass(slots=True)
class TestClock:
    """Epoch seconds that pass when a test says so."""

    __test__ = False

    now: float = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> TestClock:
    return TestClock()


@pytest.fixture(params=DATABASES)
def database(request: pytest.FixtureRequest) -> str:
    """For tests of what only a database has."""
    return str(request.param)


@pytest.fixture
def url(database: str, tmp_path: Path, request: pytest.FixtureRequest) -> str:
    """The URL of a store that does not exist yet."""
    if database == "postgresql":
        return str(request.getfixturevalue("postgres_url"))
    return f"sqlite:///{tmp_path}/new/store.db"


OpenStore = Callable[..., Store]


@pytest.fixture
def opened(url: str) -> Iterator[OpenStore]:
    """``opened(**options)`` opens the store at ``url``, and closes it after the test."""
    stores: list[Store] = []

    def make(**options: Any) -> Store:
        stores.append(open_store(url, **options))
        return stores[-1]

    yield make
    for store in stores:
        store.close()


@pytest.fixture(params=("memory", *DATABASES))
def store(request: pytest.FixtureRequest, tmp_path: Path, clock: TestClock) -> Iterator[Store | InMemoryStore]:
    """For the contract: each store, on the test's clock."""
    if request.param == "memory":
        yield InMemoryStore(clock=clock)
        return
    sqlite = f"sqlite:///{tmp_path}/store.db"
    made = open_store(request.getfixturevalue("postgres_url") if request.param == "postgresql" else sqlite, clock=clock)
    yield made
    made.close()
