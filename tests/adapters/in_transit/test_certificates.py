"""Every client of ours against every server that must not be trusted: refused, for good, and told nothing.

What the server was told is counted at the server. A server of the same kind that is to be trusted is told something, so
the count would see it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import pytest
from pyarrow.fs import FileSystem

from airflow_provider_ai.adapters.endpoints.opening import open_endpoint
from airflow_provider_ai.adapters.endpoints.readiness import check_ready
from airflow_provider_ai.adapters.filesystems import open_filesystem
from airflow_provider_ai.adapters.queues import open_transport
from airflow_provider_ai.adapters.webhooks import HttpWebhookSender
from airflow_provider_ai.core.config import EndpointSettings, StorageOptions
from airflow_provider_ai.core.fallback import Static
from airflow_provider_ai.core.job_ports import OutgoingMessage
from airflow_provider_ai.core.job_settings import WebhookSettings
from airflow_provider_ai.core.ports import CallFailedError
from airflow_provider_ai.core.requests import JsonRequest
from airflow_provider_ai.core.transport_settings import TransportSettings
from airflow_provider_ai.exceptions import QueueError
from airflow_provider_ai.runtime.sync_call import SyncCaller
from tests.adapters.in_transit.servers import UNTRUSTED, good
from tests.support.certificates import Authority
from tests.support.tls_peer import tls_peer

CANARY = "canary-4711"
BODY = b'{"QueueUrl": "https://127.0.0.1/a"}'
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(BODY), BODY)
SECRET = "whsec_" + "A" * 40
Client = Callable[[int, str], str | None]
"""Talks to a port, trusting a CA file; why it did not, in a word, or None when it did."""


def _endpoint(port: int, ca_file: str) -> EndpointSettings:
    return EndpointSettings(url=f"https://127.0.0.1:{port}", protocol="json", model="m", ca_file=ca_file)


def batch(port: int, ca_file: str) -> str | None:
    """As the engine and the worker call."""

    async def post() -> str | None:
        async with open_endpoint(_endpoint(port, ca_file), max_response_bytes=1000) as endpoint:
            try:
                await endpoint.post("/", CANARY.encode(), deadline_seconds=5)
            except CallFailedError as error:
                return str(error) if error.permanent else None
        return None

    return asyncio.run(post())


def sync(port: int, ca_file: str) -> str | None:
    """The synchronous pattern: the answer is the fallback's, and says why."""
    with SyncCaller(
        endpoint=_endpoint(port, ca_file), request=JsonRequest(), fallback=[Static({"by": "fallback"})]
    ) as caller:
        answer = caller.call({"note": CANARY})
    # An answer that cannot be used is one of a server that was talked to.
    return None if answer.reason == "invalid_answer" else f"{answer.reason} {answer.detail}"


def readiness(port: int, ca_file: str) -> str | None:
    """The sensor and the Test button."""
    found = check_ready(_endpoint(port, ca_file))
    return None if found.ready else found.detail


def webhook(port: int, ca_file: str) -> str | None:
    """The delivery of a result."""
    settings = WebhookSettings(url=f"https://127.0.0.1:{port}", secret=SECRET, ca_file=ca_file)

    async def send() -> str | None:
        async with HttpWebhookSender(settings) as sender:
            delivered = await sender.send("job", CANARY.encode())
            assert not delivered.again, "it would be tried again"
            return None if delivered.done else delivered.detail

    return asyncio.run(send())


def sqs(port: int, ca_file: str) -> str | None:
    """A queue."""
    settings = TransportSettings(
        kind="sqs",
        request_queue="a",
        result_queue="b",
        dead_letter_queue="c",
        endpoint_url=f"https://127.0.0.1:{port}",
        region="us-east-1",
        access_key="test",
        secret_key="test",
        ca_file=ca_file,
        call_timeout_seconds=1,
    )
    transport = open_transport(settings)
    try:
        transport.requests.send([OutgoingMessage(key="k", body=CANARY.encode())])
    except QueueError as error:
        # Our canned answer is none of SQS's, which is another matter.
        return str(error) if "TLS" in str(error) else None
    finally:
        transport.close()
    return None


def s3(port: int, ca_file: str) -> str | None:
    """Checkpoints, datasets and claim checks."""
    options = StorageOptions(
        access_key="test",
        secret_key="test",
        region="us-east-1",
        endpoint_url=f"https://127.0.0.1:{port}",
        ca_file=ca_file,
    )
    filesystem: FileSystem = open_filesystem("s3://bucket/key", options)[0]
    try:
        with filesystem.open_output_stream("bucket/key") as stream:
            stream.write(CANARY.encode())
    except OSError as error:
        return str(error)
    return None


CLIENTS: dict[str, Client] = {
    "batch": batch,
    "sync": sync,
    "readiness": readiness,
    "webhook": webhook,
    "sqs": sqs,
    "s3": s3,
}


@pytest.mark.parametrize("case", UNTRUSTED)
@pytest.mark.parametrize("client", CLIENTS)
def test_a_server_that_must_not_be_trusted(client: str, case: str, authority: Authority, stranger: Authority) -> None:
    """It is told nothing of what was to be sent, and the client says that it could not."""
    with tls_peer(UNTRUSTED[case](authority, stranger), answer=ANSWER) as peer:
        started = time.monotonic()
        assert CLIENTS[client](peer.port, authority.ca_file) is not None
        assert time.monotonic() - started < 30
    assert peer.connections >= 1
    told = peer.told if case != "plaintext" else 0  # there, what is told is the beginning of a handshake
    assert told == 0
    assert CANARY.encode() not in peer.heard


@pytest.mark.parametrize("client", CLIENTS)
def test_the_one_that_is(client: str, authority: Authority) -> None:
    """With the file of its authority it is told everything."""
    with tls_peer(good(authority), answer=ANSWER) as peer:
        CLIENTS[client](peer.port, authority.ca_file)
    assert peer.told > 0
    # S3 begins with another call, which our answer does not answer; it has a test with a real one.
    assert client in ("readiness", "s3") or CANARY.encode() in peer.heard


@pytest.mark.parametrize("client", ["batch", "sync", "readiness", "webhook", "sqs"])
@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_is_not_followed(client: str, status: int, authority: Authority) -> None:
    """Neither to a server in clear nor to another one behind TLS: neither is even connected to."""
    with tls_peer(None, answer=ANSWER) as clear, tls_peer(good(authority), answer=ANSWER) as other:
        for target in (f"http://127.0.0.1:{clear.port}/", f"https://127.0.0.1:{other.port}/"):
            moved = f"HTTP/1.1 {status} Moved\r\nLocation: {target}\r\nContent-Length: 0\r\n\r\n".encode()
            with tls_peer(good(authority), answer=moved) as peer:
                CLIENTS[client](peer.port, authority.ca_file)
            assert peer.told > 0
        assert (clear.connections, other.connections) == (0, 0)
