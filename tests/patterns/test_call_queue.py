"""Which call goes out next."""

from __future__ import annotations

from typing import Any, cast

from airflow_provider_ai.patterns.call_queue import CallQueue
from airflow_provider_ai.patterns.work import Call, Record


def call(name: str) -> Call:
    return Call(cast("Any", None), [Record(0, name, name, {})])


def name(found: Call | None) -> str | None:
    return None if found is None else found.records[0].key


def test_due_calls_go_before_fresh_ones() -> None:
    """Retries first, in the order of their time; then fresh ones in the order of the input."""
    queue = CallQueue(max_delayed=9)
    queue.add([call("a"), call("b")])
    queue.delay(call("late"), due=12.0)
    queue.delay(call("soon"), due=11.0)
    queue.delay(call("sooner"), due=11.0)
    assert queue.next_due() == 11.0
    assert [name(queue.pop(now)) for now in (10.0, 11.0, 11.0, 11.0, 11.0, 12.0, 12.0)] == [
        "a",
        "soon",
        "sooner",
        "b",
        None,
        "late",
        None,
    ]
    assert len(queue) == 0
    assert queue.next_due() is None


def test_too_many_delayed_calls_hold_the_fresh_ones_back() -> None:
    """An outage must not turn the whole input into waiting calls."""
    queue = CallQueue(max_delayed=2)
    queue.add([call("a")])
    queue.delay(call("x"), due=20.0)
    assert name(queue.pop(10.0)) == "a"
    queue.add([call("b")])
    queue.delay(call("y"), due=30.0)
    assert queue.pop(10.0) is None
    assert name(queue.pop(10.0, prefer_fresh=True)) == "b", "a probe is one call, and a fresh one says most"
    queue.add([call("c")])
    assert [name(queue.pop(20.0)), name(queue.pop(20.0))] == ["x", "c"]


def test_a_call_that_was_put_back_is_the_next_one() -> None:
    """Fresh or not: a gate that is closed changes no order among fresh calls."""
    queue = CallQueue(max_delayed=9)
    queue.add([call("a"), call("b")])
    first = queue.pop(10.0)
    assert first is not None
    queue.put_back(first, 10.0)
    assert (len(queue), queue.fresh) == (2, 2)
    assert name(queue.pop(10.0)) == "a"
    tried = call("tried")
    tried.attempts = 1
    queue.put_back(tried, 10.0)
    assert name(queue.pop(10.0)) == "tried"
    assert name(queue.pop(10.0)) == "b"
