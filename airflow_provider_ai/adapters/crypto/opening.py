"""From settings to a codec. One for each settings in a process, so that data keys are shared by all who mean the same.

Importing this loads neither ``cryptography`` nor boto3: most processes have no keys.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from airflow_provider_ai.adapters.codec import IdentityCodec

if TYPE_CHECKING:
    from airflow_provider_ai.adapters.crypto.wrapping import KeyWrapper
    from airflow_provider_ai.core.key_settings import KeySettings
    from airflow_provider_ai.core.ports import Codec

_SETTINGS_AT_A_TIME = 16


def open_codec(keys: KeySettings | None) -> Codec:
    """The codec that encrypts with these keys; the identity codec when there are none. Connects on first use."""
    return IdentityCodec() if keys is None else _opened(keys)


def open_wrapper(keys: KeySettings) -> KeyWrapper:
    """What wraps data keys with these keys. Connects on first use."""
    from airflow_provider_ai.core.key_settings import LocalKeys

    if isinstance(keys, LocalKeys):
        from airflow_provider_ai.adapters.crypto.local_keys import LocalKeyWrapper

        return LocalKeyWrapper(keys)
    from airflow_provider_ai.adapters.crypto.kms_keys import KmsKeyWrapper

    return KmsKeyWrapper(keys)


@lru_cache(_SETTINGS_AT_A_TIME)
def _opened(keys: KeySettings) -> Codec:
    from airflow_provider_ai.adapters.crypto.data_keys import DataKeys
    from airflow_provider_ai.adapters.crypto.envelope_codec import EnvelopeCodec

    wrapper = open_wrapper(keys)
    data_keys = DataKeys(wrapper, tenant=keys.tenant, limits=keys.limits)
    return EnvelopeCodec(data_keys, wrapper, tenant=keys.tenant)


def try_keys(keys: KeySettings) -> str:
    """Encrypt and decrypt something now; in words, with which key.

    :raises EncryptionError: when that cannot be done
    """
    from airflow_provider_ai.adapters.crypto.data_keys import DataKeys
    from airflow_provider_ai.adapters.crypto.envelope_codec import EnvelopeCodec
    from airflow_provider_ai.core.envelope import open_up, read_header
    from airflow_provider_ai.core.purposes import TEST

    wrapper, context = open_wrapper(keys), {"what": TEST}
    first, second = (
        EnvelopeCodec(DataKeys(wrapper, tenant=keys.tenant, limits=keys.limits), wrapper, tenant=keys.tenant)
        for _ in range(2)
    )
    stored = first.encode(b"test", context=context)
    second.decode(stored, context=context)
    first.digest(b"test")
    return f"Encrypts and decrypts with key {read_header(open_up(stored).start).key_id}, tenant {keys.tenant}"
