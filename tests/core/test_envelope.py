"""The wire format: what was written stays readable, and nothing else is taken for it."""

from __future__ import annotations

import random

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import ECB
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from airflow_provider_ai.core import envelope
from airflow_provider_ai.core.envelope import (
    KEY_BYTES,
    Header,
    MessageKey,
    additional_data,
    check_commitment,
    lasting_part,
    open_up,
    read_header,
    seal_size,
    with_wrapped_key,
)
from airflow_provider_ai.core.envelope_mark import is_envelope
from airflow_provider_ai.exceptions import (
    CiphertextError,
    NotEncryptedError,
    TamperedCiphertextError,
    TruncatedCiphertextError,
    WrongContextError,
)

DATA_KEY = bytes(range(KEY_BYTES))
NONCE = bytes(range(100, 112))
BOUND = additional_data("clinic-a", {"what": "job-payload", "job": "j-1"})
Bound = tuple[str, dict[str, str]]
PLAIN = b'{"note":"canary"}'
# Written by the first version of this format. It must stay readable for ever: a change needs another version number.
KNOWN = bytes.fromhex(
    "a141494501010b6a6f622d7061796c6f61640007323032362d3131000b77726170706564206b6579a577f7dada28474ff0e7"
    "26e5697ac88e237eec38c6a888499c5136810b790d4ddb1d9b585137d7936465666768696a6b6c6d6e6f40c6059617ab319f"
    "d9aee22cdf447724f930677fd774227c08337f5226b26bb968"
)


def header(key: MessageKey, *, key_id: str = "2026-11", wrapped: bytes = b"wrapped key") -> Header:
    return Header(purpose="job-payload", key_id=key_id, wrapped_key=wrapped, commitment=key.commitment)


def sealed(plain: bytes = PLAIN, *, additional: bytes = BOUND) -> bytes:
    key = MessageKey(DATA_KEY)
    start = header(key).to_bytes() + key.place(additional)
    return key.seal(start, NONCE, plain, additional)


def opened(data: bytes, *, additional: bytes = BOUND, data_key: bytes = DATA_KEY) -> bytes:
    message, key = open_up(data), MessageKey(data_key)
    check_commitment(read_header(message.start), key)
    return key.open(message, additional)


def test_a_message_of_the_first_version_is_still_read() -> None:
    """And still written: the format is part of the contract."""
    assert opened(KNOWN) == PLAIN
    assert sealed() == KNOWN


@pytest.mark.parametrize("size", [0, 1, 15, 16, 17, 1000, 1 << 20])
def test_what_is_sealed_is_opened(size: int, seed: int) -> None:
    plain = random.Random(seed).randbytes(size)
    assert opened(sealed(plain)) == plain


@pytest.mark.parametrize("size", [0, 5, 100_000])
def test_by_way_of_a_buffer_it_is_the_same(size: int) -> None:
    """A buffer that still holds something else."""
    key, plain = MessageKey(DATA_KEY), b"p" * size
    start = header(key).to_bytes() + key.place(BOUND)
    buffer = memoryview(bytearray(b"\xff" * (seal_size(start, plain) + 7)))
    assert key.seal_into(buffer, start, NONCE, plain, BOUND) == sealed(plain)


def test_every_flipped_bit_is_noticed() -> None:
    """Each single one, in header, nonce, text and tag. Key id and wrapped key are for those who unwrap to notice."""
    message = sealed()
    first = message.index(b"2026-11") - 2
    unwrapped = range(first, message.index(b"wrapped key") + len(b"wrapped key"))
    for position in range(len(message)):
        for bit in range(8):
            changed = bytearray(message)
            changed[position] ^= 1 << bit
            if position in unwrapped:
                continue
            if first > position >= 6 and _purpose(bytes(changed)) not in (None, "job-payload"):
                continue  # the codec compares it with the place
            with pytest.raises(CiphertextError) as caught:
                opened(bytes(changed))
            assert "canary" not in str(caught.value)


def _purpose(data: bytes) -> str | None:
    try:
        return read_header(data).purpose
    except CiphertextError:
        return None


def test_every_truncation_is_noticed() -> None:
    """At each byte, as such: nothing of it is decrypted."""
    message = sealed()
    for length in range(len(message) - len(PLAIN)):
        with pytest.raises(TruncatedCiphertextError):
            opened(message[:length])
    for length in range(len(message) - len(PLAIN), len(message)):
        with pytest.raises(TamperedCiphertextError):
            opened(message[:length])
    with pytest.raises(TamperedCiphertextError):
        opened(message + b"\0")


@pytest.mark.parametrize("data", [b"{}", b"ARROW1", b"\xa0AIE", b'{"note": "canary"}'])
def test_clear_data_are_not_taken(data: bytes) -> None:
    assert not is_envelope(data)
    with pytest.raises(NotEncryptedError, match="in clear") as caught:
        opened(data)
    assert "canary" not in str(caught.value)


def test_a_format_of_the_future_is_not_guessed() -> None:
    message = sealed()
    for position in (4, 5):
        with pytest.raises(TamperedCiphertextError, match="Upgrade"):
            opened(message[:position] + b"\x07" + message[position + 1 :])


