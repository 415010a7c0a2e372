"""Data keys wrapped by KMS: a real one, and what it says when it refuses."""

from __future__ import annotations

from dataclasses import replace

import boto3
import pytest
from botocore.stub import Stubber

from airflow_provider_ai.adapters.crypto.hash_keys import wrap_hash_key
from airflow_provider_ai.adapters.crypto.kms_keys import KmsKeyWrapper
from airflow_provider_ai.adapters.crypto.opening import try_keys
from airflow_provider_ai.adapters.crypto.wrapping import binding_of
from airflow_provider_ai.core.envelope import open_up, read_header
from airflow_provider_ai.core.key_settings import KmsKeys
from airflow_provider_ai.exceptions import (
    CiphertextError,
    KeyRevokedError,
    KeyUnavailableError,
    UnknownKeyError,
    WrongContextError,
)
from tests.support.keys import codec_on, key, kms_keys, new_kms_key
from tests.support.ministack import MiniStack

PLACE = {"what": "checkpoint", "partition": "p", "name": "log"}
BINDING = binding_of("default", "checkpoint")
ARN = "arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"
OTHER = "arn:aws:kms:eu-central-1:111122223333:key/ffffffff-12ab-34cd-56ef-1234567890ab"


@pytest.fixture
def key_id(ministack_server: MiniStack) -> str:
    return new_kms_key(ministack_server)


@pytest.fixture
def wrapper(ministack_server: MiniStack, key_id: str) -> KmsKeyWrapper:
    return KmsKeyWrapper(kms_keys(ministack_server, key_id))


def test_data_are_encrypted_under_a_key_of_kms(wrapper: KmsKeyWrapper, key_id: str) -> None:
    """And say which; another process reads them."""
    stored = codec_on(wrapper).encode(b"data", context=PLACE)
    assert read_header(open_up(stored).start).key_id == key_id
    assert codec_on(wrapper).decode(stored, context=PLACE) == b"data"


def test_kms_itself_binds_data_keys_to_tenant_and_purpose(wrapper: KmsKeyWrapper) -> None:
    """By the encryption context, whatever this package does."""
    made = wrapper.make(BINDING)
    assert wrapper.unwrap(made.key_id, made.wrapped, BINDING) == made.plain
    for tenant, purpose in (("other", "checkpoint"), ("default", "job-result")):
        with pytest.raises(WrongContextError, match="another tenant's or purpose's"):
            wrapper.unwrap(made.key_id, made.wrapped, binding_of(tenant, purpose))


def test_the_key_may_be_named_by_its_id(ministack_server: MiniStack, key_id: str) -> None:
    short = KmsKeyWrapper(kms_keys(ministack_server, key_id.rsplit("/", 1)[-1]))
    stored = codec_on(short).encode(b"data", context=PLACE)
    assert codec_on(short).decode(stored, context=PLACE) == b"data"
    assert short.is_current(key_id)


@pytest.mark.parametrize("how", ["disabled", "pending deletion"])
def test_a_revoked_key_is_a_clear_error_and_loses_nothing(ministack_server: MiniStack, key_id: str, how: str) -> None:
    """Both to encrypt and to decrypt; once it is back, everything can be read."""
    kms, settings = ministack_server.client("kms"), kms_keys(ministack_server, key_id)
    stored = codec_on(KmsKeyWrapper(settings)).encode(b"data", context=PLACE)
    if how == "disabled":
        kms.disable_key(KeyId=key_id)
    else:
        kms.schedule_key_deletion(KeyId=key_id, PendingWindowInDays=7)
    codec = codec_on(KmsKeyWrapper(settings))
    for work in (
        lambda: codec.decode(stored, context=PLACE),
        lambda: codec.encode(b"more", context=PLACE),
        lambda: codec.prepare("checkpoint"),
    ):
        with pytest.raises(KeyRevokedError, match=f"{how}.*Nothing is lost: enable the key, cancel its deletion"):
            work()
    if how != "disabled":
        kms.cancel_key_deletion(KeyId=key_id)
    kms.enable_key(KeyId=key_id)
    assert codec.decode(stored, context=PLACE) == b"data"
    assert codec.encode(b"more", context=PLACE)


def test_only_configured_keys_are_asked(ministack_server: MiniStack, wrapper: KmsKeyWrapper) -> None:
    """Whoever can write messages cannot bring a key of their own; an older key must be named."""
    foreign = new_kms_key(ministack_server)
    stored = codec_on(KmsKeyWrapper(kms_keys(ministack_server, foreign))).encode(b"data", context=PLACE)
    with pytest.raises(UnknownKeyError, match="add it to older_key_ids"):
        codec_on(wrapper).decode(stored, context=PLACE)
    with pytest.raises(UnknownKeyError):
        wrapper.wrap_anew(foreign, b"", BINDING)


