"""Tokens: the same for the same, different for the different, nothing without the key."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from typing import Any
from uuid import UUID

import pytest

from airflow_provider_ai.core.ports import UnrenderableRecordError
from airflow_provider_ai.core.redaction.tokens import key_id, parse_key, token
from airflow_provider_ai.exceptions import SpecError

KEY, OTHER = bytes(range(32)), bytes(range(1, 33))
KEYED = {"key": KEY, "domain": "mrn"}


def test_the_stated_format() -> None:
    """Whoever has the key can make a token with the standard library alone, as documented."""
    mac = hmac.new(KEY, b"str\x00mrn\x0000123", hashlib.sha256).digest()[:16]
    assert token("00123", **KEYED) == "tok1_" + base64.b32encode(mac).decode().strip("=").lower()
    assert re.fullmatch(r"tok1_[a-z2-7]{26}", token("00123", **KEYED))


def test_what_makes_another_token() -> None:
    """The value, its type, the domain and the key; and none of them says another at the seams."""
    made = [
        token("5", **KEYED),
        token(5, **KEYED),
        token("5", key=KEY, domain="account"),
        token("5", key=OTHER, domain="mrn"),
        token("n\x005", key=KEY, domain="mr"),
        token(UUID(int=5), **KEYED),
    ]
    assert len(set(made)) == len(made)
    assert token("5", **KEYED) == made[0]


@pytest.mark.parametrize("value", ["", 5.0, True, None, ["5"], b"5"])
def test_what_gets_none(value: Any) -> None:
    """A float has no one way to be written; an empty text names nobody and would join everybody."""
    with pytest.raises(UnrenderableRecordError, match=r"^redaction_type$"):
        token(value, **KEYED)


def test_broken_text() -> None:
    """A lone surrogate has no bytes."""
    with pytest.raises(UnrenderableRecordError, match=r"^not_encodable$"):
        token("\ud800", **KEYED)


def test_keys() -> None:
    """Base64 of 32 bytes or more; a key is never shown, and its name does not tell it."""
    assert parse_key(base64.b64encode(KEY).decode() + "\n") == KEY
    assert key_id(KEY) != key_id(OTHER)
    assert KEY.hex()[:16] not in key_id(KEY)
    for text in ("c2hvcnQ=", "not base64!", ""):
        with pytest.raises(SpecError, match="redaction key must be") as caught:
            parse_key(text)
        assert not text or text not in str(caught.value)
