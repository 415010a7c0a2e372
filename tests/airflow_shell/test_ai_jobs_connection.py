"""Connections of type ``ai_jobs``: what they say, what is refused, and what the Test button tells."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

import pytest

from airflow_provider_ai.core.claim_settings import ClaimCheckSettings
from airflow_provider_ai.core.config import StorageOptions
from airflow_provider_ai.exceptions import SpecError
from airflow_provider_ai.get_provider_info import get_provider_info
from airflow_provider_ai.hooks import ai_jobs
from airflow_provider_ai.hooks.ai_jobs import AIJobsHook
from tests.airflow_shell.job_deployment import JobDeployment, jobs

__all__ = ["jobs"]
SECRET = "whsec_" + base64.b64encode(b"s" * 32).decode()
QUEUES = {"request_queue": "requests", "result_queue": "results", "dead_letter_queue": "dead"}
EXTRA = {**QUEUES, "claim_check_uri": "/lake/claims"}
Set = Callable[..., None]


def test_sqs_with_as_little_as_possible(set_connection: Set) -> None:
    """Keys and region come from the AWS environment, the store is the one of the calls."""
    set_connection("ai_jobs", conn_type="ai_jobs", extra=EXTRA)
    set_connection("ai_store", conn_type="sqlite", host="/store.db")
    settings = AIJobsHook().get_conn()
    assert (settings.transport.kind, settings.transport.queues) == ("sqs", ("requests", "results", "dead"))
    assert (settings.transport.endpoint_url, settings.transport.access_key) == (None, None)
    assert settings.store == "sqlite:////store.db"
    assert settings.claim_check == ClaimCheckSettings(uri="/lake/claims", inline_limit_bytes=65_536)
    assert settings.storage is None


def test_keys_from_an_aws_connection(set_connection: Set) -> None:
    """For SQS and for the claim checks on S3; what the connection itself says goes first."""
    extra = {**EXTRA, "claim_check_uri": "s3://lake/claims", "aws_conn_id": "lake", "region": "eu-west-1"}
    set_connection("ai_jobs", conn_type="ai_jobs", host="https://sqs.example.org", extra=extra)
    aws = {"region_name": "us-east-1", "endpoint_url": "https://aws.example.org"}
    set_connection("lake", conn_type="aws", login="KEY", password="s3cr3t-value", extra=aws)
    settings = AIJobsHook().get_conn()
    transport = settings.transport
    assert (transport.endpoint_url, transport.region) == ("https://sqs.example.org", "eu-west-1")
    assert (transport.access_key, transport.secret_key) == ("KEY", "s3cr3t-value")
    assert settings.storage == StorageOptions(
        access_key="KEY", secret_key="s3cr3t-value", region="us-east-1", endpoint_url="https://aws.example.org"
    )
    assert "s3cr3t-value" not in repr(settings)


def test_kafka(set_connection: Set) -> None:
    """Brokers, user and password in the fields that people know."""
    extra = {**EXTRA, "kind": "kafka", "sasl_mechanism": "PLAIN", "consumer_group": "airflow", "ca_file": "/ca.pem"}
    extra["session_timeout_seconds"] = 6
    set_connection("ai_jobs", conn_type="ai_jobs", host="b1:9093,b2:9093", login="u", password="p", extra=extra)
    transport = AIJobsHook().connection().transport
    assert (transport.bootstrap_servers, transport.sasl_username, transport.sasl_password) == (
        "b1:9093,b2:9093",
        "u",
        "p",
    )
    assert (transport.security, transport.consumer_group) == ("sasl_ssl", "airflow")
    assert transport.session_timeout_seconds == 6


def test_another_store_and_two_secrets(set_connection: Set) -> None:
    """An operator may name the store itself; two keys are active while they are rotated."""
    extra = {**EXTRA, "store_conn_id": "jobs_store", "webhook_secret": SECRET, "webhook_second_secret": "whsec_b2xk"}
    set_connection("ai_jobs", conn_type="ai_jobs", extra=extra)
    for name in ("jobs_store", "mine"):
        set_connection(name, conn_type="sqlite", host=f"/{name}.db")
    assert AIJobsHook().get_conn().store.endswith("/jobs_store.db")
    assert AIJobsHook("ai_jobs", "mine").get_conn().store.endswith("/mine.db")
    connection = AIJobsHook().connection()
    assert connection.webhook_secrets == (SECRET, "whsec_b2xk")
    assert SECRET not in repr(connection)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"extra": {**EXTRA, "request_queue": ""}}, "request_queue is missing"),
        ({"extra": QUEUES}, "claim_check_uri is missing"),
        ({"extra": {**EXTRA, "claim_check_uri": "claims/"}}, "claim_check_uri must be s3://"),
        ({"extra": {**EXTRA, "inline_limit_bytes": 10**9}}, "inline_limit_bytes must be an integer"),
        ({"extra": {**EXTRA, "inline_limit_bytes": "many"}}, "'inline_limit_bytes' must be an integer"),
        ({"extra": {**EXTRA, "kind": "rabbit"}}, "kind must be one of"),
        ({"extra": {**EXTRA, "request_qeue": "x"}}, "did you mean 'request_queue'"),
        ({"extra": EXTRA, "host": "http://sqs.example.org"}, "must be https://"),
        ({"extra": EXTRA, "login": "KEY", "password": "s3cr3t-value"}, "name an AWS connection"),
        ({"extra": {**EXTRA, "kind": "kafka"}}, "bootstrap_servers must be"),
    ],
)
def test_what_cannot_be_right_is_refused(set_connection: Set, fields: dict[str, Any], words: str) -> None:
    """The message names the connection and what to correct, never a secret."""
    set_connection("ai_jobs", conn_type="ai_jobs", **fields)
    with pytest.raises(SpecError, match=words) as error:
        AIJobsHook().connection()
    assert "connection 'ai_jobs'" in str(error.value)
    assert "s3cr3t-value" not in str(error.value)


def test_the_test_button_says_what_waits(jobs: JobDeployment) -> None:
    """Store and queues were reached."""
    ready, told = AIJobsHook().test_connection()
    assert ready
    assert "requests about 0" in told
    assert "store.db" in told


def test_the_test_button_says_what_is_wrong(jobs: JobDeployment, set_connection: Set) -> None:
    """It never raises."""
    jobs.transport.requests.available = False  # type: ignore[attr-defined]
    ready, told = AIJobsHook().test_connection()
    assert not ready
    assert "requests" in told
    set_connection("ai_jobs", conn_type="ai_jobs", extra={})
    assert AIJobsHook().test_connection()[0] is False


def test_the_form_has_a_field_for_each_extra() -> None:
    """And none that nobody reads; secrets are masked in it."""
    [form] = [each for each in get_provider_info()["connection-types"] if each["connection-type"] == "ai_jobs"]
    fields = form["conn-fields"]
    assert set(fields) == set(ai_jobs.EXTRAS) - {"call_timeout_seconds"}
    masked = {name for name, field in fields.items() if field["schema"].get("format") == "password"}
    assert masked == {"webhook_secret", "webhook_second_secret"}


def test_airflow_lists_the_connection_type() -> None:
    """The providers manager accepts the declaration."""
    from airflow.providers_manager import ProvidersManager

    manager = ProvidersManager()
    assert manager.hooks["ai_jobs"].hook_name == "AI jobs"
    assert manager.field_behaviours["ai_jobs"]["relabeling"]["login"] == "Kafka user"
