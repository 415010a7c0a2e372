"""What Airflow's providers manager learns about this distribution.

Airflow calls this in every process it starts, so it imports nothing beyond the package itself.
`package-name` must equal the distribution's name: Airflow drops a provider whose two names differ.
"""

from __future__ import annotations

from typing import Any

from airflow_provider_ai import __version__


def get_provider_info() -> dict[str, Any]:
    """Return the provider description in the shape of Airflow's `provider_info.schema.json`."""
    return {
        "package-name": "airflow-provider-ai",
        "name": "AI integration patterns",
        "description": "Synchronous, asynchronous and batch integration patterns for AI services.",
        "versions": [__version__],
    }
