"""The Airflow connections of a synchronous call → settings. In the main thread, and before the deadline begins."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from airflow_provider_ai.core.config import EndpointSettings, StorageOptions
from airflow_provider_ai.core.fallback import Endpoint, Link
from airflow_provider_ai.hooks.ai_endpoint import AIEndpointHook
from airflow_provider_ai.hooks.storage import storage_options

if TYPE_CHECKING:
    from airflow_provider_ai.core.key_settings import KeySettings

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class CallConnections:
    """What the connections say. ``fallback``: the chain with settings in place of connection ids.

    :param store: SQLAlchemy URL; it may hold a password
    :param storage: how the place for outputs is reached; None for a local one
    :param keys: encrypt stored outputs and last good answers
    """

    endpoint: EndpointSettings
    fallback: tuple[Link, ...]
    store: str | None = field(repr=False)
    storage: StorageOptions | None
    keys: KeySettings | None = None


def resolve_connections(
    *,
    endpoint_conn_id: str,
    fallback: Sequence[Link],
    store_conn_id: str | None,
    output_uri: str | None,
    aws_conn_id: str | None,
) -> CallConnections:
    """Look them up, one after the other, and say how long that took."""
    started = time.monotonic()
    connections = CallConnections(
        endpoint=AIEndpointHook(endpoint_conn_id).get_conn(),
        fallback=tuple(_resolved(link) for link in fallback),
        store=_store_url(store_conn_id),
        storage=None if output_uri is None else storage_options((output_uri,), aws_conn_id),
        keys=AIEndpointHook(endpoint_conn_id).keys(),
    )
    log.info("connections resolved in %.0f ms", (time.monotonic() - started) * 1000)
    return connections


def _resolved(link: Link) -> Link:
    if isinstance(link, Endpoint) and isinstance(link.target, str):
        return replace(link, target=AIEndpointHook(link.target).get_conn())
    return link


def _store_url(conn_id: str | None) -> str | None:
    if conn_id is None:
        return None
    # SQLAlchemy is not needed to parse a DAG.
    from airflow_provider_ai.hooks.store import store_url

    return store_url(conn_id)
