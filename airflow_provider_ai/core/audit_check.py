"""Whether chains are whole: rows in, findings out, a row at a time and nothing kept of it.

Rows come in order of writer and number. Each hash is computed anew; where one does not fit, that is said once, and the
walk goes on from what is stored, so that one change is one finding. What the heads of a writer say is compared as the
walk passes, and at the end of its chain.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from airflow_provider_ai.core.audit import KEY_BYTES, KEYS_ELSEWHERE
from airflow_provider_ai.core.audit_chain import GENESIS, VERSION, Head, Row

_START = b'[%d,"' % VERSION
_ELSEWHERE = b'"keys":"%b"' % KEYS_ELSEWHERE.encode()


class FindingKind(Enum):
    """What is wrong."""

    EDITED = "edited"  # an event, or the one before it, is not what was written: edited, inserted, moved or swapped
    KEYS_EDITED = "keys_edited"  # the record keys beside an event are not those it was written with
    MISSING = "missing"  # events within a chain are gone
    TRUNCATED = "truncated"  # events at the end of a chain are gone
    REWRITTEN = "rewritten"  # a chain fits together, and is not the one whose head was signed
    REMOVED_CHAIN = "removed_chain"  # a head is there, and of its chain nothing
    UNKNOWN_CHAIN = "unknown_chain"  # a chain that no head was ever signed for: made up, or its heads are gone
    AFTER_CLOSE = "after_close"  # events after the head that closed their chain
    FORGED_HEAD = "forged_head"  # a head that no known key has signed, or that lies under another's name
    HIDDEN_HEAD = "hidden_head"  # a locked head that somebody tried to delete or to replace
    REMOVED_PREDECESSOR = "removed_predecessor"  # the chain that this one says it follows is gone, or another


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something that is wrong: what, in which chain, at which number; up to which one where it is more than one."""

    kind: FindingKind
    writer: str
    sequence: int
    until: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        facts: dict[str, Any] = {"finding": self.kind.value, "writer": self.writer, "sequence": self.sequence}
        return facts if self.until is None else {**facts, "until": self.until}

    def __str__(self) -> str:
        numbers = f"{self.sequence}" if self.until in (None, self.sequence) else f"{self.sequence} to {self.until}"
        return f"{self.kind.value.replace('_', ' ')}: chain {self.writer}, number {numbers}"


Found = Callable[[Finding], None]


class ChainWalk:
    """Walks along chains.

    :param found: told each finding
    :param ended: told each chain's end: its name, its last number and hash
    """

    def __init__(self, found: Found, ended: Callable[[str, int, bytes], None] = lambda *_: None) -> None:
        self.events = 0
        self.chains = 0
        self._found = found
        self._ended = ended
        self._heads: dict[int, bytes] = {}
        self._writer = ""
        self._sequence = 0
        self._previous = GENESIS
        self._prefix = b""

    @property
    def last(self) -> int:
        """Number of the last event of the chain that is walked along; 0 before the first."""
        return self._sequence

    def begin(self, writer: str, heads: Iterable[Head] = ()) -> None:
        """The next rows are of this chain; ``heads`` are compared in passing."""
        self.end()
        self.chains += 1
        self._writer, self._sequence, self._previous = writer, 0, GENESIS
        self._prefix = _START + writer.encode() + b'",'
        self._heads = {head.sequence: head.hash for head in heads}

    def end(self) -> None:
        """The chain is over."""
        if self._writer:
            self._ended(self._writer, self._sequence, self._previous)
            self._writer = ""

    def feed(self, rows: Sequence[Row | tuple[Any, ...]]) -> None:
        """Rows of the chain that was begun, in order. As fast as they come: this is all that is done for each event."""
        previous, sequence, prefix, heads = self._previous, self._sequence, self._prefix, self._heads
        sha256 = hashlib.sha256
        for _, number, at_us, records, digest, facts, keys, stored in rows:
            if not type(number) is type(at_us) is type(records) is int or not type(facts) is type(stored) is bytes:
                # SQLite keeps what it is given: 5.4 in a column of integers, text in one of bytes.
                sequence, previous = sequence + 1, b""
                self._say(FindingKind.EDITED, sequence)
                continue
            if number != sequence + 1:
                self._gap(sequence, number)
                previous = b""
            sequence = number
            bound = b'%b%d,%d,%d,"%b",%b]' % (prefix, number, at_us, records, str(digest).encode(), facts)
            if previous and sha256(previous + bound).digest() != stored:
                self._say(FindingKind.EDITED, number)
            previous = stored
            if (keys is not None or records) and not _has_its_keys(records, digest, facts, keys):
                self._say(FindingKind.KEYS_EDITED, number)
            if heads and heads.get(number, previous) != previous:
                self._say(FindingKind.REWRITTEN, number)
        self.events += len(rows)
        self._previous, self._sequence = previous, sequence

    def _gap(self, sequence: int, number: int) -> None:
        if number > sequence:
            self._say(FindingKind.MISSING, sequence + 1, number - 1)
        else:
            self._say(FindingKind.EDITED, number)

    def _say(self, kind: FindingKind, sequence: int, until: int | None = None) -> None:
        self._found(Finding(kind=kind, writer=self._writer, sequence=sequence, until=until))


def _has_its_keys(records: int, digest: str, facts: bytes, keys: object) -> bool:
    if keys is None:
        return _ELSEWHERE in facts
    return type(keys) is bytes and len(keys) == KEY_BYTES * records and hashlib.sha256(keys).hexdigest() == digest


def judge_end(writer: str, last: int, heads: Sequence[Head], *, expected: bool) -> tuple[list[Finding], int]:
    """What the heads of a chain say of its end: findings, and how many events at the end no head vouches for.

    :param last: number of the last event that is there; 0 for none
    :param heads: verified ones
    :param expected: whether heads are kept at all; a chain of more than its opening event has one then
    """
    if not heads:
        unknown = expected and last > 1
        return (
            [Finding(kind=FindingKind.UNKNOWN_CHAIN, writer=writer, sequence=1, until=last)] if unknown else []
        ), last
    newest = max(head.sequence for head in heads)
    if last == 0:
        return [Finding(kind=FindingKind.REMOVED_CHAIN, writer=writer, sequence=1, until=newest)], 0
    if last < newest:
        return [Finding(kind=FindingKind.TRUNCATED, writer=writer, sequence=last + 1, until=newest)], 0
    closed = [head.sequence for head in heads if head.closed]
    if closed and last > min(closed):
        return [Finding(kind=FindingKind.AFTER_CLOSE, writer=writer, sequence=min(closed) + 1, until=last)], 0
    return [], last - newest
