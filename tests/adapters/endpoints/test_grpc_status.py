"""What each gRPC status means, and how the words of gRPC tell what the server said from what happened on the way."""

from __future__ import annotations

from typing import Any

import grpc
import pytest

from airflow_provider_ai.adapters.endpoints.grpc_status import Ended, reply_to
from airflow_provider_ai.adapters.endpoints.open_inference_messages import RetryInfo, Status
from airflow_provider_ai.core.backoff import retry_after_seconds
from airflow_provider_ai.core.ports import CallFailedError, Reply
from airflow_provider_ai.core.verdict import Failure
from tests.adapters.endpoints.calling import ANSWERED

SAID = {
    "INVALID_ARGUMENT": 400,
    "FAILED_PRECONDITION": 400,
    "OUT_OF_RANGE": 400,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "NOT_FOUND": 404,
    "ALREADY_EXISTS": 409,
    "RESOURCE_EXHAUSTED": 429,
    "INTERNAL": 500,
    "UNKNOWN": 500,
    "DATA_LOSS": 500,
    "UNIMPLEMENTED": 501,
    "ABORTED": 503,
    "UNAVAILABLE": 503,
}
FAILED = {"DEADLINE_EXCEEDED": Failure.TIMEOUT, "CANCELLED": Failure.DISCONNECTED}


def ended(code: str, text: str = ANSWERED, *, message: bytes | None = None, **trailers: str | bytes) -> Ended:
    named = {name.replace("_", "-"): value for name, value in trailers.items()}
    return Ended(code=code, text=text, message=message, trailers=named)


def meaning(of: Ended, *, tls: bool = False) -> Any:
    """The reply; or how the call failed, whether for good, and what is said of it."""
    try:
        return reply_to(of, tls=tls, max_bytes=1000)
    except CallFailedError as failed:
        return failed.failure, failed.permanent, str(failed)


def test_every_status_has_a_meaning() -> None:
    """None of gRPC's statuses is left out of the tables of this file."""
    assert {*SAID, *FAILED, "OK"} == {status.name for status in grpc.StatusCode}


@pytest.mark.parametrize("code", SAID)
def test_what_the_server_says(code: str) -> None:
    """It is an answer with the HTTP status of the same meaning; the text is dropped."""
    assert meaning(ended(code)) == Reply(SAID[code], b"")


@pytest.mark.parametrize("code", FAILED)
def test_no_answer(code: str) -> None:
    """A deadline that passed, here or at the server, and a call that something on the way has cancelled."""
    failure, permanent, said = meaning(ended(code))
    assert (failure, permanent, ANSWERED in said) == (FAILED[code], False, False)


def test_an_answer() -> None:
    """OK carries the message; without one the body is empty, which no reader takes for an answer."""
    assert meaning(ended("OK", "", message=b"abc")) == Reply(200, b"abc")
    assert meaning(ended("OK", "")) == Reply(200, b"")


LAST = "failed to connect to all addresses; last error: UNKNOWN: ipv4:127.0.0.1:1: "
OPENSSL = "SSL_ERROR_SSL: error:1000007d:SSL routines:OPENSSL_internal:"
NOTHING_SENT = [
    f"{LAST}Failed to connect to remote host: Connection refused",
    f"{LAST}Socket closed",
    "errors resolving model.invalid:80: [field:hostname lookup error: Domain name not found]",  # 1.85
    "DNS resolution failed for model.invalid:80: C-ares status is not ARES_SUCCESS",  # to 1.84
    "empty address list: ",
]
CUT_OFF = [
    "Stream removed (recvmsg:Connection reset by peer (104))",  # 1.85
    "recvmsg:Connection reset by peer",
    "Socket closed",
    "Broken pipe",
    "GOAWAY received; Error code: 0; Debug Text: ",
    "Cancelling all calls",  # a server that stops
]


@pytest.mark.parametrize("text", NOTHING_SENT)
def test_no_connection(text: str) -> None:
    """The request never left."""
    assert meaning(ended("UNAVAILABLE", text)) == (Failure.CONNECT, False, "gRPC UNAVAILABLE: no connection")


@pytest.mark.parametrize("text", CUT_OFF)
def test_a_connection_that_broke(text: str) -> None:
    """The request may have arrived."""
    assert meaning(ended("UNAVAILABLE", text))[:2] == (Failure.DISCONNECTED, False)


TROUBLE = {
    f"{LAST}Tls handshake failed (TSI_PROTOCOL_FAILURE): {OPENSSL}CERTIFICATE_VERIFY_FAILED: self signed: OK":
        "TLS: self signed",
    f"{LAST}Ssl handshake failed (TSI_PROTOCOL_FAILURE): {OPENSSL}CERTIFICATE_VERIFY_FAILED: certificate has expired":
        "TLS: certificate has expired",
    f"{LAST}Ssl handshake failed: {OPENSSL}CERTIFICATE_VERIFY_FAILED":  # 1.63
        "TLS: the handshake fails (CERTIFICATE_VERIFY_FAILED)",
    f"{LAST}Tls handshake failed (TSI_PROTOCOL_FAILURE): {OPENSSL}WRONG_VERSION_NUMBER: Invalid certificate":
        "TLS: the handshake fails (WRONG_VERSION_NUMBER)",
    f"{LAST}Custom verification check failed with error: UNAUTHENTICATED: Hostname Verification Check failed.":
        "TLS: Hostname mismatch, certificate is not valid for the endpoint's host",
    f"{LAST}Peer name 127.0.0.1 is not in peer certificate":
        "TLS: Hostname mismatch, certificate is not valid for the endpoint's host",
}  # fmt: skip


