"""The wire format of encrypted data: AES-256-GCM under a data key that travels, wrapped, in front of each message.

::

    magic "\\xa1AIE" | version 1 | algorithm 1                    bytes
    purpose          u8 length, ASCII                            what it is for; a data key has one purpose
    key id           u16 length, UTF-8                           of the key that wraps the data key
    wrapped data key u16 length
    commitment       32 bytes                                    of the data key
    place            8 bytes                                     keyed hash of the additional data
    nonce            12 bytes
    ciphertext and tag of AES-256-GCM (NIST SP 800-38D)

Invariants:

* The data key itself encrypts nothing. HKDF-SHA-256 (RFC 5869) makes three keys of it: for AES, for the commitment and
  for the place. The commitment is compared before anything is decrypted, so a message opens under one data key only:
  AES-GCM alone does not promise that (Albertini et al., "How to Abuse and Fix Authenticated Encryption Without Key
  Commitment", 2022; the AWS Encryption SDK commits likewise).
* Additional data are version, algorithm, tenant and the context, each with its length in front, so that two contexts
  never look alike. They are not stored: whoever reads must know where the bytes belong.
* Key id and wrapped data key are not among them, so that a data key can be wrapped anew without touching the rest.
  What replaces them must give the same data key, or the commitment does not hold.
* What is wrong is an error of :mod:`airflow_provider_ai.exceptions`; no plaintext leaves before all of it is checked.
"""

from __future__ import annotations

import hmac
import struct
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from airflow_provider_ai.core.envelope_mark import MAGIC, is_envelope
from airflow_provider_ai.exceptions import (
    CiphertextError,
    NotEncryptedError,
    TamperedCiphertextError,
    TruncatedCiphertextError,
    WrongContextError,
)

VERSION: Final = 1
ALGORITHM: Final = 1  # AES-256-GCM, HKDF-SHA-256, committing
KEY_BYTES: Final = 32
NONCE_BYTES: Final = 12
TAG_BYTES: Final = 16
WRITES_INTO: Final = hasattr(AESGCM, "encrypt_into")
"""Older versions of cryptography cannot encrypt into memory that is there."""
_COMMITMENT_BYTES = 32
_PLACE_BYTES = 8
_START = MAGIC + bytes([VERSION, ALGORITHM])
_INFO = b"airflow-provider-ai envelope 1"
_SHORT, _LONG = struct.Struct(">H"), struct.Struct(">I")


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """What stands in front of a message, and is the same for all messages of a data key.

    :param purpose: what the data key is for
    :param key_id: of the key that wraps it
    """

    purpose: str
    key_id: str
    wrapped_key: bytes
    commitment: bytes

    def to_bytes(self) -> bytes:
        """The bytes before ``place``."""
        purpose, key_id = self.purpose.encode("ascii"), self.key_id.encode()
        return b"".join(
            (
                _START,
                bytes([len(purpose)]),
                purpose,
                _SHORT.pack(len(key_id)),
                key_id,
                _SHORT.pack(len(self.wrapped_key)),
                self.wrapped_key,
                self.commitment,
            )
        )


class MessageKey:
    """Encrypts and decrypts the messages of one data key. Thread-safe.

    :param data_key: 32 bytes
    """

    __slots__ = ("_cipher", "_place_key", "commitment")

    def __init__(self, data_key: bytes) -> None:
        if len(data_key) != KEY_BYTES:
            raise TamperedCiphertextError(f"a data key has {KEY_BYTES} bytes, got {len(data_key)}")
        length = KEY_BYTES + _COMMITMENT_BYTES + KEY_BYTES
        made = HKDF(algorithm=SHA256(), length=length, salt=None, info=_INFO).derive(data_key)
        self._cipher = AESGCM(made[:KEY_BYTES])
        self.commitment = made[KEY_BYTES : KEY_BYTES + _COMMITMENT_BYTES]
        self._place_key = made[KEY_BYTES + _COMMITMENT_BYTES :]

    def place(self, additional: bytes) -> bytes:
        """What tells a message that stands in a wrong place from one that was changed."""
        return hmac.digest(self._place_key, additional, "sha256")[:_PLACE_BYTES]

    def seal(self, start: bytes, nonce: bytes, data: bytes, additional: bytes) -> bytes:
        """A message. ``start``: header and place; ``nonce``: never the same twice under this key."""
        return b"".join((start, nonce, self._cipher.encrypt(nonce, data, additional)))

    def seal_into(self, buffer: memoryview, start: bytes, nonce: bytes, data: bytes, additional: bytes) -> bytes:
        """Likewise, by way of a buffer with room for all of it: for large ones, whose fresh memory costs more."""
        body = len(start) + NONCE_BYTES
        buffer[: len(start)], buffer[len(start) : body] = start, nonce
        end = body + len(data) + TAG_BYTES
        self._cipher.encrypt_into(nonce, data, additional, buffer[body:end])
        return bytes(buffer[:end])

    def open(self, message: Message, additional: bytes) -> bytes:
        """The plaintext.

        :raises WrongContextError: it was sealed with other additional data
        :raises TamperedCiphertextError: it was changed since
        """
        if not hmac.compare_digest(message.place, self.place(additional)):
            raise WrongContextError(
                "encrypted data belong to another record, field, job or tenant, or were changed: they were not used. "
                "Restore them from a backup, or have them made anew"
            )
        try:
            return self._cipher.decrypt(message.nonce, message.body, additional)
        except InvalidTag:
            raise _tampered() from None


