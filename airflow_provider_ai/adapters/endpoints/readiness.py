"""Whether a model endpoint is ready to be called, asked in the way its protocol offers. Costs no inference."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from urllib.parse import quote

import aiohttp
import orjson

from airflow_provider_ai.adapters.endpoints.headers import request_headers
from airflow_provider_ai.adapters.endpoints.opening import grpc_installed
from airflow_provider_ai.adapters.endpoints.resolver import DaemonResolver
from airflow_provider_ai.adapters.endpoints.tls import handshake_trouble, tls_context
from airflow_provider_ai.core.config import EndpointSettings
from airflow_provider_ai.core.ports import CallFailedError
from airflow_provider_ai.core.verdict import Failure

_MODELS = "/v1/models"
_NO_SUCH_LIST = (404, 405)
_REFUSED_KEY = (401, 403)
_LISTED_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Readiness:
    """``detail`` says in a few words what was seen; it carries no payload and no credential."""

    ready: bool
    detail: str


def check_ready(endpoint: EndpointSettings, *, timeout_seconds: float = 5.0) -> Readiness:
    """:func:`acheck_ready` for callers without an event loop."""
    return asyncio.run(acheck_ready(endpoint, timeout_seconds=timeout_seconds))


async def acheck_ready(endpoint: EndpointSettings, *, timeout_seconds: float = 5.0) -> Readiness:
    """Ask once, in at most ``timeout_seconds``.

    Open Inference Protocol: ``GET /v2/models/{model}/ready`` says 200, over gRPC ``ModelReady`` says true.
    OpenAI-compatible: ``GET /v1/models`` says 200 and lists the model; a server without that list (LitServe) says 200
    to ``GET /health``. Plain JSON has no such question: any answer below 500 to ``GET /`` shows a server.
    """
    if endpoint.over_grpc:
        return await _ask_over_grpc(endpoint, timeout_seconds)
    tls = tls_context(endpoint)
    connector = aiohttp.TCPConnector(ssl=True if tls is None else tls, resolver=DaemonResolver())
    headers, unlimited = request_headers(endpoint, {}), aiohttp.ClientTimeout(total=None, sock_connect=None)
    try:
        async with (
            asyncio.timeout(timeout_seconds),
            aiohttp.ClientSession(connector=connector, headers=headers, timeout=unlimited) as session,
        ):
            return await _ask(endpoint, session)
    except TimeoutError:
        return _no_answer(timeout_seconds)
    except (aiohttp.ClientConnectorCertificateError, aiohttp.ClientConnectorSSLError) as error:
        return _no_trust(handshake_trouble(error.os_error))
    except (aiohttp.ClientError, OSError, UnicodeError) as error:
        return _no_connection(type(error).__name__)


def _no_answer(timeout_seconds: float) -> Readiness:
    return Readiness(False, f"no answer within {timeout_seconds:g} s")


def _no_trust(why: str) -> Readiness:
    return Readiness(False, f"TLS fails ({why}): check ca_file, client_* and the certificate's host")


def _no_connection(why: str) -> Readiness:
    return Readiness(False, f"cannot connect ({why}): check the URL and that the server runs")


async def _ask_over_grpc(endpoint: EndpointSettings, timeout_seconds: float) -> Readiness:
    with grpc_installed():
        from airflow_provider_ai.adapters.endpoints.open_inference_grpc import ask_ready
    try:
        status = await ask_ready(endpoint, timeout_seconds=timeout_seconds)
    except CallFailedError as failed:
        if failed.failure is Failure.TIMEOUT:
            return _no_answer(timeout_seconds)
        return _no_trust(str(failed).removeprefix("TLS: ")) if failed.permanent else _no_connection(str(failed))
    if status == 200:
        return Readiness(True, f"model {endpoint.model!r} is ready")
    if status in _REFUSED_KEY:
        return Readiness(False, "gRPC: the API key is missing or refused")
    if status == 501:
        return Readiness(False, "gRPC: the server does not speak the Open Inference Protocol")
    return Readiness(False, f"gRPC: model {endpoint.model!r} is not ready or not served here (as HTTP {status})")


async def _ask(endpoint: EndpointSettings, session: aiohttp.ClientSession) -> Readiness:
    async with session.get(_question(endpoint), allow_redirects=False) as response:
        if not (endpoint.protocol.startswith("openai") and response.status in _NO_SUCH_LIST):
            return await _read_answer(endpoint, response)
        listed = response.status
    health = endpoint.url_of(_MODELS).removesuffix(_MODELS) + "/health"
    async with session.get(health, allow_redirects=False) as response:
        return _health(listed, response.status)


def _health(listed: int, status: int) -> Readiness:
    """For a server that said ``listed`` to the question for its models and ``status`` to the one for its health."""
    if status == 200:
        return Readiness(True, f"the server is healthy; it lists no models (HTTP {listed}), so the model is unproven")
    if status in _REFUSED_KEY:
        return _refused_key(status)
    return Readiness(False, f"HTTP {listed} to {_MODELS} and HTTP {status} to /health: not ready, or another server")


def _refused_key(status: int) -> Readiness:
    return Readiness(False, f"HTTP {status}: the API key is missing or refused")


def _question(endpoint: EndpointSettings) -> str:
    if endpoint.protocol == "open-inference":
        return endpoint.url_of(f"/v2/models/{quote(endpoint.model, safe='')}/ready")
    return endpoint.url_of(_MODELS if endpoint.protocol.startswith("openai") else "/")


async def _read_answer(endpoint: EndpointSettings, response: aiohttp.ClientResponse) -> Readiness:
    status = response.status
    if status in _REFUSED_KEY:
        return _refused_key(status)
    if endpoint.protocol == "json":
        return Readiness(status < 500, f"the server answers (HTTP {status})" if status < 500 else f"HTTP {status}")
    if status != 200:
        return Readiness(False, f"HTTP {status}: model {endpoint.model!r} is not ready or not served here")
    if endpoint.protocol == "open-inference":
        return Readiness(True, f"model {endpoint.model!r} is ready")
    return _listed(endpoint.model, await _read_list(response))


async def _read_list(response: aiohttp.ClientResponse) -> bytes:
    """The body, or as much of it as a list may have."""
    body = bytearray()
    while len(body) < _LISTED_BYTES and (part := await response.content.readany()):
        body += part
    return bytes(body)


def _listed(model: str, body: bytes) -> Readiness:
    try:
        names = [entry["id"] for entry in orjson.loads(body)["data"]]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return Readiness(False, "HTTP 200, but the body is no model list: is this an OpenAI-compatible server?")
    if model in names:
        return Readiness(True, f"model {model!r} is served")
    return Readiness(False, f"the server is up but does not list model {model!r} ({len(names)} others)")
