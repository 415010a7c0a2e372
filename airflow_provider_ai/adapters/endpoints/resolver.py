"""Host names looked up in daemon threads: a look-up that hangs holds neither its caller nor the end of the process.

``getaddrinfo`` cannot be interrupted, and a name server that does not answer keeps it for 20 seconds and more. The
event loop's own way (its default executor) waits for that thread when the loop ends and again when the interpreter
does; a daemon thread is left behind. Who asks for a name that is being looked up shares that look-up, in any event loop
and thread of the process, so hanging ones do not pile up: a few for each name, and names come from settings.
"""

from __future__ import annotations

import asyncio
import os
import socket
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future

from aiohttp.abc import AbstractResolver, ResolveResult

_PER_NAME = 4
_SHARED_SECONDS = 1.0  # an older look-up may have lost its question, so a new one is asked beside it
_NUMERIC = socket.NI_NUMERICHOST | socket.NI_NUMERICSERV

# One address: family, protocol and the numeric host.
_Found = Sequence[tuple[socket.AddressFamily, int, str]]


class _LookUp:
    """One ``getaddrinfo`` in a thread of its own."""

    def __init__(self, host: str, family: int) -> None:
        self.started = time.monotonic()
        self.found: Future[_Found] = Future()
        self.found.set_running_or_notify_cancel()  # so that no waiter that gives up cancels it for the others
        threading.Thread(target=self._run, args=(host, family), name="look-up", daemon=True).start()

    def _run(self, host: str, family: int) -> None:
        try:
            infos = socket.getaddrinfo(host, 0, family, socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
            found = [(info[0], info[2], socket.getnameinfo(info[4], _NUMERIC)[0]) for info in infos]
        except (OSError, ValueError) as error:  # the latter: a name that IDNA cannot encode
            self.found.set_exception(error)
        else:
            self.found.set_result(found)


class _LookUps:
    """Those that run in this process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: dict[tuple[int, str, int], Sequence[_LookUp]] = {}

    def result(self, host: str, family: int) -> Future[_Found]:
        """Of a look-up that has just begun, or of a new one. OSError when there can be no further thread."""
        key = (os.getpid(), host, family)  # a fork inherits the list but not the threads
        with self._lock:
            running = [one for one in self._running.get(key, ()) if not one.found.done()]
            if not running or (len(running) < _PER_NAME and time.monotonic() - running[-1].started > _SHARED_SECONDS):
                running.append(_started(host, family))
            self._running[key] = running
            return running[-1].found


def _started(host: str, family: int) -> _LookUp:
    try:
        return _LookUp(host, family)
    except RuntimeError as error:
        raise OSError(str(error)) from None


_look_ups = _LookUps()


class DaemonResolver(AbstractResolver):
    """aiohttp's resolver on :mod:`threading` instead of an executor. Raises what ``getaddrinfo`` raises."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """The addresses of ``host``; waits as long as the caller does."""
        found = await asyncio.wrap_future(_look_ups.result(host, family))
        flags = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
        return [
            ResolveResult(hostname=host, host=address, port=port, family=kind, proto=protocol, flags=flags)
            for kind, protocol, address in found
        ]

    async def close(self) -> None:
        """Nothing to release: what still runs belongs to the process."""
