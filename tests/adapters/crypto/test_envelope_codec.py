"""The codec: what it stores is read in its own place only, and every change of it has a name."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import random
import threading
from collections.abc import Mapping

import pytest

from airflow_provider_ai.adapters.codec import IdentityCodec
from airflow_provider_ai.adapters.crypto import envelope_codec
from airflow_provider_ai.adapters.crypto.envelope_codec import EnvelopeCodec
from airflow_provider_ai.adapters.crypto.local_keys import LocalKeyWrapper
from airflow_provider_ai.adapters.crypto.opening import open_codec, try_keys
from airflow_provider_ai.core.envelope import open_up, read_header
from airflow_provider_ai.core.identity import record_key
from airflow_provider_ai.exceptions import (
    CiphertextError,
    EncryptedDataError,
    EncryptionError,
    KeyRevokedError,
    NotEncryptedError,
    UnknownKeyError,
    WrongContextError,
)
from tests.support.keys import codec_on, key, local_codec, local_keys

PLACE = {"what": "job-payload", "job": "j-1", "sha256": "0" * 64}
CANARY = b"canary-7f3a Jane Roe 1956-03-01"


@pytest.fixture
def codec() -> EnvelopeCodec:
    return local_codec()


@pytest.mark.parametrize("size", [0, 1, 4096, 128 * 1024 - 1, 128 * 1024, (1 << 20) + 3, 18 << 20])
def test_what_is_encoded_is_decoded(codec: EnvelopeCodec, size: int, seed: int) -> None:
    """Of every size, by whichever way it goes, and by another process's codec."""
    data = random.Random(seed).randbytes(size)
    stored = codec.encode(data, context=PLACE)
    assert local_codec().decode(stored, context=PLACE) == data
    assert type(stored) is bytes
    assert codec.decode(codec.encode(data, context=PLACE), context=PLACE) == data


