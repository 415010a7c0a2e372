"""Claim checks in memory."""

from __future__ import annotations

from collections.abc import Iterable

from airflow_provider_ai.exceptions import ClaimCheckError, ClaimCheckUnavailableError

_ROOT = "memory://claims/"


class InMemoryClaimChecks:
    """Claim checks; ``objects``: what is there, by URI.

    ``available = False`` makes everything raise ClaimCheckUnavailableError until it is True again.
    """

    def __init__(self) -> None:
        self.available = True
        self.objects: dict[str, bytes] = {}

    def put(self, name: str, data: bytes) -> str:
        """Store bytes under a name of ours; their URI."""
        self._require_available()
        ref = f"{_ROOT}{name}"
        self.objects[ref] = data
        return ref

    def get(self, ref: str) -> bytes:
        """The bytes; ClaimCheckError when they are gone."""
        self._require_available()
        if ref not in self.objects:
            raise ClaimCheckError("an object is not there any more; a retry cannot help")
        return self.objects[ref]

    def delete(self, refs: Iterable[str]) -> None:
        """Remove objects; absent ones are no error."""
        self._require_available()
        for ref in refs:
            if not ref.startswith(_ROOT):
                raise ClaimCheckError("a reference is not below this folder")
            self.objects.pop(ref, None)

    def _require_available(self) -> None:
        if not self.available:
            raise ClaimCheckUnavailableError("the storage is down; a retry may help")
