"""Settings that cannot be right are refused where they are made, with what was wrong and no secret in it."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_ai.core.transport_settings import TransportSettings
from airflow_provider_ai.exceptions import SpecError

NAMES = {"request_queue": "r", "result_queue": "s", "dead_letter_queue": "d"}
FIFO = {name: f"{value}.fifo" for name, value in NAMES.items()}


def sqs(**changes: Any) -> TransportSettings:
    return TransportSettings(**{"kind": "sqs", **NAMES, **changes})


def kafka(**changes: Any) -> TransportSettings:
    return TransportSettings(**{"kind": "kafka", **NAMES, "bootstrap_servers": "127.0.0.1:9092", **changes})


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"kind": "rabbitmq"}, "kind must be one of"),
        ({"request_queue": "a b"}, "request_queue must be a name of kind 'sqs'"),
        ({"request_queue": "r.fifo"}, "request_queue must be a name"),  # that would be sqs-fifo
        ({"request_queue": "x" * 81}, "request_queue must be a name"),
        ({"result_queue": "r"}, "three queues"),
        ({"call_timeout_seconds": 0}, "call_timeout_seconds must be a number > 0"),
        ({"max_receives": 0}, "max_receives must be an integer ≥ 1"),
        ({"endpoint_url": "http://sqs.example.org"}, "https:// unless it is on this machine"),
        ({"endpoint_url": "http://user:SECRET@127.0.0.1"}, "without credentials"),
        ({"endpoint_url": "ftp://127.0.0.1"}, "endpoint_url must look like"),
        ({"access_key": "SECRET"}, "must come together"),
        ({"bootstrap_servers": "b:1"}, "bootstrap_servers must be absent with kind 'sqs'"),
        ({"kind": "sqs-fifo"}, "request_queue must be a name of kind 'sqs-fifo'"),
    ],
)  # fmt: skip
def test_sqs_settings_that_cannot_be_right(changes: dict[str, Any], text: str) -> None:
    with pytest.raises(SpecError, match=text) as refused:
        sqs(**changes)
    assert "SECRET" not in str(refused.value)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"bootstrap_servers": None}, "bootstrap_servers must be host:port"),
        ({"bootstrap_servers": "kafka"}, "bootstrap_servers must be host:port"),
        ({"request_queue": ".."}, "request_queue must be a name of kind 'kafka'"),
        ({"region": "us-east-1"}, "region must be absent with kind 'kafka'"),
        ({"consumer_group": "a b"}, "consumer_group must be letters"),
        ({"bootstrap_servers": "k:9092", "security_protocol": "plaintext"}, "ssl or sasl_ssl beyond this machine"),
        ({"bootstrap_servers": "127.0.0.1:1,k:9092", "security_protocol": "plaintext"}, "beyond this machine"),
        ({"sasl_mechanism": "PLAIN"}, "sasl_username and sasl_password must come"),
        ({"sasl_mechanism": "GSSAPI"}, "sasl_mechanism must be one of"),
        ({"security_protocol": "sasl_ssl"}, "exactly when sasl_mechanism is given"),
        ({"client_key_file": "k.pem"}, "client_key_file must come with client_cert_file"),
        ({"partitions": 0}, "partitions must be an integer"),
        ({"session_timeout_seconds": 0.5}, "session_timeout_seconds must be a number ≥ 1"),
    ],
)  # fmt: skip
def test_kafka_settings_that_cannot_be_right(changes: dict[str, Any], text: str) -> None:
    with pytest.raises(SpecError, match=text):
        kafka(**changes)


@pytest.mark.parametrize(
    ("settings", "security"),
    [
        (kafka(), "plaintext"),
        (kafka(bootstrap_servers="[::1]:9092, localhost:9093"), "plaintext"),
        (kafka(bootstrap_servers="k1:9092,k2:9092"), "ssl"),
        (kafka(bootstrap_servers="k:1", sasl_mechanism="PLAIN", sasl_username="u", sasl_password="p"), "sasl_ssl"),
        (kafka(sasl_mechanism="PLAIN", sasl_username="u", sasl_password="p"), "sasl_plaintext"),
        (kafka(bootstrap_servers="k:1", security_protocol="plaintext", allow_plaintext=True), "plaintext"),
    ],
)  # fmt: skip
def test_tls_is_the_rule_beyond_this_machine(settings: TransportSettings, security: str) -> None:
    assert settings.security == security


def test_what_is_local_needs_no_tls_and_what_is_trusted_neither() -> None:
    assert sqs(endpoint_url="http://127.0.0.1:4566").local
    assert sqs(endpoint_url="http://localhost:4566").local
    assert not sqs().local
    assert not sqs(endpoint_url="http://sqs.internal", allow_plaintext=True).local
    assert not sqs(endpoint_url="https://sqs.eu-central-1.amazonaws.com").local


def test_a_fifo_queue_is_called_so() -> None:
    settings = TransportSettings(kind="sqs-fifo", **FIFO)
    assert settings.fifo
    assert settings.queues == ("r.fifo", "s.fifo", "d.fifo")


def test_no_secret_is_shown() -> None:
    shown = repr(sqs(access_key="SECRET1", secret_key="SECRET2", session_token="SECRET3"))
    shown += repr(kafka(sasl_mechanism="PLAIN", sasl_username="u", sasl_password="SECRET4"))
    assert "SECRET" not in shown