def test_with_an_older_cryptography_large_ones_go_the_other_way(
    codec: EnvelopeCodec, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    data = random.Random(seed).randbytes(200_000)
    monkeypatch.setattr(envelope_codec, "WRITES_INTO", False)
    assert local_codec().decode(codec.encode(data, context=PLACE), context=PLACE) == data


def test_preparing_fetches_all_that_keeping_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The hash key, too, which may lie in KMS."""
    wrapper = LocalKeyWrapper(local_keys())

    def revoked(_: str) -> bytes:
        raise KeyRevokedError("disabled")

    monkeypatch.setattr(wrapper, "hash_key", revoked)
    with pytest.raises(KeyRevokedError):
        codec_on(wrapper).prepare("job-result")


def test_nothing_is_in_the_clear(codec: EnvelopeCodec) -> None:
    stored = codec.encode(CANARY, context=PLACE)
    assert not any(CANARY[at : at + 4] in stored for at in range(len(CANARY) - 3))
    assert stored != codec.encode(CANARY, context=PLACE)


@pytest.mark.parametrize(
    "place",
    [
        PLACE | {"job": "j-2"},                               # another job
        PLACE | {"sha256": "1" * 64},                         # another record
        PLACE | {"what": "job-result"},                       # another field, whose data key is another one, too
        {"what": "checkpoint", "partition": "p", "name": "log"},
        {"what": "job-payload", "job": "j-1"},                # a place that says less
        PLACE | {"more": ""},
    ],
)  # fmt: skip
def test_swapped_data_are_refused(codec: EnvelopeCodec, place: Mapping[str, str]) -> None:
    """In both directions, however alike the places are."""
    here, there = codec.encode(CANARY, context=PLACE), codec.encode(CANARY + b"2", context=place)
    for stored, context in ((here, place), (there, PLACE)):
        with pytest.raises(WrongContextError) as caught:
            codec.decode(stored, context=context)
        assert "canary" not in str(caught.value)


def test_one_tenant_does_not_read_anothers() -> None:
    """With the same keys."""
    stored = local_codec(tenant="clinic-a").encode(CANARY, context=PLACE)
    with pytest.raises(WrongContextError):
        local_codec(tenant="clinic-b").decode(stored, context=PLACE)


def test_every_flipped_bit_has_a_name(codec: EnvelopeCodec) -> None:
    """Each single one of a whole message ends as an error of ours that quotes nothing, and never as data."""
    stored = codec.encode(CANARY, context=PLACE)
    for position in range(len(stored)):
        for bit in range(8):
            changed = bytearray(stored)
            changed[position] ^= 1 << bit
            with pytest.raises((CiphertextError, UnknownKeyError)) as caught:
                codec.decode(bytes(changed), context=PLACE)
            assert "canary" not in str(caught.value)


def test_every_truncation_has_a_name(codec: EnvelopeCodec) -> None:
    stored = codec.encode(CANARY, context=PLACE)
    for length in range(len(stored)):
        with pytest.raises(CiphertextError):
            codec.decode(stored[:length], context=PLACE)


def test_the_head_of_one_message_does_not_fit_the_body_of_another() -> None:
    """Not even between two data keys of the same purpose."""
    one, two = (local_codec().encode(CANARY, context=PLACE) for _ in range(2))
    cut = len(open_up(one).start)
    with pytest.raises(CiphertextError):
        local_codec().decode(one[:cut] + two[cut:], context=PLACE)


def test_another_key_is_named(codec: EnvelopeCodec) -> None:
    """So that it can be configured; a key that only has the same name is not taken."""
    stored = codec.encode(CANARY, context=PLACE)
    with pytest.raises(UnknownKeyError, match="add it there as an older key"):
        local_codec("second").decode(stored, context=PLACE)
    assert local_codec("second", "first").decode(stored, context=PLACE) == CANARY
    namesake = open_codec(local_keys())
    settings = local_keys("second")
    impostor = open_codec(type(settings)(current="first", keys=(("first", key("x")),), hash_key=key("hash")))
    assert namesake.decode(stored, context=PLACE) == CANARY
    with pytest.raises(WrongContextError, match="not the one that wrapped it"):
        impostor.decode(stored, context=PLACE)


def test_clear_and_encrypted_are_not_mixed_up(codec: EnvelopeCodec) -> None:
    """With encryption on, clear data are refused, so nobody can put them in place; and the other way round."""
    with pytest.raises(NotEncryptedError):
        codec.decode(CANARY, context=PLACE)
    with pytest.raises(EncryptedDataError, match="no keys are configured"):
        IdentityCodec().decode(codec.encode(CANARY, context=PLACE), context=PLACE)


def test_purposes_have_data_keys_of_their_own(codec: EnvelopeCodec) -> None:
    """So that a role may be granted some of them; messages of one purpose share one."""
    payloads = [codec.encode(CANARY, context=PLACE | {"job": str(n)}) for n in range(3)]
    result = codec.encode(CANARY, context={"what": "job-result", "job": "j"})
    wrapped = {read_header(data).wrapped_key for data in payloads}
    assert len(wrapped) == 1
    assert read_header(result).wrapped_key not in wrapped
    assert read_header(result).purpose == "job-result"


# --- nonces


def nonces_of(codec: EnvelopeCodec, count: int) -> list[tuple[bytes, bytes]]:
    """Commitment (which data key) and nonce of messages."""
    messages = [open_up(codec.encode(b"", context=PLACE)) for _ in range(count)]
    return [(read_header(message.start).commitment, message.nonce) for message in messages]


def test_no_nonce_is_used_twice_by_threads(codec: EnvelopeCodec) -> None:
    """Nor is its counter, whatever the random bits are."""
    found: list[tuple[bytes, bytes]] = []

    def work() -> None:
        found.extend(nonces_of(codec, 500))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({(commitment, nonce[8:]) for commitment, nonce in found}) == len(found) == 4000
    assert len({nonce[:8] for _, nonce in found}) == 4000


def test_a_forked_child_has_data_keys_of_its_own(codec: EnvelopeCodec) -> None:
    """So the counters of parent and child may be the same. The child does read what the parent wrote."""
    before = nonces_of(codec, 3)
    stored = codec.encode(CANARY, context=PLACE)
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)

    def child() -> None:
        sender.send_bytes(pickle.dumps((codec.decode(stored, context=PLACE), nonces_of(codec, 3))))

    process = context.Process(target=child)
    process.start()
    read, of_child = pickle.loads(receiver.recv_bytes())
    process.join(30)
    after = nonces_of(codec, 3)
    assert read == CANARY
    assert {key for key, _ in of_child}.isdisjoint(key for key, _ in before + after)
    assert {key for key, _ in before} == {key for key, _ in after}


def test_a_fork_that_calls_no_hooks_is_noticed(codec: EnvelopeCodec, monkeypatch: pytest.MonkeyPatch) -> None:
    """As of C code: by the process id."""
    [(before, _)] = nonces_of(codec, 1)
    monkeypatch.setattr(os, "getpid", lambda: -1)
    [(after, _)] = nonces_of(codec, 1)
    assert before != after


# --- names and hashes


def test_hashes_and_names_are_keyed_and_stay(codec: EnvelopeCodec) -> None:
    """The same in every process and after every rotation; of another tenant's others; not plain hashes."""
    rotated, other = local_codec("second", "first"), local_codec(tenant="other")
    plain = IdentityCodec()
    for name in ("digest", "opaque", "record_key"):
        value = b"1956-03-01" if name == "digest" else "1956-03-01"
        made = [getattr(each, name)(value) for each in (codec, rotated, local_codec())]
        assert len(set(made)) == 1
        assert getattr(other, name)(value) != made[0] != getattr(plain, name)(value)
    assert len(codec.digest(b"")) == 64
    assert (plain.opaque("a"), plain.record_key(1)) == ("a", record_key(1))


def test_the_same_settings_share_a_codec() -> None:
    """And so its data keys; without settings nothing is encrypted."""
    assert open_codec(local_keys()) is open_codec(local_keys())
    assert open_codec(local_keys()) is not open_codec(local_keys(tenant="other"))
    assert open_codec(None).name == "identity"


def test_keys_can_be_tried() -> None:
    assert try_keys(local_keys("a", "b")) == "Encrypts and decrypts with key a, tenant default"


def test_errors_are_of_one_family() -> None:
    assert issubclass(CiphertextError, EncryptionError)
    assert str(WrongContextError("moved").at("checkpoint x")) == "checkpoint x: moved"
