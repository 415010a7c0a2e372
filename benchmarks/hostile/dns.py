"""A name server that never answers, for one command: it gets a mount namespace with a resolv.conf of its own.

The resolver is the real one, of the C library, in a look-up that no Python code can interrupt. The name server is a UDP
socket on a loopback address of its own, for resolv.conf knows no ports.
"""

from __future__ import annotations

import os
import random
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

_OPTIONS = "options timeout:30 attempts:2"  # a look-up takes a minute to give up
_PRIVATE = 'mount --bind "$0" /etc/resolv.conf && exec "$@"'
_PORT = 53


class HangingDns:
    """See `hanging_dns`."""

    HOST = "model.example"
    """A name to look up: reserved, so that no real name server ever knows it."""

    def __init__(self, listener: socket.socket, resolv_conf: Path) -> None:
        self._listener = listener
        self._resolv_conf = resolv_conf
        self._queries = 0

    def command(self, argv: Sequence[str | Path]) -> list[str]:
        """The command line under which ``argv`` sees this name server and no other."""
        mapped = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
        program = [str(part) for part in argv]
        return ["unshare", *mapped, "--mount", "--", "sh", "-c", _PRIVATE, str(self._resolv_conf), *program]

    def queries(self) -> int:
        """Queries that arrived so far, and got no answer."""
        while True:
            try:
                self._listener.recv(4096)
            except BlockingIOError:
                return self._queries
            self._queries += 1


@contextmanager
def hanging_dns() -> Iterator[HangingDns]:
    """Raises RuntimeError where this cannot be had: it takes root and mount namespaces."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener, tempfile.TemporaryDirectory() as folder:
        address = _bind(listener)
        listener.setblocking(False)
        resolv_conf = Path(folder, "resolv.conf")
        resolv_conf.write_text(f"nameserver {address}\n{_OPTIONS}\n")
        dns = HangingDns(listener, resolv_conf)
        _check(dns, address)
        yield dns


def _bind(listener: socket.socket) -> str:
    """To port 53 of a loopback address nobody else uses."""
    for _ in range(100):
        address = f"127.53.{random.randrange(256)}.{random.randrange(1, 255)}"
        try:
            listener.bind((address, _PORT))
        except PermissionError as error:
            raise RuntimeError(f"no name server can be bound to port {_PORT}: run as root") from error
        except OSError:
            continue
        return address
    raise RuntimeError(f"no loopback address with a free port {_PORT} found")


def _check(dns: HangingDns, address: str) -> None:
    """Whether a command really sees this name server."""
    seen = subprocess.run(dns.command(["cat", "/etc/resolv.conf"]), capture_output=True, text=True, check=False)
    if seen.returncode or address not in seen.stdout:
        raise RuntimeError(
            f"no mount namespace to be had, so no name server can be made to hang: {seen.stderr.strip()}"
        )
