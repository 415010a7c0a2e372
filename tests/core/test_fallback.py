"""The fallback chain: what is a chain, and how the deadline is shared out."""

from __future__ import annotations

from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_ai.core.call_settings import CallSettings
from airflow_provider_ai.core.fallback import Callable, Endpoint, LastGood, Static, check_chain, cutoffs, reserves
from airflow_provider_ai.exceptions import SpecError

FLOOR = Static({"priority": "routine"})


@pytest.mark.parametrize(
    ("chain", "message"),
    [
        (None, "fallback must be a list of links that ends in Static"),
        ([], "fallback must be a list of links that ends in Static"),
        ("static", "fallback must be a list of links that ends in Static"),
        ([LastGood(max_age=60)], "fallback must end in Static"),
        ([FLOOR, LastGood(max_age=60)], "fallback must end in Static"),
        ([FLOOR, FLOOR], "fallback must hold one Static, as its last link"),
        ([{"priority": "routine"}], "fallback must hold Static, LastGood, Endpoint and Callable only"),
    ],
)
def test_a_chain_without_a_floor_is_refused(chain: Any, message: str) -> None:
    """The last link must be static, for nothing else cannot fail."""
    with pytest.raises(SpecError, match=message):
        check_chain(chain)


def test_a_floor_alone_is_a_chain() -> None:
    """A single link needs no list."""
    assert check_chain(FLOOR) == (FLOOR,)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Static({1, 2}),
        lambda: Static(object()),
        lambda: LastGood(max_age=0),
        lambda: LastGood(max_age=timedelta(seconds=-1)),
        lambda: LastGood(max_age="6h"),
        lambda: Endpoint(""),
        lambda: Endpoint(7),
        lambda: Endpoint("small", reserve_seconds=0),
        lambda: Callable("not a path"),
        lambda: Callable("name"),
        lambda: Callable("a.b", reserve_seconds=-1),
        lambda: Callable("a.b", reserve_seconds=float("nan")),
    ],
)
def test_a_link_that_cannot_be_right_is_refused(make: Any) -> None:
    """At construction, so when the DAG is parsed."""
    with pytest.raises(SpecError, match="must"):
        make()


def test_an_endpoint_link_is_promised_a_share_of_the_deadline() -> None:
    """30 % for one; several share half."""
    one = reserves([Endpoint("a"), FLOOR], deadline_seconds=4.0, store_timeout_seconds=0.1)
    assert one[0] == pytest.approx(1.2)
    two = reserves([Endpoint("a"), Endpoint("b"), FLOOR], deadline_seconds=4.0, store_timeout_seconds=0.1)
    assert two[:2] == pytest.approx((1.0, 1.0))


def test_promises_that_leave_nothing_for_the_endpoint_are_refused() -> None:
    """With the sum and what to do."""
    chain = [Endpoint("a", reserve_seconds=0.9), Callable("a.b"), FLOOR]
    with pytest.raises(SpecError, match=r"leaves nothing of the deadline of 1 s.*shorten"):
        reserves(chain, deadline_seconds=1.0, store_timeout_seconds=0.1)


@given(st.lists(st.floats(0.001, 1.0), min_size=1, max_size=6), st.floats(0.001, 5.0))
def test_cutoffs_rise_to_the_deadline_and_keep_every_promise(promises: list[float], endpoints_own: float) -> None:
    """Each step ends when the next one's promise begins; the last ends at the deadline."""
    deadline = sum(promises) + endpoints_own
    ends = cutoffs(deadline, promises)
    assert len(ends) == len(promises) + 1
    assert ends[-1] == deadline
    assert ends[0] == pytest.approx(endpoints_own)
    assert [later - earlier for earlier, later in pairwise(ends)] == pytest.approx(promises)


@pytest.mark.parametrize(
    ("seconds", "message"),
    [
        (5.1, "at most 5 s for a synchronous call, got 5.1 s.*AISubmitAndWaitOperator"),
        (0, "deadline must be a time > 0.03 s"),
        (-1, "deadline must be a time"),
        (float("nan"), "deadline must be a time"),
        (float("inf"), "deadline must be a time"),
        ("3", "deadline must be a time"),
        (True, "deadline must be a time"),
        (timedelta(seconds=3), "deadline must be a time"),  # the operator takes these; settings are seconds
    ],
)
def test_a_deadline_that_is_none_is_refused(seconds: Any, message: str) -> None:
    """Longer than five seconds belongs in a queue."""
    with pytest.raises(SpecError, match=message):
        CallSettings(deadline_seconds=seconds)


@pytest.mark.parametrize(("deadline", "seconds"), [(5.0, 0.25), (3.0, 0.25), (1.0, 0.1), (0.2, 0.02)])
def test_the_store_never_takes_more_than_a_tenth_of_the_deadline(deadline: float, seconds: float) -> None:
    """So a short deadline leaves room for a last good answer too."""
    settings = CallSettings(deadline_seconds=deadline)
    assert settings.store_seconds == pytest.approx(seconds)
    chain = [LastGood(max_age=60), FLOOR]
    reserves(chain, deadline_seconds=deadline, store_timeout_seconds=settings.store_seconds)
