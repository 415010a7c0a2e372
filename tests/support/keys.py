"""Keys for tests, and codecs on them."""

from __future__ import annotations

import hashlib
from typing import Any

from airflow_provider_ai.adapters.crypto.data_keys import DataKeys
from airflow_provider_ai.adapters.crypto.envelope_codec import EnvelopeCodec
from airflow_provider_ai.adapters.crypto.local_keys import LocalKeyWrapper
from airflow_provider_ai.adapters.crypto.wrapping import KeyWrapper
from airflow_provider_ai.core.key_settings import DataKeyLimits, KmsKeys, LocalKeys
from tests.support.ministack import ACCESS_KEY, REGION, SECRET_KEY, MiniStack


def key(name: str) -> bytes:
    """The same key for the same name."""
    return hashlib.sha256(name.encode()).digest()


def local_keys(*names: str, **options: Any) -> LocalKeys:
    """A keyring; the first key is the current one."""
    names = names or ("first",)
    keys = tuple((name, key(name)) for name in names)
    return LocalKeys(current=names[0], keys=keys, hash_key=key("hash"), **options)


def codec_on(wrapper: KeyWrapper, *, tenant: str = "default", limits: DataKeyLimits | None = None) -> EnvelopeCodec:
    """A codec with data keys of its own."""
    return EnvelopeCodec(DataKeys(wrapper, tenant=tenant, limits=limits or DataKeyLimits()), wrapper, tenant=tenant)


def local_codec(*names: str, tenant: str = "default") -> EnvelopeCodec:
    """A codec on a keyring."""
    return codec_on(LocalKeyWrapper(local_keys(*names)), tenant=tenant)


def new_kms_key(server: MiniStack) -> str:
    """The ARN of a new key."""
    return str(server.client("kms").create_key()["KeyMetadata"]["Arn"])


def kms_keys(server: MiniStack, key_id: str, **options: Any) -> KmsKeys:
    """Settings that reach a key there."""
    return KmsKeys(
        key_id=key_id,
        hash_key=key("hash"),
        region=REGION,
        endpoint_url=server.url,
        access_key=ACCESS_KEY,
        secret_key=SECRET_KEY,
        **options,
    )
