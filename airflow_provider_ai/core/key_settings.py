"""Settings of encryption: which key wraps the data keys, and how long a data key is used.

Two kinds. :class:`KmsKeys`: the key stays in AWS KMS. :class:`LocalKeys`: a keyring, from a connection, a secrets
backend, the environment or a file. Either has a hash key beside it, which outlives every rotation: it names records and
tells payloads apart where a plain hash of a value that can be guessed would give the value away. No secret is in a
``repr``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from airflow_provider_ai.core.config import is_number, is_whole, require
from airflow_provider_ai.core.envelope import KEY_BYTES

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_TENANT = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._:/=+@-]{0,127}")  # what an encryption context of KMS may hold
_KMS_KEY = re.compile(r"(arn:aws[a-z-]*:kms:[a-z0-9-]+:\d{12}:key/)?(mrk-)?[A-Za-z0-9-]{32,40}")
_GCM_MOST_MESSAGES = 2**32
"""NIST SP 800-38D, §8.3: invocations of one key with random nonces."""
_MOST_BYTES = 2**38
"""RFC 8446, §5.5: what AES-GCM may encrypt under one key with a safety margin of 2^-57 (24 million full records)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DataKeyLimits:
    """When a process stops encrypting under a data key; at half of any of them it fetches the next one, in the
    background. For decryption, ``max_age_seconds`` is how long an unwrapped data key is remembered: so long a revoked
    key goes on working in processes that have just used it.

    :param max_messages: far below the 2^32 of NIST SP 800-38D §8.3
    :param max_bytes: far below the 2^38 of RFC 8446 §5.5
    """

    max_messages: int = 2**20
    max_bytes: int = 2**34
    max_age_seconds: float = 300.0

    def __post_init__(self) -> None:
        messages = is_whole(self.max_messages, 2) and self.max_messages < _GCM_MOST_MESSAGES
        require(messages, "max_messages must be an integer in [2, 2^32) (NIST SP 800-38D)", self.max_messages)
        size = is_whole(self.max_bytes, 1) and self.max_bytes <= _MOST_BYTES
        require(size, "max_bytes must be an integer in [1, 2^38] (RFC 8446)", self.max_bytes)
        age = is_number(self.max_age_seconds) and 0 < self.max_age_seconds <= 86_400
        require(age, "max_age_seconds must be a number in (0, 86400]", self.max_age_seconds)


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalKeys:
    """A keyring.

    :param current: id of the key that wraps new data keys
    :param keys: ``(id, 32 bytes)`` of the current one and of older ones, which only unwrap
    :param hash_key: 32 bytes; the same for as long as the deployment lives
    :param tenant: whose data they are: data of one tenant cannot be read as another's
    """

    current: str
    keys: tuple[tuple[str, bytes], ...] = field(repr=False)
    hash_key: bytes = field(repr=False)
    tenant: str = "default"
    limits: DataKeyLimits = field(default_factory=DataKeyLimits)

    def __post_init__(self) -> None:
        names = [name for name, _ in self.keys]
        for name in names:
            require(_NAME.fullmatch(name) is not None, "a key id must be letters, digits, '.', '_' and '-'", name)
        require(len(set(names)) == len(names), "key ids must be distinct", "one twice")
        require(self.current in names, f"the current key must be one of {names}", self.current)
        secrets = [*(key for _, key in self.keys), self.hash_key]
        require(all(is_key(secret) for secret in secrets), f"every key must have {KEY_BYTES} bytes", "another length")
        require(len(set(secrets)) == len(secrets), "no two keys may be the same", "one twice")
        check_tenant(self.tenant)


@dataclass(frozen=True, slots=True, kw_only=True)
class KmsKeys:
    """A key in AWS KMS. What is absent of region, endpoint and credentials comes from boto3's default places.

    :param key_id: ARN or id of a key; no alias: messages name the key that they need, and an alias moves
    :param older_key_ids: likewise; these only unwrap
    :param hash_key: 32 bytes, as with :class:`LocalKeys`; or else
    :param wrapped_hash_key: the same, encrypted by KMS (``airflow-ai keys generate SPEC.toml``)
    """

    key_id: str
    older_key_ids: tuple[str, ...] = ()
    hash_key: bytes | None = field(default=None, repr=False)
    wrapped_hash_key: bytes | None = field(default=None, repr=False)
    region: str | None = None
    endpoint_url: str | None = None
    access_key: str | None = field(default=None, repr=False)
    secret_key: str | None = field(default=None, repr=False)
    session_token: str | None = field(default=None, repr=False)
    tenant: str = "default"
    limits: DataKeyLimits = field(default_factory=DataKeyLimits)

    def __post_init__(self) -> None:
        for key_id in (self.key_id, *self.older_key_ids):
            named = isinstance(key_id, str) and _KMS_KEY.fullmatch(key_id) is not None
            require(named, "key_id must be the ARN or the id of a KMS key (not an alias, which may move)", key_id)
        one = (self.hash_key is None) != (self.wrapped_hash_key is None)
        require(one, "either a hash key or a wrapped hash key must be set", "both" if self.hash_key else "neither")
        sound = self.hash_key is None or is_key(self.hash_key)
        require(sound, f"the hash key must have {KEY_BYTES} bytes", "another length")
        check_tenant(self.tenant)


KeySettings = LocalKeys | KmsKeys


def is_key(value: object) -> bool:
    """Whether a value is key material."""
    return isinstance(value, bytes) and len(value) == KEY_BYTES


def check_tenant(tenant: object) -> None:
    """SpecError unless it can name a tenant."""
    named = isinstance(tenant, str) and _TENANT.fullmatch(tenant) is not None
    require(named, "tenant must be 1 to 128 letters, digits, spaces and '._:/=+@-'", tenant)
