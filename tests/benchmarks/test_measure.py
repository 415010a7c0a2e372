"""Figures that claims rest on."""

from __future__ import annotations

import random

import pytest

from benchmarks import measure


@pytest.mark.parametrize(
    ("count", "share", "expected"),
    [
        (1, 0.5, 1),
        (4, 0.5, 2),  # the lower one of the middle
        (100, 0.99, 99),
        (101, 0.99, 100),
        (50, 0.99, 50),  # too few for a 99th percentile: the largest
        (10, 1.0, 10),
        (10, 0.0, 1),
    ],
)
def test_a_quantile_is_one_of_the_values(count: int, share: float, expected: int, seed: int) -> None:
    """The smallest value that at least that share of the values do not exceed, whatever their order."""
    values = list(range(1, count + 1))
    random.Random(seed).shuffle(values)
    assert measure.quantile(values, share) == expected
