"""What only a database has to say about good answers: the codec, what cannot be read, sizes and cleaning."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import pytest
import sqlalchemy as sa

from airflow_provider_ai.adapters.codec import IdentityCodec
from airflow_provider_ai.adapters.store import good_answers
from airflow_provider_ai.adapters.store.good_answers import GoodAnswerStore
from airflow_provider_ai.adapters.store.store import Store
from airflow_provider_ai.adapters.store.tables import GOOD_ANSWERS
from tests.adapters.store.conftest import OpenStore, TestClock

SECRET = "canary-7f3a"


class Reversing(IdentityCodec):
    """A codec that shows: bytes backwards, bound to their context."""

    name = "reversing"

    def __init__(self) -> None:
        self.contexts: list[Mapping[str, str]] = []

    def encode(self, data: bytes, *, context: Mapping[str, str]) -> bytes:
        self.contexts.append(context)
        return data[::-1]

    def decode(self, data: bytes, *, context: Mapping[str, str]) -> bytes:
        if context not in self.contexts:
            raise ValueError(SECRET)
        return data[::-1]


def kept(store: Store) -> dict[str, bytes]:
    with store.session() as session:
        found = session.run(sa.select(GOOD_ANSWERS.c.key, GOOD_ANSWERS.c.output), {})
        return {row.key: bytes(row.output) for row in found}


def test_outputs_pass_through_the_codec(opened: OpenStore) -> None:
    """With a context that names what they are and their key."""
    codec = Reversing()
    answers = GoodAnswerStore(opened(), codec=codec)
    answers.save("k", {"a": 1}, model="m")
    assert kept(opened()) == {"k": b'{"a":1}'[::-1]}
    assert codec.contexts == [{"what": "good-answer", "key": "k"}]
    found = answers.load("k")
    assert found is not None
    assert found.output == {"a": 1}


@pytest.mark.parametrize("damage", [{"codec": "other"}, {"output": b"{"}, {"key": "moved"}])
def test_what_cannot_be_read_is_absent(
    damage: dict[str, object], opened: OpenStore, caplog: pytest.LogCaptureFixture
) -> None:
    """With a warning that quotes neither the row nor its key; a new answer takes its place."""
    store = opened()
    answers = GoodAnswerStore(store, codec=Reversing())
    answers.save("k", SECRET, model="m")
    with store.database.transaction(30) as connection:
        connection.execute(sa.update(GOOD_ANSWERS).values(**damage))
    key = str(damage.get("key", "k"))
    with caplog.at_level(logging.WARNING):
        assert answers.load(key) is None
    assert "a good answer cannot be read" in caplog.text
    assert SECRET not in caplog.text
    answers.save(key, 2, model="m")
    found = answers.load(key)
    assert found is not None
    assert found.output == 2


def test_what_is_too_large_is_not_kept(opened: OpenStore, caplog: pytest.LogCaptureFixture) -> None:
    """Nor is what it would have replaced: that is no longer the last good answer."""
    store = opened()
    answers = GoodAnswerStore(store, max_bytes=100)
    answers.save("k", "x" * 98, model="m")
    assert set(kept(store)) == {"k"}
    with caplog.at_level(logging.WARNING):
        answers.save("k", "x" * 99, model="m")
    assert kept(store) == {}
    assert "101 bytes is too large" in caplog.text


def test_a_megabyte_comes_back(opened: OpenStore) -> None:
    """The largest that is kept."""
    answers = GoodAnswerStore(opened())
    output = "x" * (good_answers.MAX_BYTES - 2)
    answers.save("k", output, model="m")
    found = answers.load("k")
    assert found is not None
    assert found.output == output


def test_old_answers_are_removed_now_and_then(
    opened: OpenStore, clock: TestClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By some save, and not too many at once."""
    monkeypatch.setattr(good_answers, "_PRUNED_AT_ONCE", 3)
    store = opened(clock=clock)
    answers = GoodAnswerStore(store, keep_seconds=100)
    for number in range(5):
        answers.save(f"old-{number}", 1, model="m")
    clock.now += 60
    answers.save("young", 1, model="m")
    clock.now += 60
    monkeypatch.setattr(good_answers, "_PRUNE_ONE_IN", 1)
    answers.save("new", 1, model="m")
    assert len(kept(store)) == 4
    answers.save("new", 2, model="m")
    assert set(kept(store)) == {"young", "new"}
