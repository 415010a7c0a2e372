"""The five questions, and how their answers are read."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_ai.core.needs import (
    LONGEST_SECONDS,
    MOST_RECORDS,
    QUESTIONS,
    SHORTEST_SECONDS,
    Needs,
    read_count,
    read_effect,
    read_flag,
    read_span,
    say_span,
)
from airflow_provider_ai.exceptions import SpecError

TRIAGE: dict[str, Any] = {
    "latency_seconds": 3,
    "volume": 1,
    "freshness_seconds": 60,
    "effect": "read",
    "phi": True,
}


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("3", 3),  # no unit: seconds
        ("0.5", 0.5),
        (".5", 0.5),
        ("500ms", 0.5),
        ("3s", 3),
        (" 3 S ", 3),  # as people type
        ("90m", 5400),  # minutes, not milliseconds and not months
        ("90 min", 5400),
        ("12h", 43_200),
        ("7d", 604_800),
        ("1ms", SHORTEST_SECONDS),
        ("3660d", LONGEST_SECONDS),
    ],
)
def test_a_time_is_read_with_and_without_its_unit(text: str, seconds: float) -> None:
    """One row per unit and per way of writing."""
    assert read_span(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "soon", "-1", "0", "3 weeks", "1e3", "nan", "inf", "3661d", "9" * 400, "1h30m"])
def test_what_is_no_time_is_refused(text: str) -> None:
    """With what a time must be."""
    with pytest.raises(SpecError, match="a time must be"):
        read_span(text)


@pytest.mark.parametrize(
    ("text", "records"),
    [("1", 1), ("1000000", 10**6), ("1,000,000", 10**6), ("1_000_000", 10**6), ("1 000", 1000), ("250,000 ", 250_000)],
)
def test_a_volume_is_read_with_and_without_separators(text: str, records: int) -> None:
    """Whole records only."""
    assert read_count(text) == records


@pytest.mark.parametrize("text", ["", "0", "-1", "1.5", "1,5", "10,00", "many", "1" + "0" * 13, "9" * 5000])
def test_what_is_no_volume_is_refused(text: str) -> None:
    """``1,5`` is a slip or another country's fraction, never 15."""
    with pytest.raises(SpecError, match="a volume must be"):
        read_count(text)


@pytest.mark.parametrize(("text", "phi"), [("yes", True), ("Y", True), ("no", False), ("N", False), ("true", True)])
def test_yes_and_no_are_read(text: str, phi: bool) -> None:
    """In full and by their first letter."""
    assert read_flag(text) is phi


def test_words_that_are_no_answer_are_refused() -> None:
    """An effect is one of two, a flag is yes or no."""
    with pytest.raises(SpecError, match="an effect must be read or ehr-write, got 'write'"):
        read_effect("write")
    with pytest.raises(SpecError, match="the answer must be yes or no, got 'perhaps'"):
        read_flag("perhaps")
    assert (read_effect("EHR-write"), read_effect("read")) == ("ehr-write", "read")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.03, "30 ms"),
        (5, "5 s"),
        (2.5, "2.5 s"),
        (60, "1 min"),
        (90, "90 s"),  # no fractions of minutes
        (600, "10 min"),
        (3600, "1 h"),
        (43_200, "12 h"),
        (86_400, "24 h"),  # reads better than 1 d
        (604_800, "7 d"),
        (1_234_567, "1,234,567 s"),
    ],
)
def test_a_time_is_said_in_its_largest_whole_unit(seconds: float, text: str) -> None:
    """One row per unit and per exception."""
    assert say_span(seconds) == text


@given(st.sampled_from(["ms", "s", "min", "h", "d"]), st.integers(1, 999))
def test_what_is_said_is_read_back(unit: str, count: int) -> None:
    """No time gets lost between a question's answer and the report."""
    seconds = read_span(f"{count}{unit}")
    assert read_span(say_span(seconds).replace(",", "")) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("latency_seconds", 0, "latency_seconds must be a time"),
        ("latency_seconds", float("nan"), "latency_seconds must be a time"),
        ("latency_seconds", True, "latency_seconds must be a time"),  # true is no number of seconds
        ("freshness_seconds", LONGEST_SECONDS * 2, "freshness_seconds must be a time"),
        ("freshness_seconds", "60", "freshness_seconds must be a time"),
        ("volume", 0, "volume must be a number of records"),
        ("volume", 1.0, "volume must be a number of records"),
        ("volume", MOST_RECORDS + 1, "volume must be a number of records"),
        ("effect", "write", "effect must be one of"),
        ("phi", "no", "phi must be true or false"),  # the text no would count as yes
    ],
)
def test_needs_that_cannot_be_are_refused(field: str, value: object, words: str) -> None:
    """Also when they come from Python."""
    with pytest.raises(SpecError, match=words):
        Needs(**{**TRIAGE, field: value})


def test_every_need_is_asked_for_and_every_default_makes_needs() -> None:
    """One question for each field, in order; pressing return five times works."""
    assert [question.name for question in QUESTIONS] == [field.name for field in fields(Needs)]
    assert Needs(**{question.name: question.read(question.default) for question in QUESTIONS}) == Needs(**TRIAGE)
