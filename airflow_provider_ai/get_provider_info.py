"""What Airflow's providers manager learns about this distribution.

Airflow calls this in every process it starts, so it imports nothing beyond the package itself.
`package-name` must equal the distribution's name: Airflow drops a provider whose two names differ.
"""

from __future__ import annotations

from typing import Any

from airflow_provider_ai import __version__

TEXT = ["string", "null"]
NUMBER = ["number", "null"]


def get_provider_info() -> dict[str, Any]:
    """Return the provider description in the shape of Airflow's `provider_info.schema.json`."""
    return {
        "package-name": "airflow-provider-ai",
        "name": "AI integration patterns",
        "description": "Synchronous, asynchronous and batch integration patterns for AI services.",
        "versions": [__version__],
        "connection-types": [_ai_endpoint()],
        "task-decorators": [
            {"name": "ai_call", "class-name": "airflow_provider_ai.decorators.ai_call.ai_call_task"},
        ],
    }


def _ai_endpoint() -> dict[str, Any]:
    """The connection form of a model endpoint. Its fields are the extras that `hooks/ai_endpoint.py` reads."""
    return {
        "connection-type": "ai_endpoint",
        "hook-class-name": "airflow_provider_ai.hooks.ai_endpoint.AIEndpointHook",
        "hook-name": "AI endpoint",
        "ui-field-behaviour": {
            "hidden-fields": ["schema", "login"],
            # With no port, the Test button of Airflow up to 3.3.2 refuses a stored connection (apache/airflow#73298).
            "relabeling": {"host": "Endpoint URL", "port": "Port (for Test)", "password": "API key"},
            "placeholders": {"host": "https://models.example.org", "port": "443"},
        },
        "conn-fields": {
            "protocol": _field(
                "Protocol",
                "What the endpoint speaks: Open Inference Protocol V2 (Triton, MLServer, KServe) over HTTP or, with a "
                "URL grpc(s)://host:port, over gRPC; OpenAI-compatible chat or embeddings; or plain JSON.",
                type=["string"],
                enum=["open-inference", "open-inference-grpc", "openai-chat", "openai-embeddings", "json"],
                default="open-inference",
            ),
            "model": _field("Model", "The model's name at the endpoint.", type=["string"]),
            "path": _field("Path", "Replaces the protocol's own path, e.g. /predict.", type=TEXT),
            "verify_tls": _field("Verify TLS", "Check the server's certificate.", type=["boolean"], default=True),
            "ca_file": _field("CA file", "PEM bundle on the workers to trust instead of the system's.", type=TEXT),
            "client_cert_file": _field("Client certificate file", "PEM file, for mutual TLS.", type=TEXT),
            "client_key_file": _field("Client key file", "PEM file, for mutual TLS.", type=TEXT),
            "price_per_million_input_tokens": _price("Price per 1M input tokens"),
            "price_per_million_output_tokens": _price("Price per 1M output tokens"),
            "price_per_call": _price("Price per call"),
            "p99_seconds": _field(
                "p99 latency (seconds)",
                "What 99 of 100 answers take at most. A synchronous call with a shorter deadline is refused.",
                type=NUMBER,
                exclusiveMinimum=0,
            ),
            "headers": _field("Headers", "Further request headers, e.g. a tenant.", type=["object", "null"]),
        },
    }


def _price(label: str) -> dict[str, Any]:
    return _field(label, "USD; for the cost shown while a batch runs.", type=NUMBER, minimum=0)


def _field(label: str, description: str, **schema: Any) -> dict[str, Any]:
    return {"label": label, "description": description, "schema": schema}
