"""A real SQS and S3 behind TLS of a private authority: reached with its file, in settings or in AWS's own variable."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest

from airflow_provider_ai.adapters.claim_checks import StoredClaimChecks
from airflow_provider_ai.adapters.filesystems import open_filesystem
from airflow_provider_ai.adapters.queues import open_transport
from airflow_provider_ai.core.config import StorageOptions
from airflow_provider_ai.core.job_ports import OutgoingMessage
from airflow_provider_ai.core.transport_settings import TransportSettings
from airflow_provider_ai.exceptions import ClaimCheckUnavailableError, QueueError, SpecError
from tests.adapters.in_transit.servers import good
from tests.support.certificates import Authority
from tests.support.tls_peer import TlsPeer, tls_peer

pytestmark = pytest.mark.real
KEYS = {"access_key": "test", "secret_key": "test", "region": "us-east-1"}


@pytest.fixture
def behind_tls(ministack_server: Any, authority: Authority) -> Iterator[TlsPeer]:
    """MiniStack behind TLS."""
    port = int(ministack_server.url.rpartition(":")[2])
    with tls_peer(good(authority), forward=port) as peer:
        yield peer


@pytest.fixture
def queues(ministack_server: Any, behind_tls: TlsPeer, authority: Authority) -> TransportSettings:
    """Three queues of it."""
    names = [f"{kind}-{uuid4().hex[:8]}" for kind in ("requests", "results", "dead")]
    for name in names:
        ministack_server.client("sqs").create_queue(QueueName=name)
    return TransportSettings(
        kind="sqs",
        request_queue=names[0],
        result_queue=names[1],
        dead_letter_queue=names[2],
        endpoint_url=f"https://127.0.0.1:{behind_tls.port}",
        ca_file=authority.ca_file,
        call_timeout_seconds=5,
        **KEYS,
    )


def test_sqs(queues: TransportSettings, behind_tls: TlsPeer) -> None:
    """A message goes out through TLS."""
    transport = open_transport(queues)
    assert transport.requests.send([OutgoingMessage(key="k", body=b'"canary-4711"')]) == ["k"]
    transport.close()
    assert b"canary-4711" in behind_tls.heard


def test_sqs_with_the_authority_of_the_environment(
    queues: TransportSettings, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """AWS_CA_BUNDLE counts where the settings name no file; without either the server is a stranger."""
    alone = replace(queues, ca_file=None)
    transport = open_transport(alone)
    with pytest.raises(QueueError, match="TLS to SQS fails"):
        transport.requests.send([OutgoingMessage(key="k", body=b"1")])
    transport.close()
    monkeypatch.setenv("AWS_CA_BUNDLE", authority.ca_file)
    transport = open_transport(alone)
    assert transport.requests.send([OutgoingMessage(key="k", body=b"1")]) == ["k"]
    transport.close()


def test_a_plain_endpoint_from_aws_s_environment(queues: TransportSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is seen before anything is sent, though the settings do not hold it."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_SQS", "http://sqs.example.org")
    transport = open_transport(replace(queues, endpoint_url=None))
    with pytest.raises(SpecError, match="must be https://"):
        transport.requests.send([OutgoingMessage(key="k", body=b"1")])
    transport.close()


def test_s3(bucket: str, behind_tls: TlsPeer, authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    """Claim checks through TLS, trusted by the settings' file or AWS's variable; refused without."""
    options = StorageOptions(endpoint_url=f"https://127.0.0.1:{behind_tls.port}", ca_file=authority.ca_file, **KEYS)
    stored = StoredClaimChecks(f"s3://{bucket}/claims", options)
    assert stored.get(stored.put("a/b", b"canary-4711")) == b"canary-4711"
    assert b"canary-4711" in behind_tls.heard
    heard = behind_tls.told
    with pytest.raises(ClaimCheckUnavailableError):
        StoredClaimChecks(f"s3://{bucket}/claims", replace(options, ca_file=None)).put("c", b"1")
    assert behind_tls.told == heard
    monkeypatch.setenv("AWS_CA_BUNDLE", authority.ca_file)
    filesystem, path = open_filesystem(f"s3://{bucket}/claims/a/b", replace(options, ca_file=None))
    assert filesystem.open_input_stream(path).read() == b"canary-4711"
