"""What services of the asynchronous pattern have in common: how they are told to stop, how they show their health."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from airflow_provider_ai.adapters.health import HealthServer

_STUCK_SECONDS = 30.0
_TICK_SECONDS = 1.0


def owner_name() -> str:
    """A name for this process and this start of it."""
    return f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"


@contextmanager
def health(
    host: str,
    port: int | None,
    *,
    live: Callable[[], bool],
    ready: Callable[[], bool],
    metrics: Callable[[], str],
    listening: Callable[[int], None],
) -> Iterator[None]:
    """The health endpoint, where there is a port for it. ``listening`` is told which one it is."""
    if port is None:
        yield
        return
    server = HealthServer(host, port, live=live, ready=ready, metrics=metrics)
    try:
        listening(server.port)
        yield
    finally:
        server.close()


class Pulse:
    """Whether an event loop turns."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    async def run(self) -> None:
        """Beat until cancelled."""
        while True:
            self._last = time.monotonic()
            await asyncio.sleep(_TICK_SECONDS)

    @property
    def alive(self) -> bool:
        """Whether the loop has turned lately."""
        return time.monotonic() - self._last < _STUCK_SECONDS


@contextmanager
def stopped_by_signals(stop: Callable[[str], None]) -> Iterator[None]:
    """Around an event loop's work: SIGTERM and Ctrl-C call ``stop`` with the signal's name."""
    loop = asyncio.get_running_loop()
    numbers = (signal.SIGTERM, signal.SIGINT)
    for number in numbers:
        loop.add_signal_handler(number, stop, number.name)
    try:
        yield
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)
