"""What each hostile server does, and what it should come to.

Data alone, and cheap to load, for every server's process does: the words of `core.requests.reasons` are literals here,
since that package brings numpy.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from airflow_provider_ai.core import call_reasons as ends

Scheme = Literal["http", "https", "grpc"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """One way to misbehave.

    Args:
        name: of the server, as on its command line.
        does: what it does, as a clause about the server.
        reasons: what a degraded answer may give as its reason; empty when a good answer is to be had.
        scheme: of its URL.
        hangs: whether a client that has no total deadline waits for as long as one cares to watch.
        busy: whether it keeps a core busy while it is being called.
    """

    name: str
    does: str
    reasons: tuple[str, ...]
    scheme: Scheme = "http"
    hangs: bool = False
    busy: bool = False


def _hang(name: str, does: str, *others: str, scheme: Scheme = "http", busy: bool = False) -> Scenario:
    return Scenario(name=name, does=does, reasons=(ends.TIMEOUT, *others), scheme=scheme, hangs=True, busy=busy)


def _end(name: str, does: str, *reasons: str, scheme: Scheme = "http", busy: bool = False) -> Scenario:
    return Scenario(name=name, does=does, reasons=reasons, scheme=scheme, busy=busy)


_ALL = (
    _hang("never-accepts", "has a full listen backlog: connecting hangs"),
    _hang("never-reads", "accepts, and reads nothing"),
    _hang("never-answers", "reads the request, and never answers"),
    _hang("drips-headers", "sends its headers one byte a second"),
    _hang("drips-body", "sends its body one byte a second"),
    _hang("drips-chunks", "sends its body one chunk of one byte a second"),
    _hang("stalls-in-body", "sends half of its body, and then nothing"),
    _hang("answers-slowly", "gives a good answer after 60 s"),
    _hang("answers-late", "gives a good answer after the seconds at the end of its path (/late/1.5), or else after 6"),
    _hang("endless-body", "sends a body without an end, as fast as it can", ends.TOO_LARGE, busy=True),
    _hang("endless-informational", "sends 1xx answers without an end", ends.CONNECTION, busy=True),
    _hang("endless-headers", "sends headers without an end", ends.CONNECTION, busy=True),
    _hang("tls-stalls", "never finishes the TLS handshake", scheme="https"),
    _end("good", "answers well"),
    _end("closes-idle", "answers well, and resets each connection 20 ms later"),
    _end("refuses", "refuses connections", ends.CONNECT),
    _end("closes-unanswered", "reads the request, and closes the connection", ends.CONNECTION),
    _end("resets-in-headers", "resets the connection in the middle of its headers", ends.CONNECTION),
    _end("proxy-drops", "is a proxy that passes on half of a good answer, and closes", ends.CONNECTION),
    _end("truncated-json", "closes the connection before its Content-Length is reached", ends.CONNECTION),
    _end("large-body", "sends a body of 1 GiB, and says so", ends.TOO_LARGE, ends.TIMEOUT, busy=True),
    _end("large-body-chunked", "sends a body of 1 GiB in chunks", ends.TOO_LARGE, ends.TIMEOUT, busy=True),
    _end("gzip-bomb", "sends 1 GiB packed into one MiB", ends.TOO_LARGE, ends.TIMEOUT, ends.CONNECTION, busy=True),
    _end("huge-header", "sends a header of 1 MiB", ends.CONNECTION),
    _end("http10-garbage", "answers HTTP/1.0 200 and random bytes", "not_json"),
    _end("garbage", "answers random bytes", ends.CONNECTION),
    _end("html", "answers 200 with an HTML page", "not_json"),
    _end("nan-json", "answers JSON with NaN", "not_json"),
    _end("wrong-shape", "answers JSON that is no answer", "no_outputs"),
    _end("deep-json", "answers JSON nested 100,000 deep", "not_json", "too_deep"),
    _end("status-500", "answers 500", ends.SERVER_ERROR),
    _end("status-503", "answers 503", ends.SERVER_ERROR),
    _end("status-429", "answers 429 with Retry-After: 3600", ends.THROTTLED),
    _end("status-401", "answers 401", ends.REJECTED),
    _end("redirects", "answers 302 to another path of its own", ends.REJECTED),
    _end("good-tls", "answers well, by TLS", scheme="https"),
    _end("expired-certificate", "has a certificate that has expired", ends.TLS, scheme="https"),
    _end("self-signed", "has a certificate no authority signed", ends.TLS, scheme="https"),
    _end("wrong-host", "has a certificate for another host", ends.TLS, scheme="https"),
    _hang("grpc-never-answers", "takes a gRPC call, and never answers", scheme="grpc"),
    _hang("grpc-silent-port", "accepts, and says nothing a gRPC client understands", ends.CONNECT, scheme="grpc"),
    _hang(
        "grpc-endless-stream",
        "answers a unary gRPC call with messages without an end",
        ends.TOO_LARGE,
        ends.SERVER_ERROR,
        scheme="grpc",
        busy=True,
    ),
    _end("grpc-large-answer", "answers a gRPC call with 64 MiB", ends.TOO_LARGE, scheme="grpc"),
    _end(
        "grpc-no-message",
        "answers a gRPC call with bytes that are no message",
        "no_outputs",
        "not_json",
        "wrong_shape",
        ends.SERVER_ERROR,
        scheme="grpc",
    ),
    _end("grpc-unavailable", "answers a gRPC call with UNAVAILABLE", ends.SERVER_ERROR, ends.CONNECT, scheme="grpc"),
    _end("grpc-garbage", "answers random bytes on a gRPC port", ends.CONNECT, ends.CONNECTION, scheme="grpc"),
)

SCENARIOS: Final = {scenario.name: scenario for scenario in _ALL}
HANGS: Final = tuple(scenario.name for scenario in _ALL if scenario.hangs)
"""Names of the scenarios on which a client without a total deadline hangs. A name server that hangs comes on top."""
