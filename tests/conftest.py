"""Fixtures every test may use. Airflow is not imported here, so the tests of the core start in milliseconds.

Markers that a fixture or a folder implies are set here: a test cannot forget that it needs a real service.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.support.kafka import KafkaCluster
    from tests.support.litserve import OpenAIServer
    from tests.support.localstack import LocalStack
    from tests.support.ministack import MiniStack
    from tests.support.mlserver import ModelServer
    from tests.support.moto import Moto
    from tests.support.postgres import PostgresServer

SEED_VARIABLE = "TEST_SEED"
REAL_FIXTURES = {
    "postgres_server",
    "ministack_server",
    "localstack_server",
    "moto_server",
    "kafka_cluster",
    "model_server",
    "openai_server",
}
MARKER_OF_FOLDER = {"airflow_shell": "airflow", "end_to_end": "e2e", "faults": "fault"}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        folder = item.path.relative_to(here).parts[0]
        if folder in MARKER_OF_FOLDER:
            item.add_marker(MARKER_OF_FOLDER[folder])
        if REAL_FIXTURES.intersection(getattr(item, "fixturenames", ())):
            item.add_marker("real")
    # The longest files first: where several processes share them, none is left with one at the end.
    items.sort(key=lambda item: not {"faults", "queues"}.intersection(item.path.relative_to(here).parts))


@pytest.fixture
def seed() -> int:
    """The seed of a random test, new on every run and printed with a failure; ``TEST_SEED`` repeats one."""
    value = int(os.environ.get(SEED_VARIABLE) or secrets.randbits(32))
    print(f"{SEED_VARIABLE}={value}")
    return value


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """A PostgreSQL for the whole session; take a database of your own with ``create_database()``."""
    from tests.support import postgres

    with postgres.postgres_server(durable=False) as server:
        yield server


@pytest.fixture
def postgres_url(postgres_server: PostgresServer) -> Iterator[str]:
    """A libpq URL of an empty database that lives as long as the test."""
    name = postgres_server.create_database()
    yield postgres_server.url(name)
    postgres_server.drop_database(name)


@pytest.fixture(scope="session")
def ministack_server() -> Iterator[MiniStack]:
    """S3, SQS, DynamoDB and KMS for the whole session; take a bucket of your own with ``make_bucket()``."""
    from tests.support import ministack

    with ministack.ministack() as server:
        yield server


@pytest.fixture(scope="session")
def localstack_server() -> Iterator[LocalStack]:
    """The second SQS for the whole session; take queues with fresh names."""
    from tests.support import localstack

    with localstack.localstack() as server:
        yield server


@pytest.fixture(scope="session")
def moto_server() -> Iterator[Moto]:
    """SQS and S3 that enforce IAM policies; take queues and buckets with fresh names."""
    from tests.support import moto

    with moto.moto() as server:
        yield server


@pytest.fixture(scope="session")
def kafka_cluster() -> Iterator[KafkaCluster]:
    """Kafka's protocol for the whole session; take topics with fresh names from ``make_topic()``."""
    from tests.support import kafka

    with kafka.kafka() as cluster:
        yield cluster


@pytest.fixture
def bucket(ministack_server: MiniStack) -> str:
    """The name of an empty bucket."""
    return ministack_server.make_bucket()


@pytest.fixture(scope="session")
def model_server() -> Iterator[ModelServer]:
    """MLServer with the breast-cancer model for the whole session."""
    from tests.support import mlserver

    with mlserver.mlserver() as server:
        yield server


@pytest.fixture(scope="session")
def openai_server() -> Iterator[OpenAIServer]:
    """LitServe with a chat and an embedding model for the whole session."""
    from tests.support import litserve

    with litserve.litserve() as server:
        yield server
