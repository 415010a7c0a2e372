"""What the queues of a deployment must be like, as decided from its settings; templates and provisioning follow it.

A dead letter must outlive the messages of the queue it came from: a standard queue keeps the time at which a message
was first sent, so one that was retried for days would be gone on arrival.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from airflow_provider_ai.core.config import require
from airflow_provider_ai.core.transport_settings import TransportSettings

REQUESTS, RESULTS, DEAD_LETTERS = "requests", "results", "dead_letters"
DAY_SECONDS = 86_400
RETENTION_DAYS = 4
DEAD_RETENTION_DAYS = 14
MOST_RECEIVES = 1000
"""``maxReceiveCount`` at most. Replies get so many: a dispatcher whose store is down receives them again and again."""
LARGEST_MESSAGE_BYTES = 1024 * 1024
_KMS_DATA_KEY_SECONDS = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class QueuePlan:
    """One queue.

    :param role: ``requests``, ``results`` or ``dead_letters``
    :param max_receives: deliveries after which a message goes to the dead letters; None for a queue without them
    """

    name: str
    role: str
    visibility_seconds: int
    retention_days: int
    max_receives: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueState:
    """What became of a planned queue.

    :param state: ``created``, ``exists`` or ``differs``: it was there with other attributes, and was left as it is
    :param differences: attribute → as it is, as it should be
    """

    name: str
    role: str
    state: str
    differences: Mapping[str, tuple[str, str]] = field(default_factory=dict)


def plan_queues(
    settings: TransportSettings, *, visibility_seconds: float, reply_visibility_seconds: float, max_attempts: int
) -> tuple[QueuePlan, QueuePlan, QueuePlan]:
    """The dead letters first, for the others name them.

    :param visibility_seconds: of a worker's requests
    :param reply_visibility_seconds: of what a dispatcher receives
    :param max_attempts: of a job; the queue must be more patient, for only the worker knows the reason
    """
    patient = settings.kind == "kafka" or settings.max_receives > max_attempts
    require(patient, f"max_receives must be more than max_attempts ({max_attempts})", settings.max_receives)
    kept = {"visibility_seconds": round(reply_visibility_seconds), "retention_days": RETENTION_DAYS}
    dead = {**kept, "retention_days": DEAD_RETENTION_DAYS, "max_receives": None}
    worked = {**kept, "visibility_seconds": round(visibility_seconds), "max_receives": settings.max_receives}
    return (
        QueuePlan(name=settings.dead_letter_queue, role=DEAD_LETTERS, **dead),  # type: ignore[arg-type]
        QueuePlan(name=settings.request_queue, role=REQUESTS, **worked),
        QueuePlan(name=settings.result_queue, role=RESULTS, **kept, max_receives=MOST_RECEIVES),
    )


def sqs_attributes(plan: QueuePlan, settings: TransportSettings) -> dict[str, str]:
    """Of a queue of SQS, as CreateQueue takes them; without the policies, which need ARNs."""
    attributes = {
        "MessageRetentionPeriod": str(plan.retention_days * DAY_SECONDS),
        "VisibilityTimeout": str(plan.visibility_seconds),
        "MaximumMessageSize": str(LARGEST_MESSAGE_BYTES),
    }
    if settings.kms_key_id is None:
        attributes["SqsManagedSseEnabled"] = "true"
    else:
        attributes["KmsMasterKeyId"] = settings.kms_key_id
        attributes["KmsDataKeyReusePeriodSeconds"] = str(_KMS_DATA_KEY_SECONDS)
    if settings.fifo:
        attributes |= {
            "FifoQueue": "true",
            "ContentBasedDeduplication": "false",
            "DeduplicationScope": "messageGroup",
            "FifoThroughputLimit": "perMessageGroupId",
        }
    return attributes


def redrive_policy(plan: QueuePlan, dead_letter_arn: Any) -> dict[str, Any]:
    """Of a queue that has dead letters."""
    return {"deadLetterTargetArn": dead_letter_arn, "maxReceiveCount": plan.max_receives}


def tls_policy(queue_arn: Any) -> dict[str, Any]:
    """The resource policy that refuses everyone who comes without TLS."""
    return {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Sid": "DenyWithoutTLS",
                "Effect": "Deny",
                "Principal": "*",
                "Action": "sqs:*",
                "Resource": queue_arn,
                "Condition": {"Bool": {"aws:SecureTransport": "false"}},
            }
        ],
    }


def topic_config(plan: QueuePlan) -> dict[str, str]:
    """Of a topic of Kafka."""
    milliseconds = plan.retention_days * DAY_SECONDS * 1000
    return {"cleanup.policy": "delete", "retention.ms": str(milliseconds)}


def differences_of(wanted: Mapping[str, str], found: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """Attributes that are not as they should be: as they are, as they should be. JSON is compared by meaning."""
    absent = "(not set)"
    return {
        name: (found.get(name, absent), value)
        for name, value in wanted.items()
        if name not in found or _meaning(found[name]) != _meaning(value)
    }


def _meaning(value: str) -> Any:
    if not value.startswith("{"):
        return value
    try:
        document = json.loads(value)
    except ValueError:
        return value
    return {key: str(each) if isinstance(each, int) else each for key, each in document.items()}