def test_an_older_key_still_decrypts_and_is_wrapped_anew(ministack_server: MiniStack, key_id: str) -> None:
    stored = codec_on(KmsKeyWrapper(kms_keys(ministack_server, key_id))).encode(b"data", context=PLACE)
    newer = new_kms_key(ministack_server)
    wrapper = KmsKeyWrapper(kms_keys(ministack_server, newer, older_key_ids=(key_id,)))
    assert codec_on(wrapper).decode(stored, context=PLACE) == b"data"
    wrapped = read_header(open_up(stored).start).wrapped_key
    moved, again = wrapper.wrap_anew(key_id, wrapped, BINDING)
    assert moved == newer
    assert wrapper.unwrap(newer, again, BINDING) == wrapper.unwrap(key_id, wrapped, BINDING)


def test_wrapping_anew_does_not_take_the_data_key_out_of_kms() -> None:
    """ReEncrypt, with both contexts. MiniStack has none, so this one is asked of botocore's own model of it."""
    settings = KmsKeys(key_id=OTHER, older_key_ids=(ARN,), hash_key=key("hash"))
    client = boto3.client("kms", region_name="eu-central-1", aws_access_key_id="a", aws_secret_access_key="b")
    with Stubber(client) as stub:
        stub.add_response(
            "re_encrypt",
            {"CiphertextBlob": b"new", "KeyId": OTHER, "SourceKeyId": ARN},
            {
                "CiphertextBlob": b"old",
                "SourceKeyId": ARN,
                "SourceEncryptionContext": BINDING,
                "DestinationKeyId": OTHER,
                "DestinationEncryptionContext": BINDING,
            },
        )
        assert KmsKeyWrapper(settings, client).wrap_anew(ARN, b"old", BINDING) == (OTHER, b"new")
        stub.assert_no_pending_responses()


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("AccessDeniedException", KeyRevokedError),          # the grant was taken away
        ("NotFoundException", KeyRevokedError),              # deleted
        ("ThrottlingException", KeyUnavailableError),
        ("KMSInternalException", KeyUnavailableError),
        ("ExpiredTokenException", KeyUnavailableError),
        ("IncorrectKeyException", WrongContextError),
        ("InvalidCiphertextException", WrongContextError),
    ],
)  # fmt: skip
def test_what_kms_refuses_is_told_apart(code: str, error: type[Exception]) -> None:
    """By its code; its text, which might say more, is not quoted."""
    client = boto3.client("kms", region_name="eu-central-1", aws_access_key_id="a", aws_secret_access_key="b")
    with Stubber(client) as stub:
        stub.add_client_error("decrypt", code, "canary-7f3a")
        with pytest.raises(error, match=code) as caught:
            KmsKeyWrapper(KmsKeys(key_id=ARN, hash_key=key("hash")), client).unwrap(ARN, b"x", BINDING)
    assert "canary" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_kms_that_is_not_there_is_unavailable() -> None:
    settings = KmsKeys(
        key_id=ARN, hash_key=key("hash"), region="x", endpoint_url="http://127.0.0.1:9", access_key="a", secret_key="b"
    )
    with pytest.raises(KeyUnavailableError, match="does not answer"):
        KmsKeyWrapper(settings).make(BINDING)


def test_a_wrapped_hash_key_is_unwrapped_by_kms(
    ministack_server: MiniStack, wrapper: KmsKeyWrapper, key_id: str
) -> None:
    """By the current key or an older one; no plain secret is configured then, and a wrong one is noticed."""
    wrapped = wrap_hash_key(wrapper, key("hash"), tenant="default")
    newer = new_kms_key(ministack_server)
    given = kms_keys(ministack_server, newer, older_key_ids=(key_id,))
    settings = replace(given, hash_key=None, wrapped_hash_key=wrapped)
    assert KmsKeyWrapper(settings).hash_key("default") == key("hash")
    assert newer in try_keys(settings)
    with pytest.raises(CiphertextError):
        KmsKeyWrapper(settings).hash_key("another tenant")
    with pytest.raises(CiphertextError):
        KmsKeyWrapper(replace(settings, wrapped_hash_key=wrapped[:-1] + b"?")).hash_key("default")
    empty = replace(settings, wrapped_hash_key=wrap_hash_key(wrapper, b"no key", tenant="default"))
    with pytest.raises(CiphertextError, match="holds no key"):
        KmsKeyWrapper(empty).hash_key("default")
