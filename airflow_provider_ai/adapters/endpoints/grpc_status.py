"""What the end of a gRPC call means, in the terms HTTP calls end in (the table is in docs/protocols.md).

gRPC uses one status for what the server says and for what happens on the way, and only the status text tells them
apart. That text may quote data, so it is looked at and never kept: what is reported of it is a word of ours, or
BoringSSL's name for what is wrong with a certificate.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from google.protobuf.message import DecodeError

from airflow_provider_ai.adapters.endpoints.open_inference_messages import RetryInfo, Status
from airflow_provider_ai.core.ports import CallFailedError, Reply
from airflow_provider_ai.core.verdict import Failure

OK = "OK"
_HTTP_STATUS = {
    OK: 200,
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
    "ABORTED": 503,  # the specification asks for another try from the start, which 409 would not get
    "UNAVAILABLE": 503,
}
_REQUEST_TOO_LARGE = 413
_NOT_IMPLEMENTED = 501

# gRPC's own words, of grpcio 1.63 and later.
_NO_CONNECTION = re.compile(r"failed to connect to all addresses|errors resolving |DNS resolution failed|empty address")
_BROKEN = re.compile(
    r"Stream removed|Socket closed|Connection reset|Broken pipe|recvmsg|sendmsg|GOAWAY|[Tt]ransport closed|"
    r"Cancelling all calls|Endpoint closing|Channel closed"
)
_ANSWER_TOO_LARGE = re.compile(
    r"(Stream removed \()?(CLIENT: Received message|Decompressed message|received (\w+ )?metadata size)"
)
_PACKED = re.compile(r"(Stream removed \()?Compression algorithm")
_SAID_TOO_LARGE = re.compile(r"message larger than max|exceeds maximum size")
_CERTIFICATE = re.compile(r"CERTIFICATE_VERIFY_FAILED: ([A-Za-z (),-]+)")
_OTHER_HOST = re.compile(r"Hostname Verification Check failed|is not in peer certificate")
_HANDSHAKE = re.compile(r"SSL routines:\w+:([A-Z0-9_]+)")
# A TLS alert right after the handshake, which with TLS 1.3 is when a server says what it thinks of ours.
_ALERT = re.compile(r"Unwrap failed \(TSI_DATA_CORRUPTED\)|_ALERT_(UNKNOWN_CA|ACCESS_DENIED|\w*CERTIFICATE\w*)")
_CLOSED = re.compile(r"Socket closed")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """A call at its end. ``code``: a status by name; ``message``: the answer, where there is one."""

    code: str
    text: str = ""
    message: bytes | None = None
    trailers: Mapping[str, str | bytes]


def reply_to(ended: Ended, *, tls: bool, max_bytes: int) -> Reply:
    """The answer as one over HTTP, its body the message as it came; CallFailedError when there is none."""
    if ended.code == "DEADLINE_EXCEEDED":
        raise CallFailedError(Failure.TIMEOUT, "gRPC DEADLINE_EXCEEDED")
    if ended.code == "RESOURCE_EXHAUSTED":
        return _exhausted(ended, max_bytes)
    if tls and (trouble := _tls_trouble(ended.text)) is not None and _NO_CONNECTION.search(ended.text):
        raise CallFailedError(Failure.CONNECT, f"TLS: {trouble}", permanent=True)
    if ended.code == "UNAVAILABLE" and _NO_CONNECTION.match(ended.text):
        raise CallFailedError(Failure.CONNECT, f"gRPC UNAVAILABLE: {_no_connection(ended.text, tls=tls)}")
    if ended.code != OK and _PACKED.match(ended.text):  # by a server that did not heed what we accept
        return Reply(_NOT_IMPLEMENTED, b"")
    if ended.code == "CANCELLED" or (ended.code != OK and _BROKEN.match(ended.text)):
        raise CallFailedError(Failure.DISCONNECTED, f"gRPC {ended.code}: the call was cut off")
    return Reply(_HTTP_STATUS.get(ended.code, 500), ended.message or b"", retry_after(ended.trailers))


def _exhausted(ended: Ended, max_bytes: int) -> Reply:
    """Too large an answer, too large a request, or too many requests."""
    if _ANSWER_TOO_LARGE.match(ended.text):
        raise CallFailedError(Failure.TOO_LARGE, f"answer larger than {max_bytes} bytes")
    if _SAID_TOO_LARGE.search(ended.text):  # by the server, of the request: it would be so again, and 429 never ends
        return Reply(_REQUEST_TOO_LARGE, b"")
    return Reply(_HTTP_STATUS[ended.code], b"", retry_after(ended.trailers))


def _no_connection(text: str, *, tls: bool) -> str:
    """gRPC's own servers close without a word on a certificate they refuse, as servers do that go down."""
    if tls and _CLOSED.search(text):
        return "no connection: the server closes it (it is going down, or refuses the client certificate)"
    return "no connection"


def _tls_trouble(text: str) -> str | None:
    """What is wrong with a certificate or a handshake; None for a connection that broke in it."""
    if _ALERT.search(text):
        return "the server refuses the client certificate"
    if found := _CERTIFICATE.search(text):
        return found[1].strip()
    if _OTHER_HOST.search(text):
        return "Hostname mismatch, certificate is not valid for the endpoint's host"
    if found := _HANDSHAKE.search(text):
        return f"the handshake fails ({found[1]})"
    return None


def retry_after(trailers: Mapping[str, str | bytes]) -> str | None:
    """Whole seconds the server asks to wait, from google.rpc.RetryInfo or from gRPC's retry pushback."""
    seconds = _retry_info(trailers.get("grpc-status-details-bin"))
    if seconds is None:
        seconds = _pushback(trailers.get("grpc-retry-pushback-ms"))
    return None if seconds is None else str(math.ceil(seconds))


def _retry_info(details: str | bytes | None) -> float | None:
    if not isinstance(details, bytes):
        return None
    try:
        for detail in Status.FromString(details).details:
            if detail.type_url.endswith("/google.rpc.RetryInfo"):
                delay = RetryInfo.FromString(detail.value).retry_delay
                return max(0.0, float(delay.seconds + delay.nanos / 1e9))
    except DecodeError:
        pass  # whatever it is, it is no wish to be kept
    return None


def _pushback(milliseconds: str | bytes | None) -> float | None:
    if isinstance(milliseconds, str) and milliseconds.isascii() and milliseconds.isdigit():
        return int(milliseconds[:12]) / 1000
    return None
