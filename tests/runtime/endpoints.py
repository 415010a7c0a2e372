"""A model server in a thread that answers as the test says, now well and now not, and counts what reaches it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import orjson


class ModelServer:
    """Answers protocol ``json`` with :attr:`status`, and with ``{"priority": answer}`` for each record when it is 200.

    :ivar hold: what each request waits for before it is answered
    """

    def __init__(self) -> None:
        self.status = 200
        self.answer: Any = "urgent"
        self.calls = 0
        self.in_flight = 0
        self.most_in_flight = 0
        self.headers: list[dict[str, str]] = []
        self.hold: Callable[[], object] = lambda: None
        self._lock = threading.Lock()
        self.url = ""

    def handle(self, headers: dict[str, str], body: bytes) -> tuple[int, bytes]:
        with self._lock:
            self.calls += 1
            self.in_flight += 1
            self.most_in_flight = max(self.most_in_flight, self.in_flight)
            self.headers.append(headers)
        self.hold()
        with self._lock:
            self.in_flight -= 1
        outputs = [{"id": record["id"], "priority": self.answer} for record in orjson.loads(body)["inputs"]]
        return self.status, orjson.dumps({"outputs": outputs})


@contextmanager
def model_server() -> Iterator[ModelServer]:
    """One that runs as long as the block."""
    model = ModelServer()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # one packet for an answer

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            status, content = model.handle(dict(self.headers), body)
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: Any, client_address: Any) -> None:
            pass  # the client has gone: what the tests are about

    server = Server(("127.0.0.1", 0), Handler)
    model.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield model
    finally:
        server.shutdown()
        server.server_close()