@pytest.mark.parametrize("text", TROUBLE)
def test_a_certificate_that_is_refused(text: str) -> None:
    """No later call can mend it, and what is wrong is said; over a plain connection there is no certificate."""
    assert meaning(ended("UNAVAILABLE", text), tls=True) == (Failure.CONNECT, True, TROUBLE[text])
    assert meaning(ended("UNAVAILABLE", text), tls=False)[:2] == (Failure.CONNECT, False)


def test_a_handshake_that_breaks() -> None:
    """A server that goes down in the handshake may come back."""
    text = f"{LAST}Handshake read failed (recvmsg:Connection reset by peer (104))"
    assert meaning(ended("UNAVAILABLE", text), tls=True)[:2] == (Failure.CONNECT, False)


def test_a_server_that_speaks_of_certificates() -> None:
    """Its words in an answer are no finding of ours."""
    assert meaning(ended("UNAVAILABLE", f"upstream: {OPENSSL}CERTIFICATE_VERIFY_FAILED"), tls=True) == Reply(503, b"")


@pytest.mark.parametrize(
    "text",
    [
        "CLIENT: Received message larger than max (300000 vs. 262144)",
        "Stream removed (CLIENT: Received message larger than max (300000 vs. 262144))",
        "Decompressed message larger than max",
        "Stream removed (received metadata size exceeds hard limit (value length 100000 vs. 16384))",
        "received initial metadata size exceeds soft limit (13084 vs. 8192)",
    ],
)
def test_an_answer_too_large(text: str) -> None:
    """Our own limit is not the server's wish to be asked less."""
    assert meaning(ended("RESOURCE_EXHAUSTED", text)) == (Failure.TOO_LARGE, False, "answer larger than 1000 bytes")


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("INTERNAL", "Stream removed (Compression algorithm 'gzip' is disabled.)"),
        ("UNIMPLEMENTED", "Compression algorithm 'gzip' is disabled."),
    ],
)
def test_a_compressed_answer(code: str, text: str) -> None:
    """A server that packs its answers though nobody accepts that does not speak our protocol."""
    assert meaning(ended(code, text)) == Reply(501, b"")


@pytest.mark.parametrize(
    "text",
    [
        "SERVER: Received message larger than max (5242880 vs. 4194304)",
        "grpc: received message larger than max (5242880 vs. 4194304)",
        "gRPC message exceeds maximum size 4194304: 5242880",
    ],
)
def test_a_request_too_large(text: str) -> None:
    """The limit of a server in C++, Go or Java is no throttling, which would be waited for without end."""
    assert meaning(ended("RESOURCE_EXHAUSTED", text)) == Reply(413, b"")


def retry_info(seconds: int, nanos: int = 0, *, kind: str = "type.googleapis.com/google.rpc.RetryInfo") -> bytes:
    """google.rpc.Status as servers put it into their trailers."""
    told = RetryInfo()
    told.retry_delay.seconds, told.retry_delay.nanos = seconds, nanos
    status = Status()
    status.details.add(type_url=kind, value=told.SerializeToString())
    message: bytes = status.SerializeToString()
    return message


@pytest.mark.parametrize(
    ("trailers", "seconds"),
    [
        ({"grpc_status_details_bin": retry_info(3)}, 3.0),
        ({"grpc_status_details_bin": retry_info(0, 1)}, 1.0),  # whole seconds, never too early
        ({"grpc_status_details_bin": retry_info(-5)}, 0.0),
        ({"grpc_status_details_bin": retry_info(2**62)}, 3600.0),
        ({"grpc_status_details_bin": retry_info(3), "grpc_retry_pushback_ms": "9000"}, 3.0),
        ({"grpc_retry_pushback_ms": "1500"}, 2.0),
        ({"grpc_retry_pushback_ms": "9" * 4000}, 3600.0),
        ({"grpc_retry_pushback_ms": "-1"}, None),  # do not come back: gRPC's own retries are off anyway
        ({"grpc_retry_pushback_ms": "soon"}, None),
        ({"grpc_status_details_bin": retry_info(3, kind="type.googleapis.com/google.rpc.Help")}, None),
        ({"grpc_status_details_bin": b"\xff\xff"}, None),
        ({"grpc_status_details_bin": "text"}, None),
        ({}, None),
    ],
)
def test_when_to_come_back(trailers: dict[str, str | bytes], seconds: float | None) -> None:
    """The server's wish reaches the pacing as a Retry-After header does."""
    for code in ("RESOURCE_EXHAUSTED", "UNAVAILABLE"):
        reply = meaning(ended(code, **trailers))
        assert isinstance(reply, Reply)
        assert retry_after_seconds(reply.retry_after, now=0.0) == seconds
