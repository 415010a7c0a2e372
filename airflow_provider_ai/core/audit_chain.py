"""The hash chain of a writer: what is hashed, and what a signed head says.

::

    canonical = [1,"<writer>",<sequence>,<at_us>,<records>,"<digest>",{<facts>}]     compact JSON, keys sorted, UTF-8
    hash      = SHA-256(hash of the event before || canonical)                       the first one after 32 zero bytes

Everything is in the canonical bytes, under one JSON array of fixed length, so two different events never have the same
ones. The writer and its number are in them, too: an event cannot be moved to another place or another chain. Numbers
begin with 1 and have no gaps.

A chain alone does not show that its end was cut off, nor that it was rewritten from some event on: heads do, which are
signed, and kept where whoever may change the table may not.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Any, NamedTuple

import orjson

from airflow_provider_ai.core.audit import AuditEvent, Position, digest_of

VERSION = 1
GENESIS = bytes(32)
WRITER = re.compile(r"[0-9]{8}T[0-9]{6}Z-[0-9a-f]{12}")
"""A writer's name: when it began, and chance. Names sort by time, and no name begins another."""


class Row(NamedTuple):
    """An event as it is stored. ``facts``: JSON, as it was hashed; ``keys``: None when there are none."""

    writer: str
    sequence: int
    at_us: int
    records: int
    digest: str
    facts: bytes
    keys: bytes | None
    hash: bytes


def facts_of(event: AuditEvent) -> bytes:
    """The part of the canonical bytes that is stored as it is."""
    return orjson.dumps(event.facts(), option=orjson.OPT_SORT_KEYS)


def canonical(writer: str, sequence: int, at_us: int, records: int, digest: str, facts: bytes) -> bytes:
    """What is hashed of an event. ``writer`` and ``digest`` hold nothing that JSON escapes."""
    return b'[%d,"%b",%d,%d,%d,"%b",%b]' % (
        VERSION,
        writer.encode(),
        sequence,
        at_us,
        records,
        digest.encode(),
        facts,
    )


def linked(previous: bytes, event: bytes) -> bytes:
    """The hash of an event with these canonical bytes after the event with the hash ``previous``."""
    return hashlib.sha256(previous + event).digest()


def next_row(after: Position, event: AuditEvent) -> Row:
    """The event as the next one of a chain. ``after``: the end of the chain; ``start_of`` where there is none yet."""
    facts, sequence, digest = facts_of(event), after.sequence + 1, event.digest or digest_of(event.keys)
    bound = canonical(after.writer, sequence, event.at_us, event.records, digest, facts)
    return Row(
        after.writer,
        sequence,
        event.at_us,
        event.records,
        digest,
        facts,
        event.keys or None,
        linked(after.hash, bound),
    )


def start_of(writer: str) -> Position:
    """Where a chain begins: before its first event."""
    return Position(writer, 0, GENESIS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """What a writer signs now and then: how far its chain goes, and what its last hash is.

    :param at_us: when it was signed, microseconds since the epoch
    :param closed: nothing comes after it
    """

    writer: str
    sequence: int
    hash: bytes
    at_us: int
    closed: bool = False

    def signed_bytes(self) -> bytes:
        """What the signature is over."""
        facts = ["airflow-ai audit head", VERSION, self.writer, self.sequence, self.hash.hex(), self.at_us, self.closed]
        return orjson.dumps(facts)

    @property
    def name(self) -> str:
        """Its file: names sort by writer, then by number. A closing head has a name of its own."""
        return f"{self.writer}/{self.sequence:016d}{'-closed' if self.closed else ''}.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedHead:
    """A head with its Ed25519 signature. ``key_id``: 16 hex digits that name the key."""

    head: Head
    key_id: str
    signature: bytes

    def to_json(self) -> bytes:
        """The file."""
        head = self.head
        return orjson.dumps(
            {
                "version": VERSION,
                "writer": head.writer,
                "sequence": head.sequence,
                "hash": head.hash.hex(),
                "at_us": head.at_us,
                "closed": head.closed,
                "key_id": self.key_id,
                "signature": self.signature.hex(),
            }
        )

    @staticmethod
    def from_json(data: bytes) -> SignedHead | None:
        """The head in a file; None when there is none in it."""
        try:
            found: dict[str, Any] = orjson.loads(data)
            head = Head(
                writer=_text(found["writer"]),
                sequence=int(found["sequence"]),
                hash=bytes.fromhex(found["hash"]),
                at_us=int(found["at_us"]),
                closed=bool(found["closed"]),
            )
            return SignedHead(head=head, key_id=_text(found["key_id"]), signature=bytes.fromhex(found["signature"]))
        except (ValueError, KeyError, TypeError):
            return None


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("not a text")
    return value
