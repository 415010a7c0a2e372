"""One contract for the dead letters of every store, and for their fake."""

from __future__ import annotations

import pytest

from airflow_provider_ai.adapters.store.store import Store
from airflow_provider_ai.core.job_ports import DeadLetter, DeadLetterStore
from airflow_provider_ai.testing import InMemoryStore
from tests.adapters.store.conftest import TestClock


@pytest.fixture
def dead(store: Store | InMemoryStore) -> DeadLetterStore:
    return store.dead_letters()


def letter(number: int, *, job_id: str | None = "job") -> DeadLetter:
    return DeadLetter(
        letter_id=f"{number:032x}",
        job_id=job_id,
        reason="timeout",
        source="requests",
        message=b"\x00message %d" % number,
    )


def test_letters_are_kept_as_they_came_once(dead: DeadLetterStore, clock: TestClock) -> None:
    """Everything of them, with the time they were first kept."""
    dead.keep([letter(1), letter(2, job_id=None)])
    first = clock.now
    clock.now += 5
    dead.keep([letter(1), letter(3)])
    assert [(each.letter_id, each.received_at) for each in dead.letters(most=10)] == [
        (letter(1).letter_id, first),
        (letter(2).letter_id, first),
        (letter(3).letter_id, clock.now),
    ]
    found = dead.letter(letter(2).letter_id)
    assert found is not None
    assert (found.job_id, found.reason, found.source, found.message) == (None, "timeout", "requests", b"\x00message 2")


def test_letters_are_read_page_by_page(dead: DeadLetterStore, clock: TestClock) -> None:
    """In order, each once, also when some came at the same moment."""
    for start in (7, 0, 14):
        dead.keep([letter(number) for number in range(start, start + 7)])
        clock.now += 1
    pages: list[DeadLetter] = []
    while page := dead.letters(most=4, after=pages[-1] if pages else None):
        pages += page
    assert [each.letter_id for each in pages] == [
        letter(number).letter_id for number in (*range(7, 14), *range(7), *range(14, 21))
    ]


def test_letters_are_forgotten_on_demand(dead: DeadLetterStore) -> None:
    """Those that are named, and no others."""
    dead.keep([letter(1), letter(2)])
    assert dead.remove([letter(2).letter_id, letter(9).letter_id]) == 1
    assert dead.letter(letter(2).letter_id) is None
    assert [each.letter_id for each in dead.letters(most=10)] == [letter(1).letter_id]
    assert dead.remove([]) == 0
    dead.keep([])
