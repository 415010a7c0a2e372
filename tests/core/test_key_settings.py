"""Settings of keys: what cannot be right is refused, and no secret is shown."""

from __future__ import annotations

import json
from typing import Any

import pytest

from airflow_provider_ai.core.key_settings import DataKeyLimits, KmsKeys, LocalKeys
from airflow_provider_ai.core.keyring import key_from_text, keyring_text, parse_keyring, text_of, with_new_key
from airflow_provider_ai.exceptions import SpecError
from tests.support.keys import key, local_keys

ARN = "arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"


def local(**changed: Any) -> LocalKeys:
    given: dict[str, Any] = {"current": "a", "keys": (("a", key("a")), ("b", key("b"))), "hash_key": key("h")}
    return LocalKeys(**{**given, **changed})


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"current": "c"}, r"the current key must be one of \['a', 'b'\], got 'c'"),
        ({"keys": (("a", b"short"),)}, "every key must have 32 bytes"),
        ({"hash_key": b"short"}, "every key must have 32 bytes"),
        ({"keys": (("a", key("a")), ("a", key("b")))}, "key ids must be distinct"),
        ({"keys": (("a", key("a")), ("b", key("a")))}, "no two keys may be the same"),
        ({"hash_key": key("a")}, "no two keys may be the same"),
        ({"current": "a b", "keys": (("a b", key("a")),)}, "a key id must be letters"),
        ({"tenant": ""}, "tenant must be 1 to 128"),
        ({"tenant": "a\nb"}, "tenant must be 1 to 128"),
    ],
)
def test_keyrings_that_cannot_be_right(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message) as caught:
        local(**changed)
    assert "short" not in str(caught.value)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"key_id": "alias/phi"}, "not an alias"),
        ({"key_id": ""}, "ARN or the id of a KMS key"),
        ({"older_key_ids": ("alias/old",)}, "not an alias"),
        ({"hash_key": None}, "either a hash key or a wrapped hash key must be set"),
        ({"wrapped_hash_key": b"w"}, "either a hash key or a wrapped hash key must be set"),
        ({"hash_key": b"short"}, "the hash key must have 32 bytes"),
        ({"tenant": "-"}, "tenant must be"),
    ],
)
def test_kms_settings_that_cannot_be_right(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        KmsKeys(**{"key_id": ARN, "hash_key": key("h"), **changed})


@pytest.mark.parametrize(
    "limits",
    [
        {"max_messages": 1},
        {"max_messages": 2**32},
        {"max_bytes": 0},
        {"max_bytes": 2**38 + 1},
        {"max_age_seconds": 0},
        {"max_age_seconds": 86_401},
        {"max_age_seconds": float("nan")},
    ],
)
def test_limits_beyond_what_the_algorithm_bears(limits: dict[str, Any]) -> None:
    with pytest.raises(SpecError, match=f"{next(iter(limits))} must be"):
        DataKeyLimits(**limits)


def test_no_secret_is_in_a_repr() -> None:
    """Nor in the text of any error above."""
    kms = KmsKeys(key_id=ARN, hash_key=key("h"), access_key="AKIA", secret_key="s3cr3t", session_token="t0k3n")
    shown = repr(local()) + repr(kms)
    for secret in (key("a"), key("b"), key("h")):
        assert repr(secret)[2:-1] not in shown
        assert text_of(secret) not in shown
    assert not any(word in shown for word in ("AKIA", "s3cr3t", "t0k3n"))


def test_settings_can_be_compared_and_hashed() -> None:
    """One codec serves all who mean the same."""
    assert hash(local()) == hash(local())
    assert local() != local(tenant="other")


# --- keyrings as text


def test_a_keyring_survives_its_text() -> None:
    keys = local_keys("a", "b", tenant="t")
    assert parse_keyring(keyring_text(keys), tenant="t") == keys


def test_a_new_key_becomes_the_current_one() -> None:
    """The others stay, and so does the hash key."""
    keys = with_new_key(local(), "c", key("c"))
    assert keys.current == "c"
    assert [name for name, _ in keys.keys] == ["c", "a", "b"]
    assert keys.hash_key == key("h")
    with pytest.raises(SpecError, match="must not be in the keyring yet"):
        with_new_key(keys, "a", key("d"))


@pytest.mark.parametrize("padding", ["", "="])
def test_keys_are_read_with_and_without_padding(padding: str) -> None:
    assert key_from_text(f" {text_of(key('a'))}{padding}\n", "it") == key("a")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "canary",
        "[]",
        "{}",
        json.dumps({"current": "a", "keys": [], "hash_key": "x"}),
        json.dumps({"current": "a", "keys": {"a": "canary"}, "hash_key": text_of(key("h"))}),
        json.dumps({"current": "a", "keys": {"a": "ca/ry+ca/ry+"}, "hash_key": text_of(key("h"))}),
        json.dumps({"current": "a", "keys": {"a": text_of(key("a"))}, "hash_key": "canäry"}),
        json.dumps({"current": "a", "keys": {}, "hash_key": text_of(key("h")), "canary": 1}),
    ],
)
def test_a_text_that_is_no_keyring_is_not_quoted(text: str) -> None:
    with pytest.raises(SpecError, match=r"keyring|base64url") as caught:
        parse_keyring(text)
    assert "can" not in str(caught.value)
