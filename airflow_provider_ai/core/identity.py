"""Names that are the same whenever the same thing is meant: record keys, checkpoint keys, scopes, run keys."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from airflow_provider_ai.core.config import EndpointSettings


def digest(*parts: object, length: int = 32) -> str:
    """``length`` hex digits of SHA-256 over the canonical JSON of ``parts``."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:length]


def record_key(record_id: object, *, secret: bytes = b"") -> str:
    """The opaque name of a record: 32 hex digits of keyed BLAKE2b over its id (RFC 7693), the same in every run.

    Ids of different types never collide: ``1`` and ``"1"`` are different records. ``secret``: at most 64 bytes.
    """
    text = f"{type(record_id).__name__}:{record_id}"
    return hashlib.blake2b(text.encode(), key=secret, digest_size=16).hexdigest()


def checkpoint_key(*, fingerprint: str, request: Mapping[str, Any], endpoint: Mapping[str, Any]) -> str:
    """Names the checkpoints of one computation: manifest, request (prompt, parameters, schema) and endpoint identity.

    Any change of these gives another key, so an answer is never reused for a question that was not asked.
    """
    return digest("checkpoint", 1, fingerprint, request, endpoint)


def endpoint_name(endpoint: EndpointSettings) -> str:
    """What an endpoint is called in the store and in metrics: host, port, model, and 8 hex digits of its identity.

    Everyone who calls the same model at the same URL shares its circuit breaker and its bulkhead.
    """
    model = re.sub(r"[^A-Za-z0-9._-]+", "-", endpoint.model)[:60]
    return f"{urlsplit(endpoint.url).netloc}/{model}-{digest('endpoint', endpoint.identity(), length=8)}"


def scope_name(input_uri: str, id_column: str) -> str:
    """The slice of the target table that belongs to one input: a readable tail of its URI and 8 hex digits.

    Planning the same input again publishes into the same scope, so new rows replace the old ones.
    """
    tail = [part for part in re.split(r"[/?#]", input_uri.split("://")[-1]) if part and "*" not in part]
    slug = re.sub(r"[^A-Za-z0-9=._-]+", "-", tail[-1])[-40:].strip("-") if tail else "input"
    return f"{slug}-{digest('scope', input_uri, id_column, length=8)}"


def partition_label(scope: str, fingerprint: str, index: int) -> str:
    """The value of ``_partition`` in the warehouse: scope, plan and number."""
    return f"{scope}/{fingerprint[:8]}/{index:05d}"
