"""Answers as rows of a real table."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_ai.core.answer import Answer
from airflow_provider_ai.core.config import SinkSettings
from airflow_provider_ai.runtime.answer_rows import publish_answer


def answer_of(output: Any, **fields: Any) -> dict[str, Any]:
    given: dict[str, Any] = {
        "degraded": False,
        "reason": None,
        "source": "primary",
        "attempts": 1,
        "elapsed_ms": 3.0,
        "breaker_state": "closed",
        "model": "m",
    }
    return Answer(output=output, **{**given, **fields}).to_dict()


@pytest.fixture
def sink(tmp_path: Path) -> SinkSettings:
    return SinkSettings(url=f"sqlite:///{tmp_path / 'warehouse.db'}", table="answers")


def publish(sink: SinkSettings, answer: dict[str, Any], key: str = "triage/run-1") -> int:
    return publish_answer(answer, answer["output"], sink, key=key, run_id=key.partition("/")[2])


def rows(sink: SinkSettings, columns: str) -> list[tuple[Any, ...]]:
    with sqlite3.connect(sink.url.removeprefix("sqlite:///")) as connection:
        return connection.execute(f"SELECT {columns} FROM answers ORDER BY _run_id, _record_key").fetchall()


def test_a_row_says_what_the_answer_is(sink: SinkSettings) -> None:
    """Output columns and where they come from; what is no scalar is JSON text."""
    assert publish(sink, answer_of({"score": 0.5, "label": "urgent", "p": [0.5, 0.5]})) == 1
    assert rows(sink, "score, label, p, _degraded, _reason, _source, _model, _run_id") == [
        (0.5, "urgent", "[0.5,0.5]", 0, None, "primary", "m", "run-1")
    ]


def test_a_retry_leaves_one_row_and_another_run_its_own(sink: SinkSettings) -> None:
    """The same answer writes nothing; another one replaces the row."""
    assert publish(sink, answer_of({"score": 0.5})) == 1
    assert publish(sink, answer_of({"score": 0.5}, elapsed_ms=7.0)) == 0
    assert publish(sink, answer_of({"score": 0.7})) == 1
    assert publish(sink, answer_of({"score": 0.1}), key="triage/run-2") == 1
    assert rows(sink, "_run_id, score") == [("run-1", 0.7), ("run-2", 0.1)]


def test_a_degraded_answer_is_marked(sink: SinkSettings) -> None:
    """Its nulls are nulls, whatever type the column has."""
    publish(sink, answer_of({"score": 0.5}))
    floor = answer_of({"score": None}, degraded=True, reason="timeout", source="static", model=None)
    publish(sink, floor, key="triage/run-2")
    assert rows(sink, "score, _degraded, _reason, _source, _model")[1] == (None, 1, "timeout", "static", None)


@pytest.mark.parametrize(("output", "expected"), [("routine", "routine"), ({"output": 3}, 3), ([], None)])
def test_other_outputs_have_a_column_of_their_own(sink: SinkSettings, output: Any, expected: Any) -> None:
    """A static answer may be any JSON value; an empty list is no row."""
    assert publish(sink, answer_of(output)) == (0 if output == [] else 1)
    if output != []:
        assert rows(sink, "output") == [(expected,)]


def test_a_list_of_records_is_a_row_for_each(sink: SinkSettings) -> None:
    """Together in one transaction, and replaced together."""
    publish(sink, answer_of([{"score": 0.1}, {"score": 0.2, "note": "x"}]))
    publish(sink, answer_of([{"score": 0.3}]))
    assert rows(sink, "score, note") == [(0.3, None)]
