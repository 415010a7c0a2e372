"""Results of handler functions: plain JSON and nothing else."""

from __future__ import annotations

from datetime import UTC, datetime
from enum import IntEnum
from typing import Any
from uuid import UUID

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_ai.core.job_results import NotPlainError, plain_json

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
NUMBERS = st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
PLAIN = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner),
    max_leaves=20,
)


@given(PLAIN)
def test_what_is_plain_comes_back_as_it_was(value: Any) -> None:
    """The bytes are JSON of exactly this value, types included."""
    back = orjson.loads(plain_json(value))
    assert repr(back) == repr(value)


class Colour(IntEnum):
    RED = 1


_LOOP: list[Any] = []
_LOOP.append(_LOOP)


@pytest.mark.parametrize(
    "value",
    [
        float("nan"), float("inf"), (1, 2), {1: 2}, {"a": {2.5: 1}}, {1, 2}, b"bytes", datetime.now(UTC), UUID(int=7),
        Colour.RED, [Colour.RED], object(), 2**70, "\ud800", _LOOP, {"deep": [1, [float("nan")]]}, lambda: 1,
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_what_is_not_plain_is_refused_without_a_word_of_it(value: Any) -> None:
    """It would come back as something else, or not at all."""
    with pytest.raises(NotPlainError, match=r"^the result must be plain JSON$"):
        plain_json(value)


def test_nesting_beyond_what_can_be_written_is_refused() -> None:
    """No RecursionError, and no endless loop."""
    value: Any = 1
    for _ in range(100_000):
        value = [value]
    with pytest.raises(NotPlainError):
        plain_json(value)
    while isinstance(value, list):  # taken apart by hand: so deep a list would be freed by recursion
        value = value.pop()
