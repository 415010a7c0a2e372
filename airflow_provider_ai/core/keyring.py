"""A keyring as text: one JSON object, so that one secret (a variable, a file, a connection's password) holds all of it.

::

    {"current": "2026-11", "keys": {"2026-11": "<43 characters>", "2026-05": "…"}, "hash_key": "…"}

Keys are 32 bytes in base64url (RFC 4648 §5), with or without padding. Messages never quote the text.
"""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import replace
from typing import Any

from airflow_provider_ai.core.config import require
from airflow_provider_ai.core.key_settings import DataKeyLimits, LocalKeys, is_key
from airflow_provider_ai.exceptions import SpecError

_MEMBERS = {"current", "keys", "hash_key"}


def key_from_text(text: object, what: str) -> bytes:
    """The key that a text stands for.

    :param what: its name, for the error
    """
    key = bytes_from_text(text, what)
    if not is_key(key):
        raise SpecError(f"{what} must be 32 bytes in base64url: `airflow-ai keys generate` makes one")
    return key


def bytes_from_text(text: object, what: str) -> bytes:
    """The bytes that base64url stands for; SpecError when it is none."""
    try:
        given = str(text).strip().rstrip("=").encode("ascii")
        return base64.b64decode(given + b"=" * (-len(given) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, UnicodeEncodeError, ValueError):
        raise SpecError(f"{what} must be base64url text") from None


def text_of(key: bytes) -> str:
    """Bytes as base64url without padding."""
    return base64.urlsafe_b64encode(key).rstrip(b"=").decode()


def parse_keyring(text: str, *, tenant: str = "default", limits: DataKeyLimits | None = None) -> LocalKeys:
    """The keys in a keyring's text.

    :raises SpecError: when it is none
    """
    body = _document(text)
    keys = tuple((str(name), key_from_text(key, "each of the keyring's keys")) for name, key in body["keys"].items())
    return LocalKeys(
        current=str(body["current"]),
        keys=keys,
        hash_key=key_from_text(body["hash_key"], "the keyring's hash_key"),
        tenant=tenant,
        limits=limits or DataKeyLimits(),
    )


def keyring_text(keys: LocalKeys) -> str:
    """The inverse of :func:`parse_keyring`."""
    named = {name: text_of(key) for name, key in keys.keys}
    return json.dumps({"current": keys.current, "keys": named, "hash_key": text_of(keys.hash_key)})


def with_new_key(keys: LocalKeys, key_id: str, key: bytes) -> LocalKeys:
    """The keyring with another current key; the others stay to unwrap."""
    require(all(name != key_id for name, _ in keys.keys), "the new key id must not be in the keyring yet", key_id)
    return replace(keys, current=key_id, keys=((key_id, key), *keys.keys))


def _document(text: str) -> dict[str, Any]:
    try:
        body = json.loads(text)
    except ValueError:
        body = None
    whole = isinstance(body, dict) and body.keys() == _MEMBERS and isinstance(body["keys"], dict)
    if not whole:
        raise SpecError(
            'a keyring must be a JSON object {"current": …, "keys": {…}, "hash_key": …}: `airflow-ai keys generate` '
            "makes one"
        )
    return body  # type: ignore[no-any-return]
