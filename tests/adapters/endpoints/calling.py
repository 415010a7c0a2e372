"""Calls to a loopback server, with canaries in everything that must never be seen in an error or a log."""

from __future__ import annotations

import traceback
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from airflow_provider_ai.adapters.endpoints.http import HttpEndpoint
from airflow_provider_ai.core.config import EndpointSettings
from airflow_provider_ai.core.ports import CallFailedError, Reply
from tests.support.scripted_server import Server

SENT = "canary-in-the-request"
ANSWERED = "canary-in-the-answer"
SECRET = "canary-in-the-key"
CANARIES = (SENT, ANSWERED, SECRET)
BODY = b'{"inputs": [{"note": "' + SENT.encode() + b'"}]}'
MAX_BYTES = 256 * 1024


def settings(url: str, **changes: Any) -> EndpointSettings:
    return EndpointSettings(**{"url": url, "protocol": "json", "model": "m", "api_key": SECRET, **changes})


@asynccontextmanager
async def endpoint(
    at: Server | str, *, max_response_bytes: int = MAX_BYTES, announce_deadline: bool = False, **changes: Any
) -> AsyncIterator[HttpEndpoint]:
    """An open endpoint at a server or a URL; ``changes`` are settings."""
    url = at if isinstance(at, str) else at.url
    at_url = settings(url, **changes)
    options = {"max_response_bytes": max_response_bytes, "announce_deadline": announce_deadline}
    async with HttpEndpoint(at_url, **options) as opened:
        yield opened


async def post(opened: HttpEndpoint, *, body: bytes = BODY, deadline_seconds: float = 5.0) -> Reply:
    return await opened.post("/predict", body, deadline_seconds=deadline_seconds)


async def failure(opened: HttpEndpoint, *, body: bytes = BODY, deadline_seconds: float = 5.0) -> CallFailedError:
    """How a call fails; what would be printed of it holds no canary."""
    with pytest.raises(CallFailedError) as caught:
        await post(opened, body=body, deadline_seconds=deadline_seconds)
    printed = "".join(traceback.format_exception(caught.value)) + repr(caught.value)
    assert not [canary for canary in CANARIES if canary in printed]
    return caught.value
