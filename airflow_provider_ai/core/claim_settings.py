"""Settings of claim checks: where payloads and results go that are too large for a message."""

from __future__ import annotations

from dataclasses import dataclass

from airflow_provider_ai.core.config import is_whole, require
from airflow_provider_ai.core.messages import LARGEST_INLINE_BYTES


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimCheckSettings:
    """Claim checks.

    :param uri: folder: local path, ``file://`` or ``s3://``; None for none: what is too large is then refused
    :param inline_limit_bytes: what travels in messages and stands in the store
    """

    uri: str | None = None
    inline_limit_bytes: int = 65_536

    def __post_init__(self) -> None:
        named = self.uri is None or (isinstance(self.uri, str) and bool(self.uri.strip()))
        require(named, "claim check uri must be a path or URI, or absent", self.uri)
        limit = self.inline_limit_bytes
        fits = is_whole(limit, 0) and limit <= LARGEST_INLINE_BYTES
        require(fits, f"inline_limit_bytes must be an integer in [0, {LARGEST_INLINE_BYTES}]", limit)
