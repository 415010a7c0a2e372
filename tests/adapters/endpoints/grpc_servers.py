"""gRPC servers on loopback whose answers are a function, and the bytes of HTTP/2 for what no gRPC server can be made to
say."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc

from tests.support.certificates import Issued
from tests.support.scripted_server import Script, Wire

Context = grpc.ServicerContext
Answer = Callable[[bytes, Context], Any]
WORKERS = 16


@dataclass(frozen=True, slots=True)
class Called:
    """One call as the server saw it. ``seconds``: what it was told to be left of the deadline."""

    method: str
    message: bytes
    metadata: dict[str, list[str | bytes]]
    seconds: float


@dataclass(slots=True)
class GrpcServer:
    """``open``: calls whose answer is not finished; ``peers``: the connections they came on."""

    url: str = ""
    calls: list[Called] = field(default_factory=list)
    peers: set[str] = field(default_factory=set)
    over: threading.Event = field(default_factory=threading.Event)

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])


class _Handler(grpc.GenericRpcHandler):  # type: ignore[misc]  # grpc ships no types
    def __init__(self, server: GrpcServer, answer: Answer, streams: bool, service: str) -> None:
        self._server = server
        self._answer = answer
        self._method = grpc.unary_stream_rpc_method_handler if streams else grpc.unary_unary_rpc_method_handler
        self._service = service

    def service(self, details: Any) -> Any:
        if not details.method.startswith(f"/{self._service}/"):
            return None

        def called(message: bytes, context: Context) -> Any:
            metadata: dict[str, list[str | bytes]] = {}
            for name, value in context.invocation_metadata():
                metadata.setdefault(name, []).append(value)
            self._server.calls.append(Called(details.method, message, metadata, context.time_remaining()))
            self._server.peers.add(context.peer())
            return self._answer(message, context)

        return self._method(called)


@contextmanager
def serve_grpc(
    answer: Answer,
    *,
    streams: bool = False,
    service: str = "inference.GRPCInferenceService",
    tls: Issued | None = None,
    clients_of: str | None = None,
    port: int = 0,
    **options: Any,
) -> Iterator[GrpcServer]:
    """Answer every call of a service with a function of its message, until the block ends.

    :param streams: the function gives an iterator of messages, which for the client's method is wrong
    """
    seen = GrpcServer()
    server = grpc.server(
        futures.ThreadPoolExecutor(WORKERS), handlers=[_Handler(seen, answer, streams, service)], **options
    )
    if tls is None:
        bound = server.add_insecure_port(f"127.0.0.1:{port}")
    else:
        bound = server.add_secure_port(f"127.0.0.1:{port}", _credentials(tls, clients_of))
    seen.url = f"{'grpcs' if tls else 'grpc'}://127.0.0.1:{bound}"
    server.start()
    try:
        yield seen
    finally:
        seen.over.set()
        server.stop(0).wait()


def _credentials(issued: Issued, clients_of: str | None) -> grpc.ServerCredentials:
    authorities = Path(clients_of).read_bytes() if clients_of else None
    pair = (Path(issued.key).read_bytes(), Path(issued.certificate).read_bytes())
    return grpc.ssl_server_credentials([pair], authorities, require_client_auth=clients_of is not None)


def says(status: grpc.StatusCode, text: str = "", *trailers: tuple[str, str | bytes]) -> Answer:
    """End every call with a status."""

    def answer(_: bytes, context: Context) -> None:
        context.set_trailing_metadata(trailers)
        context.abort(status, text)

    return answer


# --- HTTP/2, RFC 9113

SETTINGS = b"\0\0\0\4\0\0\0\0\0"
HEADERS, DATA, RESET, GOAWAY = 1, 0, 3, 7
END, END_HEADERS = 1, 4


def frame(kind: int, payload: bytes, *, flags: int = 0, stream: int = 1) -> bytes:
    """One frame, by default of a client's first stream."""
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def header(name: bytes, value: bytes) -> bytes:
    """A literal header field that is not indexed, RFC 7541 §6.2.2, up to 127 bytes each."""
    return b"\0" + bytes([len(name)]) + name + bytes([len(value)]) + value


def reset(code: int) -> bytes:
    return frame(RESET, code.to_bytes(4, "big"))


def head(
    *fields: tuple[bytes, bytes], status: bytes = b"200", kind: bytes = b"application/grpc", end: bool = False
) -> bytes:
    """The headers of an answer, or its trailers too."""
    block = b"".join(header(*pair) for pair in ((b":status", status), (b"content-type", kind), *fields))
    return frame(HEADERS, block, flags=END_HEADERS | (END if end else 0))


async def until_requested(wire: Wire) -> None:
    """Read until a request has come whole."""
    await wire.exactly(len(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"))
    kind, flags = HEADERS, 0
    while kind != DATA or not flags & END:
        start = await wire.exactly(9)
        kind, flags = start[3], start[4]
        await wire.exactly(int.from_bytes(start[:3], "big"))


def speaks(data: bytes, *, closes: bool = False) -> Script:
    """Say ``data`` in HTTP/2 once a request is there; then stall, or close."""

    async def script(wire: Wire) -> None:
        await wire.send(SETTINGS)
        await until_requested(wire)
        await wire.send(data)
        if not closes:
            await wire.until_closed()

    return script
