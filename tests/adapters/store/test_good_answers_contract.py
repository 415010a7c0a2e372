"""One contract for the good answers of every store, and for their fake."""

from __future__ import annotations

import pytest

from airflow_provider_ai.adapters.store.store import Store
from airflow_provider_ai.core.call_ports import GoodAnswer, GoodAnswers
from airflow_provider_ai.testing import InMemoryStore
from tests.adapters.store.conftest import TestClock


@pytest.fixture
def answers(store: Store | InMemoryStore) -> GoodAnswers:
    return store.answers()


@pytest.mark.parametrize("output", [{"priority": "urgent", "p": 0.25}, [{"a": None}, {"a": "ü\0"}], "x", 0, None, {}])
def test_an_answer_comes_back_as_it_was(answers: GoodAnswers, output: object, clock: TestClock) -> None:
    """With its model and its age."""
    answers.save("k", output, model="m")
    clock.now += 90
    assert answers.load("k") == GoodAnswer(output=output, model="m", age_seconds=90)


def test_an_answer_that_was_never_given(answers: GoodAnswers) -> None:
    """There is none."""
    answers.save("k", 1, model="m")
    assert answers.load("other") is None


def test_a_later_answer_takes_the_place_of_an_older_one(answers: GoodAnswers, clock: TestClock) -> None:
    """Output, model and age."""
    answers.save("k", 1, model="old")
    clock.now += 100
    answers.save("k", 2, model="new")
    assert answers.load("k") == GoodAnswer(output=2, model="new", age_seconds=0)


def test_a_clock_set_back_makes_no_negative_age(answers: GoodAnswers, clock: TestClock) -> None:
    """Age is never below 0."""
    answers.save("k", 1, model="m")
    clock.now -= 100
    kept = answers.load("k")
    assert kept is not None
    assert kept.age_seconds == 0


def test_a_copy_is_kept(answers: GoodAnswers) -> None:
    """What a caller does to its output later is its own business."""
    output = {"a": [1]}
    answers.save("k", output, model="m")
    output["a"].append(2)
    kept = answers.load("k")
    assert kept is not None
    assert kept.output == {"a": [1]}
