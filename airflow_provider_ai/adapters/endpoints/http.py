"""An HTTP model endpoint on aiohttp, which costs a fraction of the CPU of other async clients (docs/performance.md).

The deadline is total: connect, TLS, headers and the last byte of the body. Redirects are not followed (an AI endpoint
that redirects would be sent the payload elsewhere) and no proxy or credential is taken from the environment.
"""

from __future__ import annotations

import asyncio
from functools import partial
from ssl import SSLContext, SSLError
from types import TracebackType
from weakref import WeakSet

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection
from aiohttp.tracing import Trace

from airflow_provider_ai.adapters.endpoints.headers import request_headers
from airflow_provider_ai.adapters.endpoints.resolver import DaemonResolver
from airflow_provider_ai.adapters.endpoints.tls import handshake_trouble, tls_context
from airflow_provider_ai.core.config import EndpointSettings
from airflow_provider_ai.core.ports import CallFailedError, Reply
from airflow_provider_ai.core.verdict import Failure

_KEEPALIVE_SECONDS = 15.0
_MAX_HEADER_BYTES = 32 * 1024
_PIECE_BYTES = 16 * 1024
DEADLINE_HEADER = "X-Request-Timeout-Ms"


class _Protocol(ResponseHandler):
    """Parses in pieces what arrives at once.

    The parser holds the interpreter while it is at work, and 256 KiB can be ten thousand interim answers: for seconds
    nobody else, and no deadline, would have a turn.
    """

    def data_received(self, data: bytes) -> None:
        if len(data) <= _PIECE_BYTES:
            super().data_received(data)
            return
        for start in range(0, len(data), _PIECE_BYTES):
            if self.exception() is not None:  # no answer any more
                return
            super().data_received(data[start : start + _PIECE_BYTES])


class _Connector(aiohttp.TCPConnector):
    """Never reuses a connection on which something arrived after the answer to its last call.

    aiohttp looks at that when a connection goes back to the pool, not when it leaves it again: what a proxy says into
    an idle connection (a late duplicate, a 408) would be taken for the answer to the next call, of other records.
    """

    def __init__(self, *, keepalive_timeout: float, ssl: bool | SSLContext) -> None:
        super().__init__(limit=0, keepalive_timeout=keepalive_timeout, ssl=ssl, resolver=DaemonResolver())
        protocol: type[ResponseHandler] = _Protocol
        self._factory = partial(protocol, loop=self._loop)
        self._used: WeakSet[ResponseHandler] = WeakSet()

    async def connect(
        self, req: aiohttp.ClientRequest, traces: list[Trace], timeout: aiohttp.ClientTimeout
    ) -> Connection:
        while True:
            connection = await super().connect(req, traces, timeout)
            protocol = connection.protocol
            if protocol is None or protocol not in self._used or not protocol.should_close:
                break
            connection.close()
        if protocol is not None:
            self._used.add(protocol)
        return connection


class HttpEndpoint:
    """``async with HttpEndpoint(settings, max_response_bytes=…) as endpoint``.

    :param announce_deadline: tell the server in ``X-Request-Timeout-Ms`` how many milliseconds it has
    """

    def __init__(self, settings: EndpointSettings, *, max_response_bytes: int, announce_deadline: bool = False) -> None:
        self._settings = settings
        self._max_bytes = max_response_bytes
        self._announces = announce_deadline
        self._headers = request_headers(settings, {"Content-Type": "application/json", "Accept": "application/json"})
        self._tls = tls_context(settings)
        self._session: aiohttp.ClientSession | None = None
        self._timeout = _total(0.0)

    async def __aenter__(self) -> HttpEndpoint:
        connector = _Connector(keepalive_timeout=_KEEPALIVE_SECONDS, ssl=True if self._tls is None else self._tls)
        self._session = aiohttp.ClientSession(
            connector=connector,
            headers=self._headers,
            cookie_jar=aiohttp.DummyCookieJar(),
            max_line_size=_MAX_HEADER_BYTES,
            max_field_size=_MAX_HEADER_BYTES,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def post(self, path: str, body: bytes, *, deadline_seconds: float) -> Reply:
        """The answer, or CallFailedError after at most ``deadline_seconds``."""
        if self._session is None:
            raise RuntimeError("HttpEndpoint must be entered (async with) before it is used")
        if self._timeout.total != deadline_seconds:  # a batch has one deadline for all of its calls
            self._timeout = _total(deadline_seconds)
        try:
            async with self._session.post(
                self._settings.url_of(self._settings.path or path),
                data=body,
                headers={DEADLINE_HEADER: _milliseconds(deadline_seconds)} if self._announces else None,
                timeout=self._timeout,
                allow_redirects=False,
            ) as response:
                content = await self._read(response)
                return Reply(response.status, content, response.headers.get("Retry-After"))
        except (TimeoutError, aiohttp.ClientError, OSError, ValueError) as error:
            raise _failed(error) from None

    async def _read(self, response: aiohttp.ClientResponse) -> bytes:
        length = None if "Content-Encoding" in response.headers else response.content_length
        if length is not None and length <= self._max_bytes:
            return await response.read()
        # A length that is too large is believed at once: waiting for it could end as a timeout, which is tried again.
        size = length or 0
        parts: list[bytes] = []
        while size <= self._max_bytes:
            part = await response.content.readany()
            if not part:
                return b"".join(parts)
            size += len(part)
            parts.append(part)
        response.close()
        raise CallFailedError(Failure.TOO_LARGE, f"answer larger than {self._max_bytes} bytes")


def _total(seconds: float) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(total=seconds, ceil_threshold=float("inf"))


def _milliseconds(seconds: float) -> str:
    """Whole milliseconds, rounded down but never to "at once"."""
    return str(max(1, int(seconds * 1000)))


def _failed(error: Exception) -> CallFailedError:
    """What a client error means; only its class name is kept, for messages may quote the request."""
    name = type(error).__name__
    if isinstance(error, aiohttp.ClientConnectorCertificateError | aiohttp.ClientConnectorSSLError):
        return CallFailedError(Failure.CONNECT, f"TLS: {handshake_trouble(error.os_error)}", permanent=True)
    if _certificate_refused(error):
        return CallFailedError(Failure.CONNECT, "TLS: the server refuses the client certificate", permanent=True)
    if isinstance(error, aiohttp.InvalidURL | UnicodeError):  # the latter: a host name that IDNA cannot encode
        return CallFailedError(Failure.CONNECT, name, permanent=True)
    if isinstance(error, aiohttp.ClientConnectorError):
        return CallFailedError(Failure.CONNECT, name)
    if isinstance(error, asyncio.TimeoutError):
        return CallFailedError(Failure.TIMEOUT, name)
    return CallFailedError(Failure.DISCONNECTED, name)


def _certificate_refused(error: Exception) -> bool:
    """Whether the server does not like our certificate, or that there is none: TLS 1.3 says so after the handshake."""
    cause = error.__cause__
    reason = cause.reason or "" if isinstance(cause, SSLError) else ""
    return "_ALERT_" in reason and ("CERTIFICATE" in reason or reason.endswith(("UNKNOWN_CA", "ACCESS_DENIED")))