def test_another_place_is_told_from_a_change() -> None:
    with pytest.raises(WrongContextError):
        opened(sealed(), additional=additional_data("clinic-a", {"what": "job-payload", "job": "j-2"}))


def times(x: int, y: int) -> int:
    """Multiplication in GHASH's field (NIST SP 800-38D, §6.3)."""
    product = 0
    for bit in range(127, -1, -1):
        if y >> bit & 1:
            product ^= x
        x = x >> 1 ^ (0xE1 << 120 if x & 1 else 0)
    return product


def inverse(x: int) -> int:
    """By Fermat: x^(2^128 - 2)."""
    result, power = 1 << 127, x
    for _ in range(127):
        power = times(power, power)
        result = times(result, power)
    return result


def opens_under_both(one: bytes, other: bytes) -> bytes:
    """Ciphertext and tag that AES-GCM takes for real under two keys, as Albertini et al. make it: one block is chosen
    so that both tags are the same."""
    hashes, masks = [], []
    for aes_key in (one, other):
        encrypt = Cipher(AES(aes_key), ECB()).encryptor()
        hashes.append(int.from_bytes(encrypt.update(bytes(16))))
        masks.append(int.from_bytes(encrypt.update(NONCE + b"\0\0\0\1")))
    (h, g), lengths = hashes, 8 * 32
    squares = times(h, h) ^ times(g, g)
    cubes = times(times(h, h), h) ^ times(times(g, g), g)
    second = int.from_bytes(b"any second block")
    wanted = masks[0] ^ masks[1] ^ times(second, squares) ^ times(lengths, h ^ g)
    first = times(wanted, inverse(cubes))
    ghash = times(first, times(times(h, h), h)) ^ times(second, times(h, h)) ^ times(lengths, h)
    return b"".join(number.to_bytes(16) for number in (first, second, ghash ^ masks[0]))


def aes_key_of(data_key: bytes) -> bytes:
    """What a data key encrypts with."""
    length = 2 * KEY_BYTES + 32
    return HKDF(algorithm=SHA256(), length=length, salt=None, info=envelope._INFO).derive(data_key)[:KEY_BYTES]


def test_a_text_that_opens_under_two_keys_is_refused_under_one() -> None:
    """AES-GCM alone takes it under both; the commitment is to one of them."""
    keys = (DATA_KEY, bytes(KEY_BYTES))
    body = opens_under_both(*map(aes_key_of, keys))
    texts = [AESGCM(aes_key_of(data_key)).decrypt(NONCE, body, b"") for data_key in keys]
    assert texts[0] != texts[1]
    committed, other = map(MessageKey, keys)
    message = header(committed).to_bytes() + committed.place(b"") + NONCE + body
    assert opened(message, additional=b"") == texts[0]
    with pytest.raises(TamperedCiphertextError):
        check_commitment(read_header(open_up(message).start), other)


def test_a_message_opens_under_one_data_key_only() -> None:
    """The commitment says so before anything is decrypted, even if the tag could be made to hold."""
    other = MessageKey(bytes(KEY_BYTES))
    message = open_up(sealed())
    with pytest.raises(TamperedCiphertextError):
        check_commitment(read_header(message.start), other)
    forged = header(other).to_bytes() + bytes(sealed()[len(message.start) :])
    with pytest.raises(TamperedCiphertextError):
        check_commitment(read_header(open_up(forged).start), MessageKey(DATA_KEY))


def test_keys_for_different_uses_differ() -> None:
    """The data key is none of them, and neither is the commitment, which everybody sees."""
    key = MessageKey(DATA_KEY)
    assert key.commitment != DATA_KEY
    assert len({key.commitment, DATA_KEY, key.place(b""), MessageKey(bytes(KEY_BYTES)).commitment}) == 4


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("t", {"what": "ab", "name": "c"}), ("t", {"what": "a", "name": "bc"})),    # where a value ends
        (("t", {"a": "b"}), ("ta", {"b": ""})),                                      # tenant and name
        (("t", {"a": "b", "c": "d"}), ("t", {"a": "d", "c": "b"})),                  # which value is whose
        (("t", {"a": "b"}), ("t", {"a": "b", "c": ""})),                             # an empty one more
    ],
)  # fmt: skip
def test_contexts_that_differ_look_different(
    one: tuple[str, dict[str, str]], other: tuple[str, dict[str, str]]
) -> None:
    assert additional_data(*one) != additional_data(*other)


def test_the_order_of_a_context_does_not_matter() -> None:
    assert additional_data("t", {"a": "1", "b": "2"}) == additional_data("t", {"b": "2", "a": "1"})


def test_wrapping_anew_touches_nothing_else() -> None:
    """What is hashed into the names of segments stays, too."""
    before = sealed()
    after = with_wrapped_key(before, key_id="another key", wrapped_key=b"longer wrapped key")
    assert read_header(after).key_id == "another key"
    assert read_header(after).wrapped_key == b"longer wrapped key"
    assert opened(after) == PLAIN
    assert bytes(lasting_part(after)) == bytes(lasting_part(before)) != before
    assert lasting_part(b"in clear") == b"in clear"
    assert lasting_part(before[:20]) == before[:20]


def test_a_data_key_of_another_length_is_refused() -> None:
    with pytest.raises(TamperedCiphertextError, match="32 bytes"):
        MessageKey(b"short")
