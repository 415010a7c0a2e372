"""Small JSON documents with a checksum, so that one that is damaged is not taken for one that says something else."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from airflow_provider_ai.core.identity import digest

_CHECKSUM = "checksum"


def to_document(body: Mapping[str, Any]) -> bytes:
    """JSON values as bytes; the same body gives the same bytes."""
    checksum = digest("document", _plain(body))
    return json.dumps({**body, _CHECKSUM: checksum}, sort_keys=True, separators=(",", ":")).encode()


def from_document(data: bytes) -> dict[str, Any]:
    """The inverse of :func:`to_document`, tuples as lists. ValueError when it is damaged."""
    body = json.loads(data)
    if not isinstance(body, dict) or body.pop(_CHECKSUM, None) != digest("document", body):
        raise ValueError("the document does not match its checksum")
    return body


def _plain(body: Mapping[str, Any]) -> Any:
    return json.loads(json.dumps(body))
