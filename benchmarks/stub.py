"""Starts the stub model server as a subprocess and talks to it, with the standard library alone.

    with StubServer(latency_ms=50, max_in_flight=64) as stub:
        run_something(stub.url)
        assert stub.stats()["repeated"] == 0

The server dies with its owner: it watches the pipe that this object holds, so a killed test leaves nothing behind.
`score_of` and `label_of` are the answers the stub gives, for comparing a table with.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from http.client import HTTPConnection
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from benchmarks.stub_payloads import label_of, score_of

__all__ = ["StubServer", "label_of", "score_of"]

ROOT = Path(__file__).resolve().parent.parent


class StubServer:
    """A running stub server, stopped on exit.

    Args:
        latency_ms, jitter_ms, max_in_flight, over_limit, protocol, count_ids, max_id, seed, port: the server's flags.
        rules: fault rules to start with, as in POST /faults.
        keep_counts: keep the counters in a file so that they survive `kill()` and `restart()`;
            needs count_ids "bitmap" or "off".
    """

    def __init__(
        self,
        *,
        latency_ms: float = 50.0,
        jitter_ms: float = 0.0,
        max_in_flight: int = 64,
        over_limit: str = "reject",
        protocol: str = "auto",
        count_ids: str = "dict",
        max_id: int = 8_000_000,
        seed: int = 1,
        port: int = 0,
        rules: list[dict[str, Any]] | None = None,
        keep_counts: bool = False,
    ) -> None:
        self._flags: dict[str, Any] = {
            "latency-ms": latency_ms,
            "jitter-ms": jitter_ms,
            "max-in-flight": max_in_flight,
            "over-limit": over_limit,
            "protocol": protocol,
            "count-ids": count_ids,
            "max-id": max_id,
            "seed": seed,
            "faults": json.dumps({"rules": rules or []}),
        }
        self.port = port
        self._process: subprocess.Popen[str] | None = None
        self._folder = tempfile.TemporaryDirectory(prefix="stub-") if keep_counts else None
        if self._folder is not None:
            self._flags["state"] = Path(self._folder.name, "counters")

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.stop()
        if self._folder is not None:
            self._folder.cleanup()

    @property
    def url(self) -> str:
        """Base address, without a trailing slash."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """Process id of the running server."""
        return self._running().pid

    def start(self) -> None:
        """Start it and wait until it listens. Raises RuntimeError when it exits instead."""
        flags = [f"--{name}={value}" for name, value in self._flags.items()]
        command = [sys.executable, "-m", "benchmarks.stub_server", f"--port={self.port}", "--exit-on-stdin-eof", *flags]
        process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise RuntimeError(f"the stub server did not start: exit code {process.wait()}, see its stderr")
        self.port = json.loads(line)["port"]
        self._process = process

    def stop(self) -> None:
        """Stop it with SIGTERM; nothing happens when it is not running."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """Kill it with SIGKILL, as a crash would. Requests in flight are lost."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        """Start it again on the same port with the same flags; counters start at zero unless `keep_counts`."""
        self.stop()
        self.start()

    def pause(self) -> None:
        """Stop the process where it is (SIGSTOP): it accepts connections in the kernel and answers nothing."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let a paused process go on (SIGCONT)."""
        os.kill(self.pid, signal.SIGCONT)

    def stats(self) -> dict[str, Any]:
        """All counters since the last reset."""
        return dict(self.call("GET", "/stats"))

    def progress(self) -> dict[str, int]:
        """Requests, records, paid, answered, in_flight: cheap enough for polling."""
        return dict(self.call("GET", "/progress"))

    def counts(self, stage: str = "called", *, at_least: int = 1) -> dict[str, int]:
        """Calls per record id, as text, at stage `called`, `paid` or `answered`."""
        return dict(self.call("GET", f"/counts?stage={stage}&at_least={at_least}"))

    def set_faults(self, *rules: dict[str, Any], **settings: Any) -> dict[str, Any]:
        """Replace the rules, and change latency_ms, jitter_ms, ready or seed. Returns the new plan."""
        return dict(self.call("POST", "/faults", {"rules": list(rules), **settings}))

    def reset(self) -> None:
        """Set every counter to zero; faults stay."""
        self.call("POST", "/reset", {})

    def wait_for_records(self, records: int, *, timeout_seconds: float, stage: str = "answered") -> dict[str, int]:
        """Poll until so many records are `records` (called), `paid` or `answered`. Raises TimeoutError."""
        end = time.monotonic() + timeout_seconds
        while (progress := self.progress())[stage] < records:
            if time.monotonic() > end:
                raise TimeoutError(f"{progress[stage]} of {records} records {stage} after {timeout_seconds} s")
            time.sleep(0.01)
        return progress

    def call(self, method: str, path: str, document: Any = None) -> Any:
        """One request with a JSON body; the JSON answer. Raises RuntimeError on any other status than 200."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            body = None if document is None else json.dumps(document)
            connection.request(method, path, body, {"Connection": "close"})
            response = connection.getresponse()
            answer = json.loads(response.read())
        finally:
            connection.close()
        if response.status != 200:
            raise RuntimeError(f"{method} {path} answered {response.status}: {answer}")
        return answer

    def _running(self) -> subprocess.Popen[str]:
        if self._process is None:
            raise RuntimeError("the stub server is not running")
        return self._process

    def _end(self, number: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(number)
        process.send_signal(signal.SIGCONT)
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()
        process.wait(timeout=10)
