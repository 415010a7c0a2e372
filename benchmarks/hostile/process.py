"""The process of one hostile server.

    python -m benchmarks.hostile.process drips-headers

It prints {"port", "pid"} when it listens on 127.0.0.1, answers every line on stdin with its counters as a line of JSON,
and serves until stdin ends: when its owner dies, so does it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import ssl
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager

from benchmarks.hostile.http_scripts import script_of
from benchmarks.hostile.scenarios import SCENARIOS
from tests.support.scripted_server import Server, serve

_FULL_SECONDS = 0.3
SCRIPTED_GRPC = {"grpc-silent-port", "grpc-garbage"}


async def run(options: argparse.Namespace) -> None:
    """Serve until stdin ends."""
    async with _opened(options) as server:
        print(json.dumps({"port": server.port, "pid": os.getpid()}), flush=True)
        loop = asyncio.get_running_loop()
        asked = asyncio.StreamReader()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(asked), sys.stdin)
        while await asked.readline():
            print(json.dumps(_counters(server, options.hellos)), flush=True)


def _opened(options: argparse.Namespace) -> AbstractAsyncContextManager[Server]:
    name: str = options.name
    options.hellos = []
    if name == "refuses":
        return _bound(listens=False)
    if name == "never-accepts":
        return _bound(listens=True)
    if SCENARIOS[name].scheme == "grpc" and name not in SCRIPTED_GRPC:
        from benchmarks.hostile.grpc_servers import serve_grpc  # it costs the others half a second

        return serve_grpc(name)
    return serve(script_of(name, options.seed), tls=_tls(options) if options.certificate else None)


def _counters(server: Server, hellos: list[str | None]) -> dict[str, int]:
    requests = len(server.arrived) if server.scheme != "grpc" else server.opened
    counted = {"connections": server.opened, "open": server.open, "requests": requests, "sent": server.sent}
    return counted | {"hellos": len(hellos)}


def _tls(options: argparse.Namespace) -> ssl.SSLContext:
    """Counts handshakes that were begun, also those the client then refuses."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(options.certificate, options.key)

    def greeted(_ssl: object, name: str | None, _context: object) -> None:
        options.hellos.append(name)

    context.sni_callback = greeted
    return context


@asynccontextmanager
async def _bound(*, listens: bool) -> AsyncIterator[Server]:
    """A port that nobody accepts on: refused, or with a backlog that is full so that a connection hangs."""
    server = Server("http")
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        server.port = bound.getsockname()[1]
        if not listens:
            yield server
            return
        bound.listen(0)
        with _filled(server.port):
            yield server


@contextmanager
def _filled(port: int) -> Iterator[None]:
    queued: list[socket.socket] = []
    while True:
        probe = socket.socket()
        probe.settimeout(_FULL_SECONDS)
        queued.append(probe)
        try:
            probe.connect(("127.0.0.1", port))
        except TimeoutError:
            break
    try:
        yield
    finally:
        for probe in queued:
            probe.close()


def main(arguments: list[str] | None = None) -> None:
    """Run the server with command line arguments."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.hostile.process", description="One hostile server.")
    parser.add_argument("name", choices=SCENARIOS)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--certificate", help="PEM file; with it the server speaks TLS")
    parser.add_argument("--key", help="PEM file")
    asyncio.run(run(parser.parse_args(arguments)))


if __name__ == "__main__":
    main()
