"""A server on loopback whose behaviour is a script, for answers no well-behaved HTTP server can be made to give.

A script is run once per connection and speaks bytes; when it returns, the connection is closed. The server counts what
really arrived: connections, requests as they stood on the wire, and the connections that are still open.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

SETTLE_SECONDS = 5.0
NEVER = 3600.0


@dataclass(frozen=True, slots=True)
class Arrived:
    """One request as it stood on the wire."""

    method: str
    target: str
    headers: list[tuple[str, str]]
    body: bytes

    def values(self, name: str) -> list[str]:
        """Every value sent under a header name, whatever its case."""
        return [value for key, value in self.headers if key.lower() == name.lower()]


@dataclass(slots=True)
class Server:
    """``opened``: connections accepted so far; ``open``: those whose script has not returned; ``sent``: bytes."""

    scheme: str
    port: int = 0
    opened: int = 0
    open: int = 0
    sent: int = 0
    arrived: list[Arrived] = field(default_factory=list)
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}"

    async def until(self, holds: Callable[[Server], bool]) -> None:
        """Wait for a state of the server; TimeoutError when it does not come."""
        async with asyncio.timeout(SETTLE_SECONDS), self.changed:
            await self.changed.wait_for(lambda: holds(self))

    async def until_nothing_is_open(self) -> None:
        await self.until(lambda server: server.open == 0)


class Wire:
    """The server's end of one connection."""

    def __init__(self, server: Server, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._server = server
        self._reader = reader
        self._writer = writer
        self.number = server.opened

    async def request(self) -> Arrived | None:
        """The next request, whole; None when the client closed the connection instead."""
        try:
            head = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            headers = [(name, value) for name, _, value in (line.partition(": ") for line in head[1:-2])]
            length = next((int(value) for name, value in headers if name.lower() == "content-length"), 0)
            body = await self._reader.readexactly(length)
        except (asyncio.IncompleteReadError, ConnectionError):
            return None
        method, target, _ = head[0].split(" ")
        arrived = Arrived(method, target, headers, body)
        async with self._server.changed:
            self._server.arrived.append(arrived)
            self._server.changed.notify_all()
        return arrived

    async def exactly(self, size: int) -> bytes:
        """The next bytes, as many as asked for."""
        return await self._reader.readexactly(size)

    async def send(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()
        self._server.sent += len(data)

    async def drip(self, data: bytes, *, every: float) -> None:
        """One byte every ``every`` seconds."""
        for position in range(len(data)):
            await self.send(data[position : position + 1])
            await asyncio.sleep(every)

    async def until_closed(self) -> None:
        """Say nothing until the client closes the connection."""
        while await self._reader.read(65536):
            pass

    def reset(self) -> None:
        """Close with RST instead of FIN."""
        end: socket.socket = self._writer.get_extra_info("socket")
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()


Script = Callable[[Wire], Awaitable[None]]


def answer(body: bytes = b"{}", *headers: str, status: str = "200 OK") -> bytes:
    """An HTTP/1.1 answer with a Content-Length."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


def answers(data: bytes) -> Script:
    """Send ``data`` for every request, and keep the connection until the client closes it."""

    async def script(wire: Wire) -> None:
        while await wire.request():
            await wire.send(data)

    return script


def sends(data: bytes) -> Script:
    """Send ``data`` for the first request, then close."""

    async def script(wire: Wire) -> None:
        await wire.request()
        await wire.send(data)

    return script


def sends_and_stalls(data: bytes) -> Script:
    """Send ``data`` for the first request, then nothing."""

    async def script(wire: Wire) -> None:
        await wire.request()
        await wire.send(data)
        await wire.until_closed()

    return script


@asynccontextmanager
async def serve(script: Script, *, tls: ssl.SSLContext | None = None) -> AsyncIterator[Server]:
    """Run a script for every connection, until the block ends."""
    server = Server("https" if tls else "http")
    running: set[asyncio.Task[None] | None] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        running.add(asyncio.current_task())
        server.opened += 1
        server.open += 1
        try:
            await script(Wire(server, reader, writer))
        except (ConnectionError, ssl.SSLError):
            pass  # the client closed first: what `open` is there to show
        finally:
            writer.close()
            server.open -= 1
            async with server.changed:
                server.changed.notify_all()

    listener = await asyncio.start_server(connected, "127.0.0.1", 0, ssl=tls)
    server.port = listener.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listener.close()
        for task in running:
            if task is not None:
                task.cancel()
        await asyncio.gather(*(task for task in running if task), return_exceptions=True)


def free_port() -> int:
    """A port on which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
