"""An asynchronous endpoint for callers without an event loop: each thread has a loop, and connections, of its own.

A thread's loop stands still between two calls, so what happened to its idle connections meanwhile (the server closed
one: many do after five seconds) is only noticed when it turns again. It is given a few turns before each call; else
the call would go out on a dead connection and be lost.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from contextlib import AbstractAsyncContextManager
from typing import Any

from airflow_provider_ai.adapters.endpoints.opening import Opening
from airflow_provider_ai.core.ports import ModelEndpoint, Reply

log = logging.getLogger(__name__)
_TURNS = 4  # to read an end of stream, unwrap TLS, and tell the pool


class ThreadLoops:
    """The event loops of threads, with the endpoints that were opened in them."""

    def __init__(self) -> None:
        self._local = threading.local()

    def endpoint(self, opening: Opening) -> BlockingEndpoint:
        """An endpoint to call from any thread; it is opened in each thread that does."""
        return BlockingEndpoint(self._local, opening)

    def close_thread(self) -> None:
        """Close what the calling thread has opened."""
        runner: asyncio.Runner | None = getattr(self._local, "runner", None)
        if runner is None:
            return
        opened = self._local.opened
        del self._local.runner, self._local.opened
        with runner:
            for context, _ in opened.values():
                runner.run(_leave(context))


class BlockingEndpoint:
    """One endpoint, called from whatever thread; see :class:`ThreadLoops`."""

    def __init__(self, local: threading.local, opening: Opening) -> None:
        self._local = local
        self._opening = opening

    def post(self, path: str, body: bytes, *, deadline_seconds: float) -> Reply:
        """The answer, or CallFailedError after at most ``deadline_seconds``."""
        if not hasattr(self._local, "runner"):
            self._local.runner, self._local.opened = asyncio.Runner(), {}
            self._local.runner.get_loop().set_exception_handler(_keep_quiet)
        reply: Reply = self._local.runner.run(self._post(path, body, deadline_seconds))
        return reply

    async def _post(self, path: str, body: bytes, deadline_seconds: float) -> Reply:
        opened = self._local.opened.get(self)
        if opened is None:
            context = self._opening()
            opened = self._local.opened[self] = (context, await context.__aenter__())
        else:
            for _ in range(_TURNS):
                await asyncio.sleep(0)
        endpoint: ModelEndpoint = opened[1]
        return await endpoint.post(path, body, deadline_seconds=deadline_seconds)


def _keep_quiet(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """What a loop has to say beside its calls: sessions still open when the process exits, and repr()s of objects."""
    log.debug("event loop of a call: %s", context.get("message"))


async def _leave(context: AbstractAsyncContextManager[ModelEndpoint]) -> None:
    await context.__aexit__(None, None, None)
