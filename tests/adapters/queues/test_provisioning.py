"""Queues are made once, left alone when they are there, and reported when they are otherwise."""

from __future__ import annotations

import json
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from airflow_provider_ai.adapters.queues import open_transport
from airflow_provider_ai.adapters.queues.provisioning import create_queues, topic_state
from airflow_provider_ai.core.queue_plan import QueuePlan, plan_queues
from airflow_provider_ai.core.transport_settings import TransportSettings
from airflow_provider_ai.exceptions import QueueError, QueueUnavailableError
from tests.adapters.queues.conftest import drain, kafka_settings, message, sqs_settings
from tests.support.kafka import KafkaCluster
from tests.support.processes import free_port


def planned(settings: TransportSettings) -> tuple[QueuePlan, ...]:
    return plan_queues(settings, visibility_seconds=30, reply_visibility_seconds=60, max_attempts=1)


@pytest.fixture(params=["ministack", "localstack"])
def server(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue(f"{request.param}_server")


def attributes(server: Any, name: str) -> dict[str, str]:
    client = server.client("sqs")
    url = client.get_queue_url(QueueName=name)["QueueUrl"]
    found: dict[str, str] = client.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
    return found


pytestmark = pytest.mark.real


@pytest.mark.parametrize("fifo", [False, True])
def test_queues_are_made_once(server: Any, fifo: bool) -> None:
    """A second call finds them as they should be."""
    settings = sqs_settings(server, fifo=fifo)
    assert [state.state for state in create_queues(planned(settings), settings)] == ["created"] * 3
    assert [state.state for state in create_queues(planned(settings), settings)] == ["exists"] * 3
    found = attributes(server, settings.request_queue)
    dead = attributes(server, settings.dead_letter_queue)
    assert found["VisibilityTimeout"] == "30"
    assert found["SqsManagedSseEnabled"] == "true"
    assert int(dead["MessageRetentionPeriod"]) > int(found["MessageRetentionPeriod"])
    redrive = json.loads(found["RedrivePolicy"])
    assert (redrive["deadLetterTargetArn"], redrive["maxReceiveCount"]) == (dead["QueueArn"], 30)
    transport = open_transport(settings)
    assert transport.requests.send([message(0)]) == ["job-0"]


def test_a_message_that_is_received_too_often_becomes_a_dead_letter(server: Any) -> None:
    """By SQS itself, with the redrive policy that was set."""
    settings = sqs_settings(server, max_receives=2)
    create_queues(planned(settings), settings)
    transport = open_transport(settings)
    transport.requests.send([message(0)])
    for _ in range(2):
        transport.requests.extend(drain(transport.requests, expect=1), visibility_seconds=0)
    assert drain(transport.requests, expect=1, seconds=3) == []
    (dead,) = drain(transport.dead_letters, expect=1)
    assert dead.body == b'{"number":0}'


def test_a_queue_with_other_attributes_is_reported_and_left_alone(server: Any) -> None:
    """With what it is and what it should be."""
    settings = sqs_settings(server)
    client = server.client("sqs")
    client.create_queue(QueueName=settings.request_queue, Attributes={"VisibilityTimeout": "7"})
    dead, requests, results = create_queues(planned(settings), settings)
    assert (dead.state, requests.state, results.state) == ("created", "differs", "created")
    assert requests.differences["VisibilityTimeout"] == ("7", "30")
    assert requests.differences["RedrivePolicy"][0] == "(not set)"
    assert attributes(server, settings.request_queue)["VisibilityTimeout"] == "7"


def test_two_at_once_make_one_set(server: Any) -> None:
    """Whoever is slower finds them."""
    settings = sqs_settings(server)
    with ThreadPoolExecutor(4) as pool:
        made = [pool.submit(create_queues, planned(settings), settings) for _ in range(4)]
        states = {state.state for future in made for state in future.result()}
    assert states <= {"created", "exists"}


def test_beyond_this_machine_nobody_comes_without_tls(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The policy is set when a queue is made, and missed where it is not."""
    monkeypatch.setattr(TransportSettings, "local", property(lambda _: False))
    settings = sqs_settings(server, allow_plaintext=True)
    bare = settings.result_queue
    server.client("sqs").create_queue(QueueName=bare)
    states = {state.name: state for state in create_queues(planned(settings), settings)}
    (statement,) = json.loads(attributes(server, settings.request_queue)["Policy"])["Statement"]
    assert statement["Effect"] == "Deny"
    assert statement["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}
    assert "Policy" in states[bare].differences
    assert states[settings.request_queue].state == "created"


def test_a_service_that_is_down_is_said_to_be(ministack_server: Any) -> None:
    """And a second call goes on."""
    settings = replace(
        sqs_settings(ministack_server), endpoint_url=f"http://127.0.0.1:{free_port()}", call_timeout_seconds=2
    )
    with pytest.raises(QueueUnavailableError):
        create_queues(planned(settings), settings)


# --- Kafka: the mock cluster makes no topics, so making them is shown with a stand-in for the client


def _done(error: KafkaError | None = None, value: Any = None) -> Future[Any]:
    future: Future[Any] = Future()
    if error is None:
        future.set_result(value)
    else:
        future.set_exception(KafkaException(error))
    return future


class FakeAdmin:
    def __init__(self, topics: dict[str, tuple[int, dict[str, str]]], *, error: KafkaError | None = None) -> None:
        self.topics = topics
        self.error = error

    def list_topics(self, timeout: float) -> Any:
        topics = {name: SimpleNamespace(partitions=dict.fromkeys(range(made[0]))) for name, made in self.topics.items()}
        return SimpleNamespace(topics=topics)

    def create_topics(self, topics: list[Any], request_timeout: float) -> dict[str, Future[Any]]:
        (topic,) = topics
        if self.error is None or self.error.code() == KafkaError.TOPIC_ALREADY_EXISTS:
            self.topics[topic.topic] = (topic.num_partitions, dict(topic.config))
        return {topic.topic: _done(self.error)}

    def describe_configs(self, asked: list[Any], request_timeout: float) -> dict[Any, Future[Any]]:
        (resource,) = asked
        config = {name: SimpleNamespace(value=value) for name, value in self.topics[resource.name][1].items()}
        return {resource: _done(value=config)}


SETTINGS = TransportSettings(
    kind="kafka", bootstrap_servers="127.0.0.1:9", request_queue="r", result_queue="s", dead_letter_queue="d"
)


def test_topics_are_made_once_and_compared_after_that() -> None:
    """Partitions and retention."""
    admin: Any = FakeAdmin({})
    dead, requests, _ = planned(SETTINGS)
    assert topic_state(dead, SETTINGS, admin).state == "created"
    assert topic_state(dead, SETTINGS, admin).state == "exists"
    assert admin.topics["d"] == (12, {"cleanup.policy": "delete", "retention.ms": str(14 * 86_400_000)})
    admin.topics["r"] = (3, {"cleanup.policy": "delete", "retention.ms": "1"})
    found = topic_state(requests, SETTINGS, admin)
    assert found.state == "differs"
    assert found.differences == {"partitions": ("3", "12"), "retention.ms": ("1", str(4 * 86_400_000))}


def test_a_topic_that_somebody_else_makes_meanwhile_is_there() -> None:
    admin: Any = FakeAdmin({}, error=KafkaError(KafkaError.TOPIC_ALREADY_EXISTS))
    assert topic_state(planned(SETTINGS)[0], SETTINGS, admin).state == "exists"


def test_brokers_that_refuse_to_make_a_topic_are_believed() -> None:
    admin: Any = FakeAdmin({}, error=KafkaError(KafkaError.INVALID_REPLICATION_FACTOR))
    with pytest.raises(QueueError, match=r"Kafka refuses the call \(INVALID_REPLICATION_FACTOR\)") as refused:
        topic_state(planned(SETTINGS)[0], SETTINGS, admin)
    assert not isinstance(refused.value, QueueUnavailableError)


def test_topics_of_a_cluster_that_are_there_are_compared(kafka_cluster: KafkaCluster) -> None:
    """Over the wire; what a broker does not tell is not compared."""
    settings = kafka_settings(kafka_cluster, partitions=4, call_timeout_seconds=3)
    assert [state.state for state in create_queues(planned(settings), settings)] == ["exists"] * 3
    more = replace(settings, partitions=5)
    found = create_queues(planned(more), more)
    assert [state.differences for state in found] == [{"partitions": ("4", "5")}] * 3
