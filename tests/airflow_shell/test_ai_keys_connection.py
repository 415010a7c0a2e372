"""Connections of type ``ai_keys``: what they say, what is refused, that they reach the runtime, and no key is shown."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk._shared.secrets_masker import redact

from airflow_provider_ai.adapters.crypto.hash_keys import wrap_hash_key
from airflow_provider_ai.adapters.crypto.kms_keys import KmsKeyWrapper
from airflow_provider_ai.core.key_settings import DataKeyLimits, KmsKeys, LocalKeys
from airflow_provider_ai.core.keyring import keyring_text, text_of
from airflow_provider_ai.exceptions import SpecError
from airflow_provider_ai.get_provider_info import get_provider_info
from airflow_provider_ai.hooks import ai_keys
from airflow_provider_ai.hooks.ai_endpoint import AIEndpointHook
from airflow_provider_ai.hooks.ai_jobs import AIJobsHook
from airflow_provider_ai.hooks.ai_keys import AIKeysHook, keys_of
from airflow_provider_ai.hooks.claim_check import load_output
from tests.support.keys import key, kms_keys, local_codec, local_keys, new_kms_key
from tests.support.ministack import ACCESS_KEY, REGION, SECRET_KEY, MiniStack

KEYRING = keyring_text(local_keys("a", "b"))
ARN = "arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"
Set = Callable[..., None]


def test_a_keyring_is_the_password(set_connection: Set) -> None:
    extra = {"tenant": "clinic-a", "data_key_seconds": "60", "data_key_messages": 10, "data_key_bytes": 1000}
    set_connection("ai_keys", conn_type="ai_keys", password=KEYRING, extra=extra)
    limits = DataKeyLimits(max_age_seconds=60, max_messages=10, max_bytes=1000)
    assert AIKeysHook().get_conn() == local_keys("a", "b", tenant="clinic-a", limits=limits)


def test_a_key_in_kms(set_connection: Set) -> None:
    """Credentials are the AWS connection's; region and endpoint may be the connection's own."""
    aws = {"region_name": "us-east-1"}
    set_connection("lake", conn_type="aws", login="KEY", password="s3cr3t-value", extra=aws)
    extra = {"kind": "kms", "key_id": ARN, "older_key_ids": f"{ARN[:-1]}c, {ARN[:-1]}d", "aws_conn_id": "lake"}
    secret = text_of(key("hash"))
    set_connection("ai_keys", conn_type="ai_keys", host="https://kms.example.org", password=secret, extra=extra)
    keys = AIKeysHook().get_conn()
    assert isinstance(keys, KmsKeys)
    assert (keys.key_id, keys.older_key_ids, keys.hash_key) == (ARN, (f"{ARN[:-1]}c", f"{ARN[:-1]}d"), key("hash"))
    assert (keys.region, keys.access_key, keys.secret_key) == ("us-east-1", "KEY", "s3cr3t-value")
    assert keys.endpoint_url == "https://kms.example.org"


@pytest.mark.parametrize(
    ("password", "extra", "message"),
    [
        (None, {}, "the keyring is missing"),
        ("canary", {}, "a keyring must be a JSON object"),
        (KEYRING, {"kind": "vault"}, "kind must be 'local' or 'kms', got 'vault'"),
        (KEYRING, {"key_id": ARN}, "extra 'key_id' is for kind 'kms'"),
        (KEYRING, {"tennant": "x"}, "unknown extra 'tennant'; did you mean 'tenant'"),
        (KEYRING, {"data_key_seconds": "soon"}, "extra 'data_key_seconds' must be a number"),
        (KEYRING, {"data_key_seconds": 0}, "max_age_seconds must be"),
        (None, {"kind": "kms"}, "key_id is missing"),
        (None, {"kind": "kms", "key_id": ARN}, "either a hash key or a wrapped hash key must be set"),
        ("canary", {"kind": "kms", "key_id": ARN}, "the hash key .password. must be"),
        (None, {"kind": "kms", "key_id": ARN, "older_key_ids": 5}, "extra 'older_key_ids' must be names"),
    ],
)
def test_connections_that_cannot_be_right(
    password: str | None, extra: dict[str, Any], message: str, set_connection: Set
) -> None:
    """Named, with the field, and without the secret."""
    set_connection("ai_keys", conn_type="ai_keys", password=password, extra=extra)
    with pytest.raises(SpecError, match=message) as caught:
        AIKeysHook().get_conn()
    assert str(caught.value).startswith("connection 'ai_keys' (type ai_keys): ")
    assert "canary" not in str(caught.value)
    told = AIKeysHook().test_connection()
    assert told == (False, str(caught.value))


def test_the_form_and_the_parser_know_the_same_fields() -> None:
    """A field in the form that nobody reads would be a lie, and so would one that cannot be filled in."""
    [form] = [kind for kind in get_provider_info()["connection-types"] if kind["connection-type"] == "ai_keys"]
    assert set(form["conn-fields"]) == set(ai_keys.EXTRAS)
    assert form["hook-class-name"] == f"{AIKeysHook.__module__}.{AIKeysHook.__qualname__}"
    assert form["connection-type"] == AIKeysHook.conn_type


def test_keys_are_masked(set_connection: Set) -> None:
    """Each by itself: a log may quote one of them."""
    set_connection("ai_keys", conn_type="ai_keys", password=KEYRING)
    keys = AIKeysHook().get_conn()
    for name in ("a", "b", "hash"):
        assert text_of(key(name)) not in str(redact(f"the key is {text_of(key(name))}"))
        assert text_of(key(name)) not in repr(keys)


def test_the_test_button_tries_the_keys(set_connection: Set) -> None:
    set_connection("ai_keys", conn_type="ai_keys", password=KEYRING)
    assert AIKeysHook().test_connection() == (True, "Encrypts and decrypts with key a, tenant default")


def test_the_test_button_says_what_kms_says(set_connection: Set, ministack_server: MiniStack) -> None:
    """With a wrapped hash key, no secret but AWS's is in any connection."""
    key_id = new_kms_key(ministack_server)
    wrapped = text_of(wrap_hash_key(KmsKeyWrapper(kms_keys(ministack_server, key_id)), key("hash"), tenant="default"))
    aws = {"region_name": REGION}
    set_connection("lake", conn_type="aws", login=ACCESS_KEY, password=SECRET_KEY, extra=aws)
    extra = {"kind": "kms", "key_id": key_id, "wrapped_hash_key": wrapped, "aws_conn_id": "lake"}
    set_connection("ai_keys", conn_type="ai_keys", host=ministack_server.url, extra=extra)
    assert AIKeysHook().test_connection() == (True, f"Encrypts and decrypts with key {key_id}, tenant default")
    ministack_server.client("kms").disable_key(KeyId=key_id)
    works, told = AIKeysHook().test_connection()
    assert not works
    assert "is disabled" in told


