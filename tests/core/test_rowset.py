"""Row sets against plain Python sets."""

from __future__ import annotations

import itertools
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_ai.core.rowset import RowSet

SIZE = 50
ROWS = st.sets(st.integers(0, SIZE - 1))
RANGE = st.tuples(st.integers(0, SIZE), st.integers(0, SIZE)).map(sorted)


@given(ROWS, ROWS, RANGE, RANGE)
def test_it_is_a_set_of_rows(first: set[int], second: set[int], wider: list[int], gone: list[int]) -> None:
    """Adding, removing and asking give what a set would."""
    rows, model = RowSet(SIZE, first), set(first)
    rows.add(np.array(sorted(second), dtype=np.int64))
    model |= second
    rows.add_range(*wider)
    model |= set(range(*wider))
    rows.discard_range(*gone)
    model -= set(range(*gone))
    rows.discard(first)
    model -= first
    assert len(rows) == len(model)
    assert rows.members().tolist() == sorted(model)
    assert [row in rows for row in range(SIZE)] == [row in model for row in range(SIZE)]
    assert rows.mask(np.arange(SIZE)).tolist() == [row in model for row in range(SIZE)]
    assert rows.missing(*wider).tolist() == [row for row in range(*wider) if row not in model]
    assert rows.covers(*wider) == set(range(*wider)).issubset(model)


@given(ROWS, ROWS)
def test_a_union_changes_only_the_left_side(first: set[int], second: set[int]) -> None:
    """``update`` adds the other's members."""
    left, right = RowSet(SIZE, first), RowSet(SIZE, second)
    left.update(right)
    assert left.members().tolist() == sorted(first | second)
    assert right.members().tolist() == sorted(second)


@given(ROWS)
def test_ranges_are_maximal_and_complete(members: set[int]) -> None:
    """The ranges of a segment footer: in order, never touching, together exactly the members."""
    ranges = RowSet(SIZE, members).ranges()
    assert [row for start, end in ranges for row in range(start, end)] == sorted(members)
    assert all(end < start for (_, end), (start, _) in itertools.pairwise(ranges))
    again = RowSet(SIZE)
    for start, end in ranges:
        again.add_range(start, end)
    assert again.members().tolist() == sorted(members)


@pytest.mark.parametrize("rows", [[-1], [SIZE], [0, SIZE], [3, -50]])
@pytest.mark.parametrize("kind", [list, np.array])
def test_a_row_outside_the_partition_is_refused(rows: list[int], kind: type) -> None:
    """NumPy would take -1 for the last row: a foreign outcome would pass for one of ours."""
    target = RowSet(SIZE)
    with pytest.raises(IndexError, match=r"row numbers must be in \[0, 50\)"):
        target.add(kind(rows))


def test_a_range_outside_the_partition_is_refused() -> None:
    """Likewise the ranges of a segment that belongs elsewhere."""
    with pytest.raises(IndexError, match="got 40 to 50"):
        RowSet(SIZE).add_range(40, 51)
    with pytest.raises(IndexError, match="got -1 to 3"):
        RowSet(SIZE).add_range(-1, 4)


def test_an_empty_partition_has_an_empty_set() -> None:
    """No rows: nothing to find, and everything is covered."""
    rows = RowSet(0)
    rows.add(np.array([], dtype=np.int64))
    assert (len(rows), rows.ranges(), rows.members().tolist(), rows.covers(0, 0)) == (0, [], [], True)


def test_five_million_rows_cost_five_megabytes() -> None:
    """And naming their ranges no more than a few times that: it is done for each segment."""
    rows = RowSet(5_000_000)
    rows.add_range(0, 4_000_000)
    tracemalloc.start()
    try:
        assert rows.ranges() == [(0, 4_000_000)]
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 25_000_000
