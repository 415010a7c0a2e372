"""The queues, behind one fixture: in memory, SQS standard and FIFO at two services, Kafka."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import uuid4

import pytest

from airflow_provider_ai.adapters.queues import open_transport
from airflow_provider_ai.core.job_ports import Delivery, MessageQueue, OutgoingMessage, Transport
from airflow_provider_ai.core.transport_settings import TransportSettings
from airflow_provider_ai.testing import InMemoryQueue
from tests.support.kafka import KafkaCluster

REAL = pytest.mark.real
KINDS = (
    "memory",
    pytest.param("sqs", marks=REAL),
    pytest.param("sqs-fifo", marks=REAL),
    pytest.param("sqs-localstack", marks=REAL),
    pytest.param("sqs-fifo-localstack", marks=REAL),
    pytest.param("kafka", marks=REAL),
)


def sqs_settings(server: Any, *, fifo: bool = False, **changes: Any) -> TransportSettings:
    """Settings of three queues with fresh names."""
    tag, suffix = uuid4().hex[:12], ".fifo" if fifo else ""
    chosen = {
        "kind": "sqs-fifo" if fifo else "sqs",
        "endpoint_url": server.url,
        "region": "us-east-1",
        "access_key": "test",
        "secret_key": "test",
        "request_queue": f"requests-{tag}{suffix}",
        "result_queue": f"results-{tag}{suffix}",
        "dead_letter_queue": f"dead-{tag}{suffix}",
    }
    return TransportSettings(**{**chosen, **changes})


def create_sqs_queues(server: Any, settings: TransportSettings) -> None:
    """The bare queues; what `airflow-ai queues create` adds to them has tests of its own."""
    for name in settings.queues:
        server.client("sqs").create_queue(QueueName=name, Attributes={"FifoQueue": "true"} if settings.fifo else {})


def kafka_settings(cluster: KafkaCluster, **changes: Any) -> TransportSettings:
    """Settings of three topics with fresh names, which are there."""
    tag = uuid4().hex[:12]
    names = {f"{kind}_queue": f"{kind}-{tag}" for kind in ("request", "result", "dead_letter")}
    for name in names.values():
        cluster.make_topic(name)
    chosen: dict[str, Any] = {"kind": "kafka", "bootstrap_servers": cluster.bootstrap_servers, **names}
    chosen["session_timeout_seconds"] = 4  # the mock cluster draws out each rebalance for almost as long
    return TransportSettings(**{**chosen, **changes})


@dataclass(slots=True)
class Deployment:
    """A transport under test; ``connect()`` is another process's view of the same queues."""

    kind: str
    connect: Callable[[], Transport]
    opened: list[Transport] = field(default_factory=list)

    def open(self) -> Transport:
        self.opened.append(self.connect())
        return self.opened[-1]

    def close(self) -> None:
        for transport in self.opened:
            transport.close()


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def deployment(kind: str, request: pytest.FixtureRequest) -> Iterator[Deployment]:
    """Three empty queues of a kind."""
    made = Deployment(kind, _connector(kind, request))
    yield made
    made.close()


def _connector(kind: str, request: pytest.FixtureRequest) -> Callable[[], Transport]:
    if kind == "memory":
        shared = Transport(requests=InMemoryQueue("r"), results=InMemoryQueue("s"), dead_letters=InMemoryQueue("d"))
        return lambda: replace(shared)
    if kind == "kafka":
        settings = kafka_settings(request.getfixturevalue("kafka_cluster"))
        return lambda: open_transport(settings)
    server = request.getfixturevalue("localstack_server" if "localstack" in kind else "ministack_server")
    settings = sqs_settings(server, fifo="fifo" in kind)
    create_sqs_queues(server, settings)
    return lambda: open_transport(settings)


@pytest.fixture
def transport(deployment: Deployment) -> Transport:
    return deployment.open()


@pytest.fixture
def queue(transport: Transport) -> MessageQueue:
    return transport.requests


def message(number: int, *, body: bytes | None = None, **fields: Any) -> OutgoingMessage:
    return OutgoingMessage(key=f"job-{number}", body=body or b'{"number":%d}' % number, **fields)


def drain(queue: MessageQueue, *, expect: int, seconds: float = 30.0, visibility: float = 30.0) -> list[Delivery]:
    """Receive until ``expect`` messages are there, however long a group takes to form; fewer when time is up."""
    found: list[Delivery] = []
    end = time.monotonic() + seconds
    while len(found) < expect and time.monotonic() < end:
        found += queue.receive(most=expect - len(found), wait_seconds=1, visibility_seconds=visibility)
    return found
