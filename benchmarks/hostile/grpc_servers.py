"""The hostile gRPC servers. Handlers take and give raw bytes, whatever the method: no message is ever built."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

import grpc
import grpc.aio

from tests.support.scripted_server import NEVER, Server

LARGE: Final = 64 * 1024 * 1024
_MESSAGE = b"\x0a\xff\xff\x03" + b"m" * 65_535  # field 1, as text: a model's name that goes on for 64 KiB


class _Handler(grpc.GenericRpcHandler):  # type: ignore[misc] # grpcio ships no types
    """Every method of every service, counted."""

    def __init__(self, name: str, server: Server) -> None:
        self._name = name
        self._server = server

    def service(self, handler_call_details: Any) -> Any:
        if self._name in _STREAMED:
            return grpc.unary_stream_rpc_method_handler(self._streamed)
        return grpc.unary_unary_rpc_method_handler(self._answered)

    async def _streamed(self, _request: bytes, context: Any) -> AsyncIterator[bytes]:
        self._server.opened += 1
        async for message in _STREAMED[self._name](self._server, context):
            yield message
            self._server.sent += len(message)

    async def _answered(self, _request: bytes, context: Any) -> bytes:
        self._server.opened += 1
        message = await _UNARY[self._name](self._server, context)
        self._server.sent += len(message)
        return message


async def _never(_server: Server, _context: Any) -> bytes:
    await asyncio.sleep(NEVER)
    return b""


async def _endless(_server: Server, _context: Any) -> AsyncIterator[bytes]:
    while True:
        yield _MESSAGE


async def _large(_server: Server, _context: Any) -> bytes:
    return b"\x0a\x80\x80\x80\x20" + b"m" * LARGE


async def _no_message(server: Server, _context: Any) -> bytes:
    return b"\xff" * 8 + random.Random(server.opened).randbytes(64)


async def _unavailable(_server: Server, context: Any) -> bytes:
    await context.abort(grpc.StatusCode.UNAVAILABLE, "injected")
    return b""


_UNARY: dict[str, Callable[[Server, Any], Awaitable[bytes]]] = {
    "grpc-never-answers": _never,
    "grpc-large-answer": _large,
    "grpc-no-message": _no_message,
    "grpc-unavailable": _unavailable,
}
_STREAMED = {"grpc-endless-stream": _endless}


@asynccontextmanager
async def serve_grpc(name: str) -> AsyncIterator[Server]:
    """Serve one gRPC scenario; ``opened`` and ``sent`` of the result count calls, and bytes of messages."""
    counted = Server("grpc")
    options = [("grpc.max_send_message_length", -1), ("grpc.so_reuseport", 0)]
    server = grpc.aio.server(handlers=[_Handler(name, counted)], options=options)
    counted.port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield counted
    finally:
        await server.stop(grace=None)
