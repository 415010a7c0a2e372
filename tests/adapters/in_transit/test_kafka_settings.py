"""Kafka over TLS: what librdkafka is told. The mock broker of the tests speaks no TLS: refusals are not run."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_ai.adapters.queues.kafka_service import _common
from airflow_provider_ai.core.transport_settings import TransportSettings

QUEUES = {"request_queue": "a", "result_queue": "b", "dead_letter_queue": "c"}
VERIFIED = {"enable.ssl.certificate.verification": True, "ssl.endpoint.identification.algorithm": "https"}


def told(**settings: Any) -> dict[str, Any]:
    return _common(TransportSettings(kind="kafka", bootstrap_servers="b.example.org:9093", **QUEUES, **settings))


@pytest.mark.parametrize(
    "settings",
    [{}, {"sasl_mechanism": "PLAIN", "sasl_username": "u", "sasl_password": "p"}, {"security_protocol": "ssl"}],
)
def test_certificates_and_hosts_are_verified(settings: dict[str, Any]) -> None:
    """Said, and not left to the defaults of the library that happens to be installed."""
    assert VERIFIED.items() <= told(**settings).items()


def test_a_private_authority_and_a_client_certificate() -> None:
    """As paths of PEM files."""
    files = told(ca_file="/ca.pem", client_cert_file="/c.pem", client_key_file="/c.key")
    assert [files[f"ssl.{name}.location"] for name in ("ca", "certificate", "key")] == ["/ca.pem", "/c.pem", "/c.key"]


def test_librdkafka_knows_them() -> None:
    """A misspelt property would be an error of every client."""
    from confluent_kafka import Producer

    Producer(told())


def test_plaintext_has_none_of_it() -> None:
    """Where it is allowed."""
    assert not VERIFIED.keys() & told(security_protocol="plaintext", allow_plaintext=True).keys()
