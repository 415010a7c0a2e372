"""A model on loopback that speaks protocol ``json`` and remembers what it was asked."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class JsonModel:
    """``asked``: the records of each call. ``status``: of each answer. ``hang``: answer only once it is set."""

    def __init__(self) -> None:
        self.asked: list[list[dict[str, Any]]] = []
        self.status = 200
        self.hang: threading.Event | None = None
        self.port = 0

    @property
    def connection(self) -> dict[str, Any]:
        """Fields of an Airflow connection to it."""
        extra = {"protocol": "json", "model": "m"}
        return {"conn_type": "ai_endpoint", "host": f"http://127.0.0.1:{self.port}", "extra": extra}

    def answer(self, body: bytes) -> bytes:
        records = json.loads(body)["inputs"]
        self.asked.append(records)
        return json.dumps({"outputs": [{"id": record["id"], "priority": "urgent"} for record in records]}).encode()


@contextmanager
def json_model() -> Iterator[JsonModel]:
    """A running model."""
    model = JsonModel()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = model.answer(self.rfile.read(int(self.headers["Content-Length"])))
            if model.hang is not None:
                model.hang.wait(30)
            self.send_response(model.status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing: records are no test output."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        model.port = server.server_port
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield model
        if model.hang is not None:
            model.hang.set()
        server.shutdown()
