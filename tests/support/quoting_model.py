"""A model server that keeps what it is sent, marks its answers, and quotes in its errors what it was asked."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

REFUSE = "REFUSE"
"""A note with this word is refused, with an error that quotes it."""


@dataclass(kw_only=True)
class QuotingModel:
    """Protocol ``json``: the verdict on a record is ``mark``.

    :ivar bodies: all that was sent, headers included
    """

    mark: str
    url: str = ""
    bodies: list[bytes] = field(default_factory=list)

    def answer(self, body: bytes) -> tuple[int, bytes]:
        """Status and body."""
        asked = json.loads(body)["inputs"]
        if any(REFUSE in record["note"] for record in asked):
            return 422, json.dumps({"error": f"cannot parse {asked!r}", "partial": self.mark}).encode()
        outputs = [{"id": record["id"], "verdict": f"seen, {self.mark}"} for record in asked]
        return 200, json.dumps({"outputs": outputs}, ensure_ascii=False).encode()


@contextmanager
def quoting_model(mark: str) -> Iterator[QuotingModel]:
    """One that runs as long as the block."""
    model = QuotingModel(mark=mark)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # one packet for an answer

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            model.bodies.append(f"{self.path}\n{self.headers}".encode() + body)
            status, content = model.answer(body)
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    model.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield model
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
