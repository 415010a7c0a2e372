"""The planned queues as text for those who make queues with Terraform or CloudFormation."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from airflow_provider_ai.core.queue_plan import (
    DEAD_LETTERS,
    QueuePlan,
    redrive_policy,
    sqs_attributes,
    tls_policy,
    topic_config,
)
from airflow_provider_ai.core.transport_settings import TransportSettings
from airflow_provider_ai.exceptions import SpecError

_LABELS = {"requests": "Requests", "results": "Results", "dead_letters": "DeadLetters"}
_USUAL_REPLICAS = 3
_TERRAFORM_NAMES = {
    "MessageRetentionPeriod": "message_retention_seconds",
    "VisibilityTimeout": "visibility_timeout_seconds",
    "MaximumMessageSize": "max_message_size",
    "SqsManagedSseEnabled": "sqs_managed_sse_enabled",
    "KmsMasterKeyId": "kms_master_key_id",
    "KmsDataKeyReusePeriodSeconds": "kms_data_key_reuse_period_seconds",
    "FifoQueue": "fifo_queue",
    "ContentBasedDeduplication": "content_based_deduplication",
    "DeduplicationScope": "deduplication_scope",
    "FifoThroughputLimit": "fifo_throughput_limit",
}


def terraform(plans: Sequence[QueuePlan], settings: TransportSettings) -> str:
    """HCL: the providers ``hashicorp/aws``, or ``Mongey/kafka`` for topics."""
    if settings.kind == "kafka":
        return "\n".join(_topic(plan, settings) for plan in plans)
    return "\n".join(_sqs_queue(plan, settings) for plan in plans)


def cloudformation(plans: Sequence[QueuePlan], settings: TransportSettings) -> str:
    """A template in JSON. SpecError for topics, which CloudFormation does not make."""
    if settings.kind == "kafka":
        raise SpecError("CloudFormation makes no topics: use --print terraform, or create them without --print")
    resources: dict[str, Any] = {}
    for plan in plans:
        label = _LABELS[plan.role]
        resources[label] = {"Type": "AWS::SQS::Queue", "Properties": _properties(plan, settings)}
        resources[f"{label}Policy"] = {
            "Type": "AWS::SQS::QueuePolicy",
            "Properties": {"Queues": [{"Ref": label}], "PolicyDocument": tls_policy(_arn(label))},
        }
    outputs = {f"{_LABELS[plan.role]}Arn": {"Value": _arn(_LABELS[plan.role])} for plan in plans}
    template = {"AWSTemplateFormatVersion": "2010-09-09", "Resources": resources, "Outputs": outputs}
    return json.dumps(template, indent=2) + "\n"


# --- CloudFormation


def _arn(label: str) -> dict[str, list[str]]:
    return {"Fn::GetAtt": [label, "Arn"]}


def _properties(plan: QueuePlan, settings: TransportSettings) -> dict[str, Any]:
    typed = {name: _typed(value) for name, value in sqs_attributes(plan, settings).items()}
    properties: dict[str, Any] = {"QueueName": plan.name, **typed}
    if plan.max_receives is not None:
        properties["RedrivePolicy"] = redrive_policy(plan, _arn(_LABELS[DEAD_LETTERS]))
    return properties


def _typed(value: str) -> int | bool | str:
    if value in ("true", "false"):
        return value == "true"
    return int(value) if value.isdigit() else value


# --- Terraform


def _sqs_queue(plan: QueuePlan, settings: TransportSettings) -> str:
    values = {"name": _quoted(plan.name)}
    for name, value in sqs_attributes(plan, settings).items():
        typed = _typed(value)
        values[_TERRAFORM_NAMES[name]] = _quoted(typed) if isinstance(typed, str) else json.dumps(typed)
    lines = [f'resource "aws_sqs_queue" "{plan.role}" {{', *_aligned(values)]
    if plan.max_receives is not None:
        target = redrive_policy(plan, f"aws_sqs_queue.{DEAD_LETTERS}.arn")
        lines += [
            "",
            "  redrive_policy = jsonencode({",
            *(f"    {key} = {value}" for key, value in target.items()),
            "  })",
        ]
    return "\n".join([*lines, "}", "", *_queue_policy(plan), ""])


def _queue_policy(plan: QueuePlan) -> Iterator[str]:
    queue = f"aws_sqs_queue.{plan.role}"
    yield f'resource "aws_sqs_queue_policy" "{plan.role}" {{'
    yield f"  queue_url = {queue}.url"
    yield f"  policy    = jsonencode({_hcl(tls_policy(_Reference(f'{queue}.arn')))})"
    yield "}"


class _Reference(str):
    """HCL that is no text."""


def _hcl(value: Any) -> str:
    if isinstance(value, _Reference):
        return str(value)
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{_quoted(key)} = {_hcl(each)}" for key, each in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(_hcl, value)) + "]"
    return _quoted(value)


def _quoted(text: str) -> str:
    """A string in which nothing is a template: ``${`` and ``%{`` would be."""
    return json.dumps(text).replace("${", "$${").replace("%{", "%%{")


def _aligned(values: dict[str, str]) -> list[str]:
    width = max(map(len, values))
    return [f"  {name:{width}} = {value}" for name, value in values.items()]


def _topic(plan: QueuePlan, settings: TransportSettings) -> str:
    values = {
        "name": _quoted(plan.name),
        "partitions": str(settings.partitions),
        "replication_factor": str(settings.replication_factor or _USUAL_REPLICAS),
    }
    lines = [f'resource "kafka_topic" "{plan.role}" {{', *_aligned(values), "", "  config = {"]
    lines += [f"    {_quoted(name)} = {_quoted(value)}" for name, value in topic_config(plan).items()]
    return "\n".join([*lines, "  }", "}", ""])
