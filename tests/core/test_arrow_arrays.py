"""Arrow arrays without ``pa.array``: the same values and types, and no pandas."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from airflow_provider_ai.core.arrow_arrays import (
    array_of,
    bool_array,
    int64_array,
    int64_from,
    number_array,
    numbers_of,
    repeated_text,
    text_array,
)


@pytest.mark.parametrize(
    "values",
    [
        [1, 2, -(2**63)],
        [1.5, float("inf"), -0.0],
        ["a", "", "é", "\x00", "😀"],
        [None, 1],
        [1.5, None],
        ["a", None],
        [[1.0, 2.0], [], [3.0]],
        [["a"], ["b", None]],
        [[[1]], [[2, 3], []]],
        [],
        # left to pa.array
        [1, 0.5],
        [True, None],
        [None, None],
        [[], []],
        [[1], None],
        [{"a": 1}],
    ],
)
def test_as_pa_array(values: list[Any]) -> None:
    """Equal to what pa.array makes, type included."""
    array = array_of(values)
    array.validate(full=True)
    assert array.type == pa.array(values).type
    assert array.equals(pa.array(values))


@pytest.mark.parametrize("values", [[2**63], ["\ud800"], [1, "a"], [[1], ["a"]]])
def test_errors_of_pa_array(values: list[Any]) -> None:
    """What pa.array refuses is refused with its error."""
    with pytest.raises(Exception) as theirs:  # noqa: PT011 - whatever it is, ours must be the same
        pa.array(values)
    with pytest.raises(theirs.type):
        array_of(values)


def test_numbers_there_and_back() -> None:
    """Chunks and slices are put together; a type of the same width is taken as it is."""
    column = pa.chunked_array([int64_array(np.arange(5))[2:], int64_from(iter([7]), 1)])
    assert numbers_of(column).tolist() == [2, 3, 4, 7]
    assert numbers_of(pa.chunked_array([], pa.int64())).tolist() == []
    instants = number_array(np.array([0, 1_000_000]), pa.timestamp("us", tz="UTC"))
    assert instants.cast(pa.int64()).to_pylist() == [0, 1_000_000]


def test_text_and_booleans() -> None:
    """Repeated text of any count, and a mask of any length."""
    assert repeated_text("é", 3).to_pylist() == ["é"] * 3
    assert repeated_text("", 0).to_pylist() == []
    assert text_array([]).type == pa.string()
    assert bool_array(np.arange(10) % 3 == 0).to_pylist() == [n % 3 == 0 for n in range(10)]


def test_no_pandas() -> None:
    """None of it imports pandas, the reason this module exists."""
    program = """
import sys
import numpy as np, pyarrow as pa
from airflow_provider_ai.core.arrow_arrays import *
array_of([1, None]), array_of([1.5]), array_of(["a"]), array_of([[1.0], []])
numbers_of(pa.chunked_array([int64_array(np.arange(3))])), repeated_text("a", 2), bool_array(np.ones(3, np.bool_))
sys.exit("pandas" in sys.modules)
"""
    subprocess.run([sys.executable, "-c", program], check=True)
