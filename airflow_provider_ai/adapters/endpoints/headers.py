"""The headers every request to an endpoint carries."""

from __future__ import annotations

from collections.abc import Mapping

from airflow_provider_ai.core.config import EndpointSettings


def request_headers(settings: EndpointSettings, usual: Mapping[str, str]) -> dict[str, str]:
    """``usual`` under the settings' headers under the API key; each name once, whatever its case.

    aiohttp would send ``Content-Type`` and ``content-type`` both, and servers differ in which one they believe.
    """
    pairs = [*usual.items(), *settings.headers.items()]
    if settings.api_key:
        pairs.append(("Authorization", f"Bearer {settings.api_key}"))
    return dict({name.lower(): (name, value) for name, value in pairs}.values())