# --- who uses them


def test_an_endpoint_names_its_keys(set_connection: Set) -> None:
    set_connection("ai_keys", conn_type="ai_keys", password=KEYRING)
    extra = {"model": "m", "keys_conn_id": "ai_keys"}
    set_connection("risk_model", conn_type="ai_endpoint", host="http://127.0.0.1:1", extra=extra)
    set_connection("plain", conn_type="ai_endpoint", host="http://127.0.0.1:1", extra={"model": "m"})
    assert AIEndpointHook("risk_model").keys() == local_keys("a", "b")
    assert AIEndpointHook("plain").keys() is None
    assert AIEndpointHook("risk_model").get_conn() == AIEndpointHook("plain").get_conn()
    assert keys_of(None) is None


def test_jobs_name_their_keys(set_connection: Set) -> None:
    """All who submit, wait and dispatch in Airflow have them from the one connection."""
    set_connection("ai_keys", conn_type="ai_keys", password=KEYRING)
    set_connection("ai_store", conn_type="sqlite", host="/store.db")
    queues = {"request_queue": "requests", "result_queue": "results", "dead_letter_queue": "dead"}
    extra = {**queues, "claim_check_uri": "/lake/claims", "keys_conn_id": "ai_keys"}
    set_connection("ai_jobs", conn_type="ai_jobs", extra=extra)
    settings = AIJobsHook().get_conn()
    assert isinstance(settings.keys, LocalKeys)
    assert settings.keys == local_keys("a", "b")
    assert text_of(key("a")) not in repr(settings)


def test_an_output_is_loaded_with_keys(tmp_path: Path, set_connection: Set, caplog: pytest.LogCaptureFixture) -> None:
    """What a call has stored, a later task reads by naming the keys' connection; without it, it is told so."""
    from airflow_provider_ai.adapters.claim_check import store_output
    from airflow_provider_ai.exceptions import EncryptedDataError

    caplog.set_level(logging.DEBUG)
    set_connection("ai_keys", conn_type="ai_keys", password=KEYRING)
    reference = store_output({"risk": "canary"}, str(tmp_path), ["dag", "run"], codec=local_codec("a"))
    answer = {"output_ref": json.loads(json.dumps(reference))}
    assert load_output(answer, keys_conn_id="ai_keys") == {"risk": "canary"}
    assert b"canary" not in Path(reference["uri"]).read_bytes()
    with pytest.raises(EncryptedDataError, match="keys_conn_id in Airflow"):
        load_output(answer)
    assert "canary" not in caplog.text
