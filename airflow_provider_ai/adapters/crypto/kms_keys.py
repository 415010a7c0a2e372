"""Data keys wrapped by AWS KMS: GenerateDataKey, Decrypt and ReEncrypt, each with the binding as encryption context.

A message names the ARN of its key, and only configured keys are asked for: whoever can write messages cannot make us
trust a key of their own account. What KMS refuses is told apart: a key that is disabled, scheduled for deletion or
denied comes back when a person acts; what is throttled or unreachable comes back by itself; a wrapped key that KMS does
not recognise was changed, or belongs to another tenant or purpose. KMS's own texts name ARNs only, but are not quoted.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any

from airflow_provider_ai.adapters.crypto.hash_keys import unwrap_hash_key
from airflow_provider_ai.adapters.crypto.wrapping import DataKey
from airflow_provider_ai.core.key_settings import KmsKeys
from airflow_provider_ai.exceptions import (
    KeyRevokedError,
    KeyUnavailableError,
    UnknownKeyError,
    WrongContextError,
)

_CONNECT_SECONDS, _READ_SECONDS, _TRIES = 3.0, 5.0, 3
_REVOKED = {
    "DisabledException": "is disabled",
    "KMSInvalidStateException": "is pending deletion or not ready",
    "NotFoundException": "does not exist (any more)",
    "AccessDeniedException": "may not be used with these credentials",
}
_NOT_OURS = ("InvalidCiphertextException", "IncorrectKeyException", "InvalidKeyUsageException")
_UNKNOWN_ACTION = ("InvalidAction", "UnknownOperationException")


class KmsKeyWrapper:
    """A :class:`~airflow_provider_ai.adapters.crypto.wrapping.KeyWrapper` on AWS KMS.

    :param client: a boto3 client for KMS; None for one made from the settings at first use
    """

    def __init__(self, keys: KmsKeys, client: Any = None) -> None:
        self._keys = keys
        self._client = client
        self._hash_key = keys.hash_key
        self._lock = threading.Lock()

    def make(self, binding: Mapping[str, str]) -> DataKey:
        """A new data key."""
        key_id = self._keys.key_id
        made = self._ask(key_id, "generate_data_key", KeyId=key_id, KeySpec="AES_256", EncryptionContext=binding)
        return DataKey(made["Plaintext"], made["KeyId"], made["CiphertextBlob"])

    def unwrap(self, key_id: str, wrapped: bytes, binding: Mapping[str, str]) -> bytes:
        """The data key. UnknownKeyError for a key that is not configured."""
        self._require_known(key_id)
        plain = self._ask(key_id, "decrypt", KeyId=key_id, CiphertextBlob=wrapped, EncryptionContext=binding)
        return plain["Plaintext"]  # type: ignore[no-any-return]

    def wrap_anew(self, key_id: str, wrapped: bytes, binding: Mapping[str, str]) -> tuple[str, bytes]:
        """The data key, wrapped by the current key, without its leaving KMS."""
        self._require_known(key_id)
        try:
            made = self._ask(
                key_id,
                "re_encrypt",
                CiphertextBlob=wrapped,
                SourceKeyId=key_id,
                SourceEncryptionContext=binding,
                DestinationKeyId=self._keys.key_id,
                DestinationEncryptionContext=binding,
            )
        except NotImplementedError:
            return self._wrap_here(self.unwrap(key_id, wrapped, binding), binding)
        return made["KeyId"], made["CiphertextBlob"]

    def is_current(self, key_id: str) -> bool:
        """Whether this names the current key."""
        return _same(key_id, self._keys.key_id)

    def hash_key(self, tenant: str) -> bytes:
        """The key of hashes, unwrapped once."""
        if self._hash_key is None:
            self._hash_key = unwrap_hash_key(self, self._keys.wrapped_hash_key or b"", tenant=tenant)
        return self._hash_key

    def _wrap_here(self, plain: bytes, binding: Mapping[str, str]) -> tuple[str, bytes]:
        """For emulators that have no ReEncrypt."""
        key_id = self._keys.key_id
        made = self._ask(key_id, "encrypt", KeyId=key_id, Plaintext=plain, EncryptionContext=binding)
        return made["KeyId"], made["CiphertextBlob"]

    def _require_known(self, key_id: str) -> None:
        if not any(_same(key_id, known) for known in (self._keys.key_id, *self._keys.older_key_ids)):
            raise UnknownKeyError(
                f"data were encrypted under KMS key {key_id[:100]!r}, which is not configured: add it to older_key_ids "
                "if it is yours, then retry; nothing is lost"
            )

    def _ask(self, key_id: str, action: str, **parameters: Any) -> dict[str, Any]:
        from botocore.exceptions import BotoCoreError, ClientError

        call: Callable[..., dict[str, Any]] = getattr(self._opened(), action)
        try:
            return call(**parameters)
        except ClientError as error:
            failure = _failure(key_id, str(error.response.get("Error", {}).get("Code")))
        except BotoCoreError as error:
            failure = _unavailable(key_id, type(error).__name__)
        raise failure

    def _opened(self) -> Any:
        with self._lock:
            if self._client is None:
                self._client = _client(self._keys)
            return self._client


def _client(keys: KmsKeys) -> Any:
    """In a session of its own: boto3's default one is not thread-safe while a client is made."""
    import boto3
    from botocore.config import Config

    return boto3.session.Session().client(
        "kms",
        region_name=keys.region,
        endpoint_url=keys.endpoint_url,
        aws_access_key_id=keys.access_key,
        aws_secret_access_key=keys.secret_key,
        aws_session_token=keys.session_token,
        config=Config(
            connect_timeout=_CONNECT_SECONDS,
            read_timeout=_READ_SECONDS,
            retries={"mode": "standard", "max_attempts": _TRIES},
        ),
    )


def _same(key_id: str, configured: str) -> bool:
    """An ARN is the same as its own last part."""
    return key_id == configured or key_id.rsplit("/", 1)[-1] == configured or configured.rsplit("/", 1)[-1] == key_id


def _failure(key_id: str, code: str) -> Exception:
    if code in _REVOKED:
        return KeyRevokedError(
            f"KMS key {key_id!r} {_REVOKED[code]} ({code}). Nothing is lost: enable the key, cancel its deletion or "
            "grant its use, then run again, which goes on where it stopped"
        )
    if code in _NOT_OURS:
        return WrongContextError(
            f"KMS does not recognise a data key as one of key {key_id!r} ({code}): it is another tenant's or "
            "purpose's, or was changed; it was not used"
        )
    if code in _UNKNOWN_ACTION:
        return NotImplementedError(code)
    return _unavailable(key_id, code)


def _unavailable(key_id: str, word: str) -> KeyUnavailableError:
    return KeyUnavailableError(f"KMS does not answer for key {key_id!r} ({word}); nothing is lost, a retry can help")
