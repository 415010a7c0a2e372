"""Making the planned queues where they are not there yet. What is there already is compared and left as it is."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow_provider_ai.core.queue_plan import (
    DEAD_LETTERS,
    QueuePlan,
    QueueState,
    differences_of,
    redrive_policy,
    sqs_attributes,
    tls_policy,
    topic_config,
)
from airflow_provider_ai.core.transport_settings import TransportSettings
from airflow_provider_ai.exceptions import QueueUnavailableError

if TYPE_CHECKING:
    from confluent_kafka.admin import AdminClient

    from airflow_provider_ai.adapters.queues.sqs_service import SqsService


def create_queues(plans: Sequence[QueuePlan], settings: TransportSettings) -> list[QueueState]:
    """Make those that are missing, in the order given; the dead letters come first.

    :raises QueueUnavailableError: when the service does not answer; a second call goes on
    :raises QueueError: when it refuses
    """
    if settings.kind == "kafka":
        from airflow_provider_ai.adapters.queues.kafka_service import KafkaService

        service = KafkaService(settings)
        try:
            return [topic_state(plan, settings, service.admin()) for plan in plans]
        finally:
            service.close()
    from airflow_provider_ai.adapters.queues.sqs_service import SqsService

    sqs = SqsService(settings)
    try:
        return _sqs_queues(plans, settings, sqs)
    finally:
        sqs.close()


# --- SQS


def _sqs_queues(plans: Sequence[QueuePlan], settings: TransportSettings, sqs: SqsService) -> list[QueueState]:
    states = []
    arns: dict[str, str] = {}
    for plan in plans:
        wanted = sqs_attributes(plan, settings)
        if plan.max_receives is not None:
            wanted["RedrivePolicy"] = json.dumps(redrive_policy(plan, arns[DEAD_LETTERS]))
        state, url = _sqs_queue(plan, wanted, sqs)
        found = _attributes(plan, url, sqs)
        arns[plan.role] = found["QueueArn"]
        if not settings.local:
            wanted["Policy"] = json.dumps(tls_policy(found["QueueArn"]))
            if state == "created":
                policy = {"Policy": wanted["Policy"]}
                sqs.call(plan.name, "set_queue_attributes", QueueUrl=url, Attributes=policy)
        differences = differences_of(wanted, found) if state == "exists" else {}
        states.append(_state(plan, "differs" if differences else state, differences))
    return states


def _sqs_queue(plan: QueuePlan, attributes: dict[str, str], sqs: SqsService) -> tuple[str, str]:
    """``exists`` or ``created``, and its URL."""
    from airflow_provider_ai.adapters.queues.sqs_service import QueueGoneError, RefusedCallError

    try:
        return "exists", str(sqs.call(plan.name, "get_queue_url", QueueName=plan.name)["QueueUrl"])
    except QueueGoneError:
        pass
    try:
        made = sqs.call(plan.name, "create_queue", QueueName=plan.name, Attributes=attributes)
    except RefusedCallError as error:
        if error.word not in ("QueueNameExists", "QueueAlreadyExists"):
            raise
        # Somebody else was faster, with other attributes.
        return "exists", str(sqs.call(plan.name, "get_queue_url", QueueName=plan.name)["QueueUrl"])
    return "created", str(made["QueueUrl"])


def _attributes(plan: QueuePlan, url: str, sqs: SqsService) -> dict[str, str]:
    answer = sqs.call(plan.name, "get_queue_attributes", QueueUrl=url, AttributeNames=["All"])
    found: dict[str, str] = answer["Attributes"]
    return found


# --- Kafka


def topic_state(plan: QueuePlan, settings: TransportSettings, admin: AdminClient) -> QueueState:
    """Make a topic unless it is there."""
    from confluent_kafka import KafkaException

    from airflow_provider_ai.adapters.queues.kafka_service import explained

    try:
        known: Any = admin.list_topics(timeout=settings.call_timeout_seconds).topics.get(plan.name)
        if known is None and _create_topic(plan, settings, admin):
            return _state(plan, "created", {})
        known = known or admin.list_topics(timeout=settings.call_timeout_seconds).topics[plan.name]
        found = {"partitions": str(len(known.partitions)), **_topic_config(plan, settings, admin)}
    except KafkaException as error:
        raise explained(plan.name, error.args[0]) from None
    wanted = {"partitions": str(settings.partitions), **topic_config(plan)}
    differences = differences_of({name: value for name, value in wanted.items() if name in found}, found)
    return _state(plan, "differs" if differences else "exists", differences)


def _create_topic(plan: QueuePlan, settings: TransportSettings, admin: AdminClient) -> bool:
    """Whether it was made here and not at the same time by somebody else."""
    from confluent_kafka import KafkaError, KafkaException
    from confluent_kafka.admin import NewTopic  # type: ignore[attr-defined]

    factor = -1 if settings.replication_factor is None else settings.replication_factor
    topic = NewTopic(plan.name, settings.partitions, factor, config=topic_config(plan))
    seconds = settings.call_timeout_seconds
    try:
        admin.create_topics([topic], request_timeout=seconds)[plan.name].result(seconds)
    except KafkaException as error:
        if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
            raise
        return False
    except TimeoutError:
        raise QueueUnavailableError(f"{plan.name}: Kafka does not answer; a retry can help") from None
    return True


def _topic_config(plan: QueuePlan, settings: TransportSettings, admin: AdminClient) -> dict[str, str]:
    """What the brokers say of a topic; nothing where they do not let us see it."""
    from confluent_kafka import KafkaException
    from confluent_kafka.admin import ConfigResource  # type: ignore[attr-defined]

    asked = ConfigResource(ConfigResource.Type.TOPIC, plan.name)
    seconds = settings.call_timeout_seconds
    try:
        entries: Any = admin.describe_configs([asked], request_timeout=seconds)[asked].result(seconds)
    except (KafkaException, TimeoutError):
        return {}
    return {name: str(entries[name].value) for name in topic_config(plan) if name in entries}


def _state(plan: QueuePlan, state: str, differences: dict[str, tuple[str, str]]) -> QueueState:
    return QueueState(name=plan.name, role=plan.role, state=state, differences=differences)
