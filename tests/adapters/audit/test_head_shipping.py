"""Heads: one before anything, one now and then, one at the end; and what happens while they cannot be shipped."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from airflow_provider_ai.adapters.audit.head_places import HeadFile
from airflow_provider_ai.adapters.audit.head_shipping import HeadShipper
from airflow_provider_ai.adapters.audit.signing import HeadSigner, HeadVerifier, new_key_pair
from airflow_provider_ai.core.audit import Position
from airflow_provider_ai.core.audit_chain import SignedHead
from airflow_provider_ai.exceptions import AuditUnavailableError, SpecError
from tests.support.processes import wait_until

WRITER = "20260101T000000Z-00000000000a"


class Place:
    """Takes heads, unless it is down."""

    where = "heads in memory"

    def __init__(self) -> None:
        self.taken: dict[str, bytes] = {}
        self.down = False

    def put(self, name: str, data: bytes) -> None:
        if self.down:
            raise AuditUnavailableError("down")
        self.taken[name] = data

    def files(self, *, since: str = "") -> Iterator[HeadFile]:
        return map(HeadFile, sorted(self.taken))

    def read(self, file: HeadFile) -> bytes:
        return self.taken[file.name]

    def heads(self) -> list[tuple[int, bool]]:
        found = [SignedHead.from_json(data) for data in self.taken.values()]
        return sorted((each.head.sequence, each.head.closed) for each in found if each is not None)


class Clock:
    """Seconds that pass when a test says so."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def keys() -> tuple[str, str]:
    return new_key_pair()


@pytest.fixture
def place() -> Place:
    return Place()


@pytest.fixture
def clock() -> Clock:
    return Clock()


def shipper(place: Place, keys: tuple[str, str], clock: Clock, **given: Any) -> HeadShipper:
    options = {"interval_seconds": 3000.0, "lag_seconds": 60.0, "strict": True, "copy": lambda signed: None}
    return HeadShipper(
        HeadSigner(keys[0]),
        place,
        epoch_us=lambda: 7,
        clock=clock,
        **{**options, **given},  # type: ignore[arg-type]
    )


def at(number: int) -> Position:
    return Position(WRITER, number, bytes([number]) * 32)


def test_the_first_and_the_last(place: Place, keys: tuple[str, str], clock: Clock) -> None:
    """Signed, of the right number, and the last one says that nothing follows."""
    copies: list[SignedHead] = []
    made = shipper(place, keys, clock, copy=copies.append)
    made.begin(at(1))
    assert place.heads() == [(1, False)]
    made.note(at(2))
    made.note(at(5))
    made.close()
    made.close()
    assert place.heads() == [(1, False), (5, True)]
    assert all(HeadVerifier([keys[1]]).is_genuine(signed) for signed in copies)
    assert [signed.head.sequence for signed in copies] == [1, 5]


def test_one_now_and_then(place: Place, keys: tuple[str, str], clock: Clock) -> None:
    """Only while there is something new."""
    made = shipper(place, keys, clock, interval_seconds=0.01)
    made.begin(at(1))
    made.note(at(3))
    wait_until(lambda: (3, False) in place.heads(), deadline_seconds=10, what="the head of the third event")
    made.close()
    assert place.heads() == [(1, False), (3, False), (3, True)]


def test_without_a_first_head_nothing_begins(place: Place, keys: tuple[str, str], clock: Clock) -> None:
    """Unless the settings say that the audit may go on without."""
    place.down = True
    with pytest.raises(AuditUnavailableError):
        shipper(place, keys, clock).begin(at(1))
    lax = shipper(place, keys, clock, strict=False)
    lax.begin(at(1))
    lax.note(at(2))
    clock.now = 1e6
    lax.require_fresh()


def test_heads_that_are_late_stop_the_audit(place: Place, keys: tuple[str, str], clock: Clock) -> None:
    """From the first event that no head vouches for; and it goes on once they can be shipped."""
    made = shipper(place, keys, clock, interval_seconds=0.01)
    made.begin(at(1))
    place.down = True
    clock.now = 100.0
    made.note(at(2))
    clock.now = 159.0
    made.note(at(3))
    made.require_fresh()
    clock.now = 161.0
    with pytest.raises(AuditUnavailableError, match="no head could be shipped for 60 s"):
        made.require_fresh()
    place.down = False
    wait_until(lambda: (3, False) in place.heads(), deadline_seconds=10, what="the head of the third event")
    made.require_fresh()
    made.close()


def test_a_last_head_that_cannot_be_shipped(
    place: Place, keys: tuple[str, str], clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """The process ends all the same, and says so."""
    made = shipper(place, keys, clock)
    made.begin(at(1))
    place.down = True
    made.close()
    assert "the last head of chain 20260101T000000Z-00000000000a is not shipped" in caplog.text


def test_a_chain_that_never_began_has_no_head(place: Place, keys: tuple[str, str], clock: Clock) -> None:
    """Nothing to sign."""
    shipper(place, keys, clock).close()
    assert place.taken == {}


def test_keys(keys: tuple[str, str]) -> None:
    """Another key, another head, or no key at all."""
    from airflow_provider_ai.core.audit_chain import Head

    head = Head(writer=WRITER, sequence=1, hash=bytes(32), at_us=0)
    signed = HeadSigner(keys[0]).sign(head)
    others = new_key_pair()
    assert HeadVerifier([keys[1]]).is_genuine(signed)
    assert HeadVerifier([others[1], keys[1]]).is_genuine(signed)
    assert not HeadVerifier([others[1]]).is_genuine(signed)
    moved = SignedHead(
        head=Head(writer=WRITER, sequence=2, hash=bytes(32), at_us=0), key_id=signed.key_id, signature=signed.signature
    )
    assert not HeadVerifier([keys[1]]).is_genuine(moved)
    for wrong in ("", keys[1], "nonsense"):
        with pytest.raises(SpecError, match="Ed25519 private key"):
            HeadSigner(wrong)
    for wrong in ("", keys[0], "nonsense"):
        with pytest.raises(SpecError, match="Ed25519 public key"):
            HeadVerifier([wrong])
