"""A hash key that lies in a setting, encrypted: one message of our own format, so that a wrong key is noticed.

A hash key that silently were another one would give every record another name.
"""

from __future__ import annotations

import os

from airflow_provider_ai.adapters.crypto.wrapping import KeyWrapper, binding_of
from airflow_provider_ai.core.envelope import (
    NONCE_BYTES,
    Header,
    MessageKey,
    additional_data,
    check_commitment,
    open_up,
    read_header,
)
from airflow_provider_ai.core.key_settings import is_key
from airflow_provider_ai.core.purposes import HASH_KEY
from airflow_provider_ai.exceptions import WrongContextError


def wrap_hash_key(wrapper: KeyWrapper, hash_key: bytes, *, tenant: str) -> bytes:
    """The hash key, encrypted under a data key of its own."""
    made = wrapper.make(binding_of(tenant, HASH_KEY))
    key, bound = MessageKey(made.plain), _bound(tenant)
    header = Header(purpose=HASH_KEY, key_id=made.key_id, wrapped_key=made.wrapped, commitment=key.commitment)
    return key.seal(header.to_bytes() + key.place(bound), os.urandom(NONCE_BYTES), hash_key, bound)


def unwrap_hash_key(wrapper: KeyWrapper, wrapped: bytes, *, tenant: str) -> bytes:
    """The hash key.

    :raises EncryptionError: it is none, another tenant's, or its key cannot be used
    """
    message = open_up(wrapped)
    header = read_header(message.start)
    key = MessageKey(wrapper.unwrap(header.key_id, header.wrapped_key, binding_of(tenant, HASH_KEY)))
    check_commitment(header, key)
    hash_key = key.open(message, _bound(tenant))
    if not is_key(hash_key):
        raise WrongContextError("the wrapped hash key holds no key: `airflow-ai keys generate SPEC.toml` makes one")
    return hash_key


def _bound(tenant: str) -> bytes:
    return additional_data(tenant, {"what": HASH_KEY})
