"""Keys that wrap data keys.

A data key is wrapped together with a binding: package, tenant and purpose. The binding is no secret. In AWS it is the
``EncryptionContext``, which policies can name and CloudTrail logs; a local key takes it as additional data. A wrapped
key that is presented under another binding does not unwrap.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

PACKAGE: Final = "airflow-provider-ai"


@dataclass(frozen=True, slots=True)
class DataKey:
    """A data key, plain and wrapped. ``key_id``: of the key that wraps it."""

    plain: bytes = field(repr=False)
    key_id: str
    wrapped: bytes = field(repr=False)


class KeyWrapper(Protocol):
    """Wraps and unwraps data keys. Thread-safe; blocks. Errors are EncryptionError."""

    def make(self, binding: Mapping[str, str]) -> DataKey:
        """A new data key, wrapped by the current key."""
        ...

    def unwrap(self, key_id: str, wrapped: bytes, binding: Mapping[str, str]) -> bytes:
        """A data key that was wrapped by the current key or by an older one."""
        ...

    def wrap_anew(self, key_id: str, wrapped: bytes, binding: Mapping[str, str]) -> tuple[str, bytes]:
        """The same data key, wrapped by the current key: its id and the bytes."""
        ...

    def is_current(self, key_id: str) -> bool:
        """Whether this names the current key."""
        ...

    def hash_key(self, tenant: str) -> bytes:
        """The key of hashes, the same for as long as the deployment lives."""
        ...


def binding_of(tenant: str, purpose: str) -> dict[str, str]:
    """What the data keys of a tenant and a purpose are wrapped with."""
    return {"package": PACKAGE, "tenant": tenant, "purpose": purpose}
