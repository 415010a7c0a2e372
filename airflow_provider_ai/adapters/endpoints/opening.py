"""The adapter that speaks an endpoint's protocol. Only that one is imported: each is a good part of a start."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager

from airflow_provider_ai.core.config import EndpointSettings
from airflow_provider_ai.core.ports import ModelEndpoint


def open_endpoint(
    settings: EndpointSettings, *, max_response_bytes: int, announce_deadline: bool = False
) -> AbstractAsyncContextManager[ModelEndpoint]:
    """``async with open_endpoint(settings, max_response_bytes=…) as endpoint``; to be used in that event loop.

    :param max_response_bytes: larger answers are refused
    :param announce_deadline: tell the server how long it has
    """
    from airflow_provider_ai.adapters.endpoints.http import HttpEndpoint

    return HttpEndpoint(settings, max_response_bytes=max_response_bytes, announce_deadline=announce_deadline)