@dataclass(frozen=True, slots=True)
class Message:
    """A message taken apart; ``start`` are the bytes of its header as they came."""

    start: bytes
    place: bytes
    nonce: bytes
    body: memoryview


def seal_size(start: bytes, data: bytes) -> int:
    """How long a message will be. ``start``: header and place."""
    return len(start) + NONCE_BYTES + len(data) + TAG_BYTES


def open_up(data: bytes) -> Message:
    """The parts of a message, nothing of them believed yet.

    :raises CiphertextError: when it is none, or not whole
    """
    end = _header_end(data)
    place_end = end + _PLACE_BYTES
    nonce_end = place_end + NONCE_BYTES
    if len(data) < nonce_end + TAG_BYTES:
        raise _truncated()
    return Message(data[:end], data[end:place_end], data[place_end:nonce_end], memoryview(data)[nonce_end:])


def read_header(start: bytes) -> Header:
    """The header in the first bytes of a message.

    :raises CiphertextError: when there is none
    """
    end = _header_end(start)
    purpose, position = _slice(start, len(_START), 1)
    key_id, position = _slice(start, position, 2)
    wrapped, position = _slice(start, position, 2)
    try:
        return Header(
            purpose=purpose.decode("ascii"), key_id=key_id.decode(), wrapped_key=wrapped, commitment=start[position:end]
        )
    except UnicodeDecodeError:
        raise _tampered() from None


def check_commitment(header: Header, key: MessageKey) -> None:
    """TamperedCiphertextError unless the data key is the one that the message was sealed with."""
    if not hmac.compare_digest(header.commitment, key.commitment):
        raise _tampered()


def with_wrapped_key(data: bytes, *, key_id: str, wrapped_key: bytes) -> bytes:
    """The same message with its data key wrapped by another key."""
    end = _header_end(data)
    header = replace(read_header(data[:end]), key_id=key_id, wrapped_key=wrapped_key)
    return header.to_bytes() + data[end:]


def lasting_part(data: bytes) -> bytes | memoryview:
    """The part of stored bytes that wrapping a data key anew does not change; all of them when not encrypted."""
    if not is_envelope(data):
        return data
    try:
        return memoryview(data)[_header_end(data) - _COMMITMENT_BYTES :]
    except CiphertextError:
        return data


def additional_data(tenant: str, context: Mapping[str, str]) -> bytes:
    """What a message is bound to. ``context``: what it is, in any order."""
    words = [tenant]
    for name in sorted(context):
        words += (name, context[name])
    encoded = [word.encode() for word in words]
    return _START + b"".join(_LONG.pack(len(word)) + word for word in encoded)


def _header_end(data: bytes) -> int:
    """Where the commitment ends."""
    if data[: len(_START)] != _START:
        raise _no_start(data[: len(_START)])
    try:
        position = len(_START) + 1 + data[len(_START)]
        position += 2 + (data[position] << 8 | data[position + 1])
        position += 2 + (data[position] << 8 | data[position + 1]) + _COMMITMENT_BYTES
    except IndexError:
        raise _truncated() from None
    if len(data) < position:
        raise _truncated()
    return position


def _slice(data: bytes, position: int, size: int) -> tuple[bytes, int]:
    length = data[position] if size == 1 else _SHORT.unpack_from(data, position)[0]
    start = position + size
    return data[start : start + length], start + length


def _no_start(start: bytes) -> CiphertextError:
    if _START.startswith(start):
        return _truncated()
    if start.startswith(MAGIC):
        return TamperedCiphertextError(
            "encrypted data are of a format that this version does not know, or were changed: they were not used. "
            "Upgrade airflow-provider-ai, or restore them from a backup"
        )
    return NotEncryptedError(
        "data are in clear, and encryption is on: they were not used. Were they written before it was turned on? Then "
        "have them made anew (batch: recompute), or read them without keys"
    )


def _truncated() -> TruncatedCiphertextError:
    return TruncatedCiphertextError(
        "the end of encrypted data is missing: they were not used. Restore them from a backup, or have them made anew"
    )


def _tampered() -> TamperedCiphertextError:
    return TamperedCiphertextError(
        "encrypted data were changed since they were written: they were not used. Restore them from a backup, or have "
        "them made anew"
    )
