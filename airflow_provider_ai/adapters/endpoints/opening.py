"""The adapter that speaks an endpoint's protocol. Only that one is imported: each is a good part of a start."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from functools import partial

from airflow_provider_ai.core.config import EndpointSettings
from airflow_provider_ai.core.ports import ModelEndpoint
from airflow_provider_ai.exceptions import SpecError

Opening = Callable[[], AbstractAsyncContextManager[ModelEndpoint]]


def open_endpoint(
    settings: EndpointSettings, *, max_response_bytes: int, announce_deadline: bool = False
) -> AbstractAsyncContextManager[ModelEndpoint]:
    """``async with open_endpoint(settings, max_response_bytes=…) as endpoint``; to be used in that event loop.

    :param max_response_bytes: larger answers are refused
    :param announce_deadline: tell the server how long it has; over gRPC it is always told
    :raises SpecError: for TLS files that cannot be loaded, or a missing extra
    """
    if settings.over_grpc:
        with grpc_installed():
            from airflow_provider_ai.adapters.endpoints.open_inference_grpc import GrpcEndpoint
        return GrpcEndpoint(settings, max_response_bytes=max_response_bytes)
    from airflow_provider_ai.adapters.endpoints.http import HttpEndpoint

    return HttpEndpoint(settings, max_response_bytes=max_response_bytes, announce_deadline=announce_deadline)


def endpoint_opener(settings: EndpointSettings, *, max_response_bytes: int) -> Opening:
    """What opens an endpoint for calls that have a deadline; everything slow, and everything that can be wrong with
    the settings, is done here and now.
    """
    opening = partial(open_endpoint, settings, max_response_bytes=max_response_bytes, announce_deadline=True)
    opening()
    return opening


@contextmanager
def grpc_installed() -> Iterator[None]:
    """Around an import that needs the extra ``grpc``: SpecError says what to install when it is not there."""
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("grpc", "google"):
            raise
        raise SpecError(
            "protocol 'open-inference-grpc' needs the extra 'grpc': pip install 'airflow-provider-ai[grpc]'"
        ) from None
