"""A server behind TLS that counts what it is told: a canned answer, or a way through to a server without TLS."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager

_TURN_SECONDS = 0.05
_PATIENCE_SECONDS = 10.0


class TlsPeer:
    """One listening socket; a thread for each connection.

    ``heard``: what came after a handshake, or in clear where there is no TLS; ``refused``: handshakes that failed.
    """

    def __init__(self, context: ssl.SSLContext | None, *, answer: bytes, forward: int | None, postgresql: bool) -> None:
        self._context = context
        self._postgresql = postgresql
        self._answer = answer
        self._forward = forward
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(_TURN_SECONDS)
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self.port: int = self._listener.getsockname()[1]
        self.heard = bytearray()
        self.connections = 0
        self.refused = 0
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    @property
    def told(self) -> int:
        """Bytes heard."""
        return len(self.heard)

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
        self._listener.close()

    def _accept(self) -> None:
        serving = []
        while not self._stop.is_set():
            try:
                connection = self._listener.accept()[0]
            except TimeoutError:
                continue
            self.connections += 1
            serving.append(threading.Thread(target=self._serve, args=(connection,), daemon=True))
            serving[-1].start()
        for thread in serving:
            thread.join()

    def _serve(self, connection: socket.socket) -> None:
        connection.settimeout(_PATIENCE_SECONDS)
        try:
            if self._postgresql:
                _read_ssl_request(connection)
            if self._context is not None:
                connection = self._context.wrap_socket(connection, server_side=True)
        except (OSError, ssl.SSLError):
            with self._lock:
                self.refused += 1
            connection.close()
            return
        connection.settimeout(_TURN_SECONDS)
        with closing(connection):
            try:
                self._talk(connection)
            except OSError:
                pass  # the client has left

    def _talk(self, connection: socket.socket) -> None:
        if self._forward is None:
            while (said := self._read(connection)) != b"":
                if said is not None:
                    connection.sendall(self._answer)
            return
        with socket.create_connection(("127.0.0.1", self._forward)) as behind:
            back = threading.Thread(target=_pass_on, args=(behind, connection), daemon=True)
            back.start()
            while (said := self._read(connection)) != b"":
                if said is not None:
                    behind.sendall(said)
            behind.shutdown(socket.SHUT_RDWR)
            back.join()

    def _read(self, connection: socket.socket) -> bytes | None:
        """What came; None when nothing did for a moment, and nothing at the end."""
        try:
            said = connection.recv(65536)
        except TimeoutError:
            return b"" if self._stop.is_set() else None
        with self._lock:
            self.heard += said
        return said


def _read_ssl_request(connection: socket.socket) -> None:
    """SSLRequest and the word for yes: https://www.postgresql.org/docs/18/protocol-flow.html#PROTOCOL-FLOW-SSL"""
    asked = connection.recv(8)
    if asked != bytes.fromhex("0000000804d2162f"):
        raise OSError("no SSLRequest")
    connection.sendall(b"S")


def _pass_on(behind: socket.socket, connection: socket.socket) -> None:
    try:
        while said := behind.recv(65536):
            connection.sendall(said)
    except OSError:
        pass


@contextmanager
def tls_peer(
    context: ssl.SSLContext | None, *, answer: bytes = b"", forward: int | None = None, postgresql: bool = False
) -> Iterator[TlsPeer]:
    """``answer`` to whatever is said, or everything on to port ``forward`` of this machine.

    :param postgresql: TLS begins as PostgreSQL's does, after a request for it
    """
    peer = TlsPeer(context, answer=answer, forward=forward, postgresql=postgresql)
    try:
        yield peer
    finally:
        peer.close()
