"""The health endpoint of a service: ``/health/live``, ``/health/ready`` and ``/metrics``, from a thread of its own.

It answers when the service's event loop does not: that is what liveness is asked for.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from airflow_provider_ai.exceptions import SpecError

_TEXT = "text/plain; charset=utf-8"
_METRICS = "text/plain; version=0.0.4; charset=utf-8"


class HealthServer:
    """Serves until closed.

    :param port: 0 for any free one
    :param live: whether the process works at all; a supervisor restarts one that does not
    :param ready: whether it works now, with everything it needs
    :param metrics: text for Prometheus
    :raises SpecError: when the port is taken
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        live: Callable[[], bool],
        ready: Callable[[], bool],
        metrics: Callable[[], str],
    ) -> None:
        class Handler(BaseHTTPRequestHandler):
            timeout = 10.0

            def do_GET(self) -> None:
                path = self.path.partition("?")[0]
                if path == "/metrics":
                    self._answer(200, metrics(), _METRICS)
                elif path in checks:
                    good = checks[path]()
                    self._answer(200 if good else 503, "ok\n" if good else "not ok\n", _TEXT)
                else:
                    self._answer(404, "not found\n", _TEXT)

            def _answer(self, status: int, text: str, kind: str) -> None:
                body = text.encode()
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                """Probes are no news."""

        checks = {"/health/live": live, "/health/ready": ready}
        try:
            self._server = ThreadingHTTPServer((host, port), Handler)
        except OSError as error:
            raise SpecError(f"health_port {port} at {host} cannot be used ({error.strerror})") from None
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, name="ai-health", daemon=True).start()

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._server.server_address[1])

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()
