"""Tokens in place of identifiers: the same for the same value, and nothing without the key.

Format ``tok1_`` and 26 letters and digits (RFC 4648 base32, lower case, no padding): the first 16 bytes of HMAC-SHA256
under the key over ``type, 0x00, domain, 0x00, value`` in UTF-8. The domain is the column unless the rule names another,
so equal values of two columns do not meet unless they are meant to. ``5`` and ``"5"`` are different values.

A hash without a key would not do: there are only so many record numbers, and all of them can be tried.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from typing import Any
from uuid import UUID

from airflow_provider_ai.core.config import require
from airflow_provider_ai.core.ports import UnrenderableRecordError
from airflow_provider_ai.core.requests import reasons
from airflow_provider_ai.exceptions import SpecError

PREFIX = "tok1_"
LEAST_KEY_BYTES = 32
_TOKEN_BYTES = 16
_KINDS = {str: "str", int: "int", UUID: "uuid"}


def token(value: Any, *, key: bytes, domain: str) -> str:
    """The token of a text, an integer or a UUID; UnrenderableRecordError for anything else."""
    kind = _KINDS.get(type(value))
    if kind is None or value == "":
        raise UnrenderableRecordError(reasons.REDACTION_TYPE)
    try:
        text = f"{kind}\0{domain}\0{value}".encode()
    except UnicodeEncodeError:
        raise UnrenderableRecordError(reasons.NOT_ENCODABLE) from None
    mac = hmac.digest(key, text, "sha256")[:_TOKEN_BYTES]
    return PREFIX + base64.b32encode(mac).decode().rstrip("=").lower()


def key_id(key: bytes) -> str:
    """Names a key without telling it; part of a request's identity, for another key gives other tokens."""
    return hmac.digest(key, b"airflow-provider-ai redaction key id", "sha256")[:8].hex()


def parse_key(text: str) -> bytes:
    """A key from its Base64 text.

    :raises SpecError: when it is none, or shorter than 32 bytes; the text is not shown
    """
    try:
        key = base64.b64decode(text.strip(), validate=True)
    except (binascii.Error, ValueError):
        raise SpecError("the redaction key must be Base64 of at least 32 random bytes") from None
    require(len(key) >= LEAST_KEY_BYTES, "the redaction key must be of at least 32 bytes", f"{len(key)} bytes")
    return key
