"""Unary gRPC calls to one endpoint, for any number of event loops and threads.

Not grpc.aio, which binds a process to one event loop: calls are started on the synchronous channel and their ends are
handed to the loop that waits. A call that is cancelled or late is cancelled on the wire too.

A channel that brings no word any more is replaced, and closed when its last call has ended. Left alone, gRPC would send
every further call into a connection that is dead without having been closed (for a quarter of an hour), and would wait
up to two minutes before it looks up again a name that could not be resolved once.

gRPC's own name resolver (c-ares) keeps within a call's deadline and does not hold the end of the process.
"""

from __future__ import annotations

import asyncio
import threading
import time
from types import TracebackType
from typing import Any

import grpc

from airflow_provider_ai.adapters.endpoints.grpc_credentials import channel_credentials, metadata_of
from airflow_provider_ai.adapters.endpoints.grpc_status import Ended, reply_to
from airflow_provider_ai.core.config import EndpointSettings
from airflow_provider_ai.core.ports import CallFailedError, Reply
from airflow_provider_ai.core.verdict import Failure

_LEAST_CONNECT_SECONDS = 1.0
_MOST_CONNECT_SECONDS = 20.0
_MOST_SECONDS = 30 * 86_400.0  # gRPC takes centuries for a time that has passed
_NO_WORD = (Failure.CONNECT, Failure.DISCONNECTED, Failure.TIMEOUT)


class _Line:
    """A channel and what is known of it: calls on it now, and when the server last said something."""

    def __init__(self, channel: grpc.Channel) -> None:
        self.channel = channel
        self.calls = 0
        self.heard = 0.0
        self.replaced = False


class GrpcChannel:
    """``async with GrpcChannel(settings, max_response_bytes=…) as channel``."""

    def __init__(self, settings: EndpointSettings, *, max_response_bytes: int) -> None:
        self._target = "dns:///" + settings.url.partition("://")[2].rstrip("/")  # a host may be called "unix"
        self._max_bytes = max_response_bytes
        self._metadata = metadata_of(settings)
        self._credentials = channel_credentials(settings)
        self._lock = threading.Lock()
        self._line: _Line | None = None
        self._open = False

    async def __aenter__(self) -> GrpcChannel:
        self._open = True
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open = False
        with self._lock:
            line, self._line = self._line, None
        if line is not None:
            line.channel.close()

    async def call(self, method: str, message: bytes, *, deadline_seconds: float) -> Reply:
        """The answer, its body the message as it came; CallFailedError after at most ``deadline_seconds``."""
        if not self._open:
            raise RuntimeError("the endpoint must be entered (async with) before it is used")
        started = time.monotonic()
        line = self._take(deadline_seconds)
        try:
            async with asyncio.timeout(deadline_seconds):
                ended = await self._ended(line, method, message, deadline_seconds)
            reply = reply_to(ended, tls=self._credentials is not None, max_bytes=self._max_bytes)
        except TimeoutError:
            self._give_up(line, since=started)
            raise CallFailedError(Failure.TIMEOUT, "gRPC DEADLINE_EXCEEDED") from None
        except CallFailedError as failed:
            if failed.failure in _NO_WORD:
                self._give_up(line, since=started)
            raise
        else:
            line.heard = time.monotonic()
            return reply
        finally:
            self._leave(line)

    async def _ended(self, line: _Line, method: str, message: bytes, deadline_seconds: float) -> Ended:
        loop = asyncio.get_running_loop()
        told: asyncio.Future[None] = loop.create_future()

        def tell(_: grpc.Future) -> None:  # in a thread of gRPC's
            try:
                loop.call_soon_threadsafe(_finish, told)
            except RuntimeError:
                pass  # the loop has ended meanwhile: nobody waits

        timeout = min(deadline_seconds, _MOST_SECONDS)
        call = line.channel.unary_unary(method).future(message, timeout=timeout, metadata=self._metadata)
        call.add_done_callback(tell)
        try:
            await told
        finally:
            call.cancel()  # which changes nothing once it has ended
        return _end_of(call)

    def _take(self, connect_seconds: float) -> _Line:
        with self._lock:
            if self._line is None:
                seconds = min(max(connect_seconds, _LEAST_CONNECT_SECONDS), _MOST_CONNECT_SECONDS)
                self._line = _Line(self._channel(seconds))
            self._line.calls += 1
            return self._line

    def _channel(self, connect_seconds: float) -> grpc.Channel:
        options = _options(self._max_bytes, connect_seconds)
        if self._credentials is None:
            return grpc.insecure_channel(self._target, options)
        return grpc.secure_channel(self._target, self._credentials, options)

    def _give_up(self, line: _Line, *, since: float) -> None:
        """Use another channel from now on, unless this one has brought an answer since."""
        with self._lock:
            if line is self._line and line.heard < since:
                self._line = None
                line.replaced = True

    def _leave(self, line: _Line) -> None:
        with self._lock:
            line.calls -= 1
            last = line.replaced and line.calls == 0
        if last:
            line.channel.close()


def _finish(told: asyncio.Future[None]) -> None:
    if not told.done():
        told.set_result(None)


def _end_of(call: Any) -> Ended:
    code = call.code().name
    message = call.result() if code == "OK" else None
    return Ended(code=code, text=call.details() or "", message=message, trailers=dict(call.trailing_metadata() or ()))


def _options(max_bytes: int, connect_seconds: float) -> list[tuple[str, int]]:
    return [
        ("grpc.max_receive_message_length", max_bytes),
        ("grpc.max_send_message_length", -1),
        ("grpc.compression_enabled_algorithms_bitset", 1),  # none: gRPC up to 1.82 unpacks without a limit
        ("grpc.enable_http_proxy", 0),  # nothing is taken from the environment
        ("grpc.enable_retries", 0),  # to try again is for the caller to decide
        ("grpc.service_config_disable_resolution", 1),  # nor may a name server decide it
        ("grpc.use_local_subchannel_pool", 1),  # or a replaced channel's connection would be found again
        # How long a connection may take to stand. Closing the channel does not end one that is being made.
        ("grpc.min_reconnect_backoff_ms", int(connect_seconds * 1000)),
    ]
