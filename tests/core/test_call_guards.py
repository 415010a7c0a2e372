"""Known mistakes of a synchronous call, refused with what to do instead."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from airflow_provider_ai.core.call_guards import check_execution_timeout, check_fallback, check_usual_time
from airflow_provider_ai.core.call_settings import CallSettings
from airflow_provider_ai.core.config import EndpointSettings
from airflow_provider_ai.core.fallback import Callable, Endpoint, LastGood, Static
from airflow_provider_ai.exceptions import SpecError

FLOOR = Static({"priority": "routine"})


@pytest.mark.parametrize(
    ("chain", "has_store", "words"),
    [
        ([], True, "must be a list of links that ends in Static"),
        (None, True, "must be a list of links that ends in Static"),
        ([LastGood(max_age=60)], True, "must end in Static"),
        ([FLOOR, FLOOR], True, "must hold one Static"),
        ([LastGood(max_age=60), FLOOR], False, "LastGood needs a store"),
        ([Endpoint("small", reserve_seconds=2), Callable("a.b:c", reserve_seconds=1), FLOOR], True, "leaves nothing"),
    ],
)
def test_a_chain_that_cannot_hold_is_refused(chain: Any, has_store: bool, words: str) -> None:
    """Each for its own reason."""
    with pytest.raises(SpecError, match=words):
        check_fallback(chain, CallSettings(deadline_seconds=3), has_store=has_store)


def test_a_sound_chain_comes_back_as_a_tuple() -> None:
    """A single link may stand for a list of one."""
    assert check_fallback(FLOOR, CallSettings(), has_store=False) == (FLOOR,)
    chain = [LastGood(max_age=60), Endpoint("small"), FLOOR]
    assert check_fallback(chain, CallSettings(), has_store=True) == tuple(chain)


@pytest.mark.parametrize("timeout", [timedelta(seconds=1), timedelta(seconds=3), timedelta(seconds=6), 4.9])
def test_an_execution_timeout_that_kills_the_fallback_is_refused(timeout: Any) -> None:
    """It must leave the deadline and what a task does besides."""
    with pytest.raises(SpecError, match=r"longer than 6 s .*die without its fallback"):
        check_execution_timeout(timeout, 3.0)


@pytest.mark.parametrize("timeout", [None, timedelta(seconds=6.1), timedelta(minutes=1)])
def test_an_execution_timeout_beyond_the_margin_is_fine(timeout: Any) -> None:
    """Most tasks have none."""
    check_execution_timeout(timeout, 3.0)


@pytest.mark.parametrize(("usual", "refused"), [(None, False), (0.5, False), (3.0, False), (3.1, True), (60, True)])
def test_an_endpoint_that_is_known_to_be_slower_is_refused(usual: float | None, refused: bool) -> None:
    """With a pointer to what waits for slow models."""
    endpoint = EndpointSettings(url="http://h", protocol="json", model="m", p99_seconds=usual)
    if not refused:
        check_usual_time(endpoint, 3.0)
        return
    with pytest.raises(SpecError, match=r"p99_seconds.*AISubmitAndWaitOperator"):
        check_usual_time(endpoint, 3.0)
