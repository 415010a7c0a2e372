"""Starts hostile servers as processes of their own, asks them what they counted, and stops them by process id."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from benchmarks.hostile.scenarios import SCENARIOS

if TYPE_CHECKING:
    from tests.support.certificates import Authority, Issued

ROOT = Path(__file__).resolve().parents[2]
_PLAIN_TLS = "tls-stalls"


class HostileServer:
    """One running scenario, stopped on exit. It dies with its owner, whose pipe it reads.

    Args:
        name: of the scenario.
        seed: for what is random in it.
    """

    def __init__(self, name: str, *, seed: int = 1) -> None:
        self.scenario = SCENARIOS[name]
        self.port = 0
        self.ca_file: str | None = None
        """PEM file of the authority a client should trust; None without TLS."""
        self._seed = seed
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        self.start()
        self.wait()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """Base address, without a trailing slash."""
        return f"{self.scenario.scheme}://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start the process; `wait` until it listens."""
        command = [sys.executable, "-m", "benchmarks.hostile.process", self.scenario.name, f"--seed={self._seed}"]
        if self.scenario.scheme == "https":
            command += self._certified()
        self._process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
        )

    def wait(self) -> None:
        """Until it listens. Raises RuntimeError when it ended instead."""
        self.port = int(self._told()["port"])

    def stats(self) -> dict[str, int]:
        """`connections`, `open` ones, whole `requests`, bytes `sent`, TLS `hellos`; for gRPC, calls and bytes."""
        process = self._running()
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
        return self._told()

    def stop(self) -> None:
        """Stop it; nothing happens when it is not running."""
        process, self._process = self._process, None
        if process is not None:
            with process:  # closes its pipes: it ends
                process.terminate()
                process.wait(timeout=10)
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None

    def _running(self) -> subprocess.Popen[str]:
        if self._process is None:
            raise RuntimeError(f"the server {self.scenario.name} is not running")
        return self._process

    def _told(self) -> dict[str, int]:
        process = self._running()
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise RuntimeError(f"the server {self.scenario.name} ended with exit code {process.wait()}, see its stderr")
        return dict(json.loads(line))

    def _certified(self) -> list[str]:
        from tests.support.certificates import Authority  # its cryptography is nothing the servers need

        self._folder = tempfile.TemporaryDirectory(prefix="hostile-")
        authority = Authority("hostile", Path(self._folder.name))
        self.ca_file = authority.ca_file
        if self.scenario.name == _PLAIN_TLS:
            return []
        issued = _certificate(self.scenario.name, authority)
        return [f"--certificate={issued.certificate}", f"--key={issued.key}"]


def _certificate(name: str, authority: Authority) -> Issued:
    match name:
        case "expired-certificate":
            return authority.issue(ends=-timedelta(hours=1))
        case "self-signed":
            return authority.self_signed()
        case "wrong-host":
            return authority.issue("model.example")
    return authority.issue()


@contextmanager
def hostile_servers(names: Iterable[str], *, seed: int = 1) -> Iterator[dict[str, HostileServer]]:
    """Several at once, started side by side."""
    servers = {name: HostileServer(name, seed=seed) for name in names}
    with ExitStack() as stack:
        for server in servers.values():
            stack.callback(server.stop)
            server.start()
        for server in servers.values():
            server.wait()
        yield servers
