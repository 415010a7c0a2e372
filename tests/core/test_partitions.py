"""The Splitter loses no row, doubles none, keeps its cap and its balance, whatever the files."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_ai.core.manifest import FileSlice, Partition, SourceFile
from airflow_provider_ai.core.partitions import plan_partitions

row_counts = st.one_of(st.integers(0, 20), st.integers(0, 400))
grouped = st.lists(row_counts, max_size=6).map(tuple)
NO_CAP = 1_000_000
untimed = settings(deadline=None)  # a busy machine is not a failure


def source(number: int, rows: int, groups: tuple[int, ...] = ()) -> SourceFile:
    return SourceFile(path=f"f{number}", size=1, version="1", rows=rows, row_groups=groups)


@st.composite
def datasets(draw: st.DrawFn) -> list[SourceFile]:
    files = []
    for number in range(draw(st.integers(0, 8))):
        groups = draw(grouped)
        rows = sum(groups) if groups else draw(row_counts)
        files.append(source(number, rows, groups))
    return files


def rows_of(partitions: tuple[Partition, ...]) -> list[tuple[int, int]]:
    """Every row of every partition, in order, as (file, row)."""
    return [(s.file, row) for part in partitions for s in part.slices for row in range(s.start, s.end)]


@untimed
@given(datasets(), st.integers(1, 500), st.integers(1, 40))
def test_every_row_is_in_exactly_one_partition_in_order(files: list[SourceFile], target: int, cap: int) -> None:
    partitions = plan_partitions(files, rows_per_partition=target, max_partitions=cap)
    assert rows_of(partitions) == [(n, row) for n, file in enumerate(files) for row in range(file.rows)]


@untimed
@given(datasets(), st.integers(1, 500), st.integers(1, 40))
def test_the_cap_holds_and_partitions_are_numbered(files: list[SourceFile], target: int, cap: int) -> None:
    partitions = plan_partitions(files, rows_per_partition=target, max_partitions=cap)
    assert len(partitions) <= cap
    assert [part.index for part in partitions] == list(range(len(partitions)))


@untimed
@given(datasets(), st.integers(1, 500), st.integers(1, 40))
def test_no_partition_is_empty_and_no_slice_either(files: list[SourceFile], target: int, cap: int) -> None:
    partitions = plan_partitions(files, rows_per_partition=target, max_partitions=cap)
    assert all(piece.rows > 0 for part in partitions for piece in part.slices)
    assert bool(partitions) == any(file.rows for file in files)


@untimed
@given(datasets(), st.integers(4, 500))
def test_without_a_cap_partitions_are_balanced(files: list[SourceFile], target: int) -> None:
    sizes = [part.rows for part in plan_partitions(files, rows_per_partition=target, max_partitions=NO_CAP)]
    assert all(4 * size > target for size in sizes[:-1])
    assert all(4 * size <= 7 * target for size in sizes)


@untimed
@given(datasets(), st.integers(1, 500), st.integers(1, 40))
def test_the_same_files_give_the_same_partitions(files: list[SourceFile], target: int, cap: int) -> None:
    first = plan_partitions(files, rows_per_partition=target, max_partitions=cap)
    assert first == plan_partitions(list(files), rows_per_partition=target, max_partitions=cap)


@untimed
@given(datasets(), st.integers(1, 500))
def test_a_row_group_that_fits_is_never_cut(files: list[SourceFile], target: int) -> None:
    partitions = plan_partitions(files, rows_per_partition=target, max_partitions=NO_CAP)
    cuts = {(s.file, s.start) for part in partitions for s in part.slices}
    for number, file in enumerate(files):
        start = 0
        for group in file.row_groups:
            if 2 * group <= 3 * target:
                assert not any(of == number and start < row < start + group for of, row in cuts)
            start += group


@untimed
@given(datasets(), st.integers(1, 500), st.integers(1, 40))
def test_neighbouring_slices_of_a_file_are_one(files: list[SourceFile], target: int, cap: int) -> None:
    for part in plan_partitions(files, rows_per_partition=target, max_partitions=cap):
        assert not any(a.file == b.file for a, b in pairwise(part.slices))


def test_small_files_are_packed_together() -> None:
    files = [source(n, 10) for n in range(20)]
    partitions = plan_partitions(files, rows_per_partition=100, max_partitions=256)
    assert [(part.rows, len(part.slices)) for part in partitions] == [(100, 10), (100, 10)]


def test_a_huge_file_is_split_between_row_groups() -> None:
    partitions = plan_partitions([source(0, 100, (30, 30, 30, 10))], rows_per_partition=50, max_partitions=256)
    assert [part.slices for part in partitions] == [
        (FileSlice(file=0, start=0, end=60),),
        (FileSlice(file=0, start=60, end=100),),
    ]


@pytest.mark.parametrize("groups", [(1000,), ()])  # one huge row group; a CSV file, which has none
def test_a_huge_row_group_is_cut_into_near_equal_pieces(groups: tuple[int, ...]) -> None:
    partitions = plan_partitions([source(0, 1000, groups)], rows_per_partition=300, max_partitions=256)
    assert [part.rows for part in partitions] == [333, 333, 334]


def test_one_and_a_half_times_the_target_is_not_cut() -> None:
    assert len(plan_partitions([source(0, 150)], rows_per_partition=100, max_partitions=256)) == 1
    assert len(plan_partitions([source(0, 151)], rows_per_partition=100, max_partitions=256)) == 2


def test_the_cap_makes_partitions_grow_evenly() -> None:
    partitions = plan_partitions([source(0, 5_000_000)], rows_per_partition=1_000, max_partitions=256)
    sizes = {part.rows for part in partitions}
    assert len(partitions) == 256
    assert max(sizes) - min(sizes) <= 1


def test_a_small_rest_joins_its_neighbour() -> None:
    files = [source(0, 100), source(1, 100), source(2, 3)]
    assert [part.rows for part in plan_partitions(files, rows_per_partition=100, max_partitions=9)] == [100, 103]


def test_no_row_no_partition() -> None:
    assert plan_partitions([source(0, 0, (0,)), source(1, 0)], rows_per_partition=1, max_partitions=1) == ()


@pytest.mark.parametrize(("target", "cap"), [(0, 1), (1, 0), (-5, 1)])
def test_limits_below_one_are_refused(target: int, cap: int) -> None:
    with pytest.raises(ValueError, match="must be ≥ 1"):
        plan_partitions([source(0, 1)], rows_per_partition=target, max_partitions=cap)
