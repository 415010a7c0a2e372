"""Counts, cost and rate."""

from __future__ import annotations

import pytest

from airflow_provider_ai.core.config import EndpointSettings
from airflow_provider_ai.core.ports import Usage
from airflow_provider_ai.patterns.tally import Tally

PRICES = EndpointSettings(
    url="http://h",
    protocol="json",
    model="m",
    price_per_million_input_tokens=2.0,
    price_per_million_output_tokens=10.0,
    price_per_call=0.01,
)


def test_the_cost_is_what_was_used() -> None:
    """Tokens in, tokens out, and every request, retries included."""
    tally = Tally(PRICES)
    tally.requests = 3
    tally.used(Usage(prompt_tokens=400_000, completion_tokens=50_000))
    tally.used(Usage(prompt_tokens=100_000, completion_tokens=50_000))
    assert tally.cost_usd == pytest.approx(1.0 + 1.0 + 0.03)


def test_what_was_done_before_costs_and_rates_nothing() -> None:
    """A resume starts at the share that is done, not at its speed."""
    tally = Tally(PRICES)
    tally.finished_before(succeeded=900, quarantined=5)
    assert (tally.done, tally.reused, tally.cost_usd) == (905, 905, 0.0)
    assert tally.rate(10.0) == 0.0
    tally.succeeded += 50
    assert tally.rate(12.0) == 25.0


def test_the_rate_is_that_of_the_last_ten_seconds() -> None:
    """A slow start is forgotten."""
    tally = Tally(PRICES)
    for second in range(20):
        tally.rate(float(second))
    for second in range(20, 41):
        tally.succeeded += 100
        rate = tally.rate(float(second))
    assert rate == pytest.approx(100.0, rel=0.01)
    for second in range(41, 60):
        rate = tally.rate(float(second))
    assert rate == 0.0


def test_reasons_are_named_by_frequency() -> None:
    """The three most frequent of this run, without data."""
    tally = Tally(PRICES)
    assert tally.reasons_text() == "found in the checkpoints"
    for error_class, status, times in (("timeout", None, 2), ("rejected", 422, 5), ("x", 1, 1), ("y", 1, 1)):
        for _ in range(times):
            tally.gave_up(error_class, status)
    assert tally.reasons_text() == "rejected (HTTP 422) × 5, timeout × 2, x (HTTP 1) × 1"
    assert tally.quarantined == 9
