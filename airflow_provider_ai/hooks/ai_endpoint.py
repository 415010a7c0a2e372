"""An Airflow connection of type ``ai_endpoint`` → :class:`EndpointSettings`.

Invariants: one parser serves the operators, the sensor, its trigger and the Test button, so all of them agree on what a
connection means. A key the parser does not know is an error, because a misspelt ``verify_tls`` must not go unnoticed.
The API key and header values are masked in task logs and never part of a message.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

from airflow.providers.common.compat.sdk import AirflowException, BaseHook, mask_secret

from airflow_provider_ai.core.config import EndpointSettings
from airflow_provider_ai.exceptions import AIProviderError, SpecError
from airflow_provider_ai.hooks.extras import ConnectionFields, boolean, number, parse_extras

if TYPE_CHECKING:
    from airflow_provider_ai.core.key_settings import KeySettings

CONNECTION_TYPE = "ai_endpoint"
DEFAULT_PROTOCOL = "open-inference"
TEST_TIMEOUT_SECONDS = 10.0
DEFAULT_PORTS = {"http": 80, "https": 443}  # gRPC has none
DEFAULT_SCHEMES = {"open-inference-grpc": "grpcs"}
LOOPBACK = ("127.0.0.1", "::1", "localhost")


def _price(value: Any) -> float:
    return number(value, "USD")


def _seconds(value: Any) -> float:
    return number(value, "seconds")


def _headers(value: Any) -> dict[str, str]:
    """Header name → value, from an object or its JSON text."""
    try:
        body = json.loads(value) if isinstance(value, str) else value
    except ValueError:
        body = None
    if not isinstance(body, Mapping):
        raise ValueError("must be a JSON object of header names and values")
    return {str(name): str(text) for name, text in body.items()}


EXTRAS: Mapping[str, Callable[[Any], Any]] = {
    "protocol": str,
    "model": str,
    "path": str,
    "headers": _headers,
    "verify_tls": boolean,
    "ca_file": str,
    "client_cert_file": str,
    "client_key_file": str,
    "price_per_million_input_tokens": _price,
    "price_per_million_output_tokens": _price,
    "price_per_call": _price,
    "p99_seconds": _seconds,
    "keys_conn_id": str,
}


def endpoint_settings(conn: ConnectionFields) -> EndpointSettings:
    """What the connection says. SpecError names the connection, the field and what it must be; never a secret."""
    try:
        extras = parse_extras(conn.extra, EXTRAS)
        extras.pop("keys_conn_id", None)
        extras.setdefault("protocol", DEFAULT_PROTOCOL)
        if not extras.get("model"):
            raise SpecError("model must be a name; set it in the connection's Model field")
        return EndpointSettings(url=_url(conn, extras["protocol"]), api_key=conn.password or None, **extras)
    except SpecError as error:
        raise SpecError(f"connection {conn.conn_id!r} (type {CONNECTION_TYPE}): {error}") from None


def keys_conn_id_of(conn: ConnectionFields) -> str | None:
    """The connection of the keys that encrypt what is kept of this endpoint's records; None for none."""
    found: str | None = parse_extras(conn.extra, EXTRAS).get("keys_conn_id")
    return found


def _url(conn: ConnectionFields, protocol: str) -> str:
    """``host`` as a whole URL, or put together from ``schema`` (the one with TLS unless given), ``host``, ``port``."""
    host = (conn.host or "").strip()
    if not host:
        raise SpecError("the URL is missing; put it in the connection's Endpoint URL (host) field")
    url = host if "://" in host else f"{conn.schema or DEFAULT_SCHEMES.get(protocol, 'https')}://{host}"
    try:
        parts = urlsplit(url)
        given = parts.port
    except ValueError:
        raise SpecError("the endpoint URL must be scheme://host[:port][/path] with a port up to 65535") from None
    port = given or conn.port or None
    bare = parts.netloc.removesuffix(f":{given}")
    # The checkpoints belong to the URL: naming the port that is meant anyway must not start them afresh.
    netloc = bare if port in (None, DEFAULT_PORTS.get(parts.scheme)) else f"{bare}:{port}"
    return parts._replace(netloc=netloc).geturl()


class AIEndpointHook(BaseHook):
    """A model endpoint: Open Inference Protocol (V2, over HTTP or gRPC), OpenAI-compatible or plain JSON.

    Connection fields: ``host`` is the URL, ``password`` the API key; everything else is in the extras.

    :param endpoint_conn_id: connection of type ``ai_endpoint``
    """

    conn_name_attr = "endpoint_conn_id"
    default_conn_name = "ai_endpoint_default"
    conn_type = CONNECTION_TYPE
    hook_name = "AI endpoint"

    def __init__(self, endpoint_conn_id: str = default_conn_name) -> None:
        super().__init__()
        self.endpoint_conn_id = endpoint_conn_id

    def get_conn(self) -> EndpointSettings:
        """The settings; SpecError when the connection cannot be right."""
        settings = endpoint_settings(cast(ConnectionFields, self.get_connection(self.endpoint_conn_id)))
        for secret in settings.headers.values():
            mask_secret(secret)
        return settings

    def keys(self) -> KeySettings | None:
        """The keys that the connection names (``keys_conn_id``); None when it names none."""
        from airflow_provider_ai.hooks.ai_keys import keys_of

        return keys_of(keys_conn_id_of(cast(ConnectionFields, self.get_connection(self.endpoint_conn_id))))

    async def aget_conn(self) -> EndpointSettings:
        """As :meth:`get_conn`, for triggers."""
        return endpoint_settings(cast(ConnectionFields, await self.aget_connection(self.endpoint_conn_id)))

    def test_connection(self) -> tuple[bool, str]:
        """Whether the model answers as ready, and what to do when it does not. For the Test button."""
        from airflow_provider_ai.adapters.endpoints.readiness import check_ready

        try:
            endpoint = self.get_conn()
            readiness = check_ready(endpoint, timeout_seconds=TEST_TIMEOUT_SECONDS)
        except (AIProviderError, AirflowException) as error:
            return False, str(error)
        warning = _tls_warning(endpoint) if readiness.ready else ""
        return readiness.ready, f"{readiness.detail}. {warning}".strip()


def _tls_warning(endpoint: EndpointSettings) -> str:
    parts = urlsplit(endpoint.url)
    if parts.hostname in LOOPBACK:
        return ""
    if parts.scheme in ("http", "grpc"):
        return f"Records and the API key travel unencrypted over {parts.scheme}: use {parts.scheme}s for health data."
    return (
        "" if endpoint.verify_tls else "The certificate is not verified: set a CA file instead of switching that off."
    )
