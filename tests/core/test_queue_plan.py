"""The planned queues, and the templates that say the same."""

from __future__ import annotations

import json
from typing import Any

import pytest

from airflow_provider_ai.core.queue_plan import (
    QueuePlan,
    differences_of,
    plan_queues,
    sqs_attributes,
    tls_policy,
)
from airflow_provider_ai.core.queue_templates import cloudformation, terraform
from airflow_provider_ai.core.transport_settings import TransportSettings
from airflow_provider_ai.exceptions import SpecError
from tests.core.test_transport_settings import FIFO, kafka, sqs


def planned(settings: TransportSettings, **changes: Any) -> tuple[QueuePlan, QueuePlan, QueuePlan]:
    chosen = {"visibility_seconds": 30, "reply_visibility_seconds": 60, "max_attempts": 5, **changes}
    return plan_queues(settings, **chosen)


def test_a_dead_letter_outlives_the_messages_of_its_source() -> None:
    """A standard queue keeps the time at which a message was first sent."""
    dead, requests, results = planned(sqs())
    assert dead.retention_days > max(requests.retention_days, results.retention_days)
    assert (dead.max_receives, requests.max_receives, results.max_receives) == (None, 30, 1000)
    assert (requests.visibility_seconds, results.visibility_seconds) == (30, 60)


def test_a_queue_is_more_patient_than_the_worker() -> None:
    """Else the job would end without the worker's reason."""
    with pytest.raises(SpecError, match=r"max_receives must be more than max_attempts \(5\), got 5"):
        planned(sqs(max_receives=5))
    assert planned(kafka(), max_attempts=500)  # topics have no such policy


def test_queues_are_encrypted_at_rest() -> None:
    """With the key that is given, or else with SQS's own."""
    own = sqs_attributes(planned(sqs())[1], sqs())
    assert own["SqsManagedSseEnabled"] == "true"
    keyed = sqs(kms_key_id="alias/ai")
    attributes = sqs_attributes(planned(keyed)[1], keyed)
    assert attributes["KmsMasterKeyId"] == "alias/ai"
    assert "SqsManagedSseEnabled" not in attributes


def test_differences_are_found_by_meaning() -> None:
    """The order of JSON's keys is none, and so it is with 30 and "30"."""
    wanted = {"A": "1", "RedrivePolicy": '{"deadLetterTargetArn": "x", "maxReceiveCount": 30}'}
    found = {"A": "2", "RedrivePolicy": '{"maxReceiveCount":"30","deadLetterTargetArn":"x"}', "Other": "9"}
    assert differences_of(wanted, found) == {"A": ("2", "1")}
    assert differences_of({"A": "1"}, {}) == {"A": ("(not set)", "1")}
    assert differences_of({"P": "{}"}, {"P": "{broken"}) == {"P": ("{broken", "{}")}


@pytest.mark.parametrize("settings", [sqs(), TransportSettings(kind="sqs-fifo", **FIFO), sqs(kms_key_id="alias/ai")])
def test_cloudformation_says_what_create_does(settings: TransportSettings) -> None:
    """Attribute by attribute; every queue has its dead letters and refuses whoever comes without TLS."""
    plans = planned(settings)
    resources = json.loads(cloudformation(plans, settings))["Resources"]
    for plan, label in zip(plans, ("DeadLetters", "Requests", "Results"), strict=True):
        properties = dict(resources[label]["Properties"])
        assert properties.pop("QueueName") == plan.name
        redrive = properties.pop("RedrivePolicy", None)
        texts = {name: json.dumps(value).strip('"') for name, value in properties.items()}
        assert texts == sqs_attributes(plan, settings)
        if plan.max_receives is not None:
            assert redrive == {
                "deadLetterTargetArn": {"Fn::GetAtt": ["DeadLetters", "Arn"]},
                "maxReceiveCount": plan.max_receives,
            }
        policy = resources[f"{label}Policy"]["Properties"]
        assert policy["PolicyDocument"] == tls_policy({"Fn::GetAtt": [label, "Arn"]})
        assert policy["Queues"] == [{"Ref": label}]


def test_terraform_says_the_same() -> None:
    """One resource a queue, one for its policy; nothing in a name or key is taken for a template."""
    settings = sqs(kms_key_id="alias/${file}")
    text = terraform(planned(settings), settings)
    assert text.count('resource "aws_sqs_queue" ') == text.count('resource "aws_sqs_queue_policy" ') == 3
    assert text.count("deadLetterTargetArn = aws_sqs_queue.dead_letters.arn") == 2
    assert "maxReceiveCount = 30" in text
    assert '"aws:SecureTransport" = "false"' in text
    assert '"alias/$${file}"' in text
    assert "message_retention_seconds         = 1209600" in text
    assert text.count("{") == text.count("}")


def test_topics_have_a_terraform_template_and_no_other() -> None:
    settings = kafka(partitions=6)
    text = terraform(planned(settings), settings)
    assert text.count('resource "kafka_topic"') == 3
    assert '"retention.ms" = "1209600000"' in text
    assert "partitions         = 6" in text
    with pytest.raises(SpecError, match="CloudFormation makes no topics"):
        cloudformation(planned(settings), settings)
