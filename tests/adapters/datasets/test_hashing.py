"""Equal ids have equal hashes, however they are stored; different ids have different ones."""

from __future__ import annotations

import datetime as dt
import uuid
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_ai.adapters.datasets.hashing import hash_ids
from airflow_provider_ai.exceptions import InputError

KEY = 0x1234_5678_9ABC_DEF0
DAY = dt.date(2024, 1, 1)
NOON = dt.datetime(2024, 1, 1, 12, tzinfo=dt.UTC)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (pa.array([1, -5], pa.int32()), pa.array([1, -5], pa.int64())),
        (pa.array([7], pa.uint8()), pa.array([7], pa.int64())),
        (pa.array([7, -3, 0], pa.int64()), pa.array([7.0, -3.0, -0.0])),
        (pa.array([0.5], pa.float32()), pa.array([0.5], pa.float64())),
        (pa.array(["a", "", "üx"]), pa.array(["a", "", "üx"], pa.large_string())),
        (pa.array(["a", "b", "a"]), pa.array(["a", "b", "a"]).dictionary_encode()),
        (pa.array(["a" * 40]), pa.array(["a" * 40], pa.string_view())),
        (pa.array(["z", "a", "b"])[1:], pa.array(["a", "b"])),  # a slice is its values
        (pa.array([9, 1, 2])[1:], pa.array([1, 2])),
    ],
    ids=lambda array: str(array.type),
)
def test_equal_ids_have_equal_hashes(one: pa.Array, other: pa.Array) -> None:
    assert hash_ids(one, KEY).tolist() == hash_ids(other, KEY).tolist()


@pytest.mark.parametrize(
    "values",
    [
        pa.array(range(-50_000, 50_000)),
        pa.array([n / 8 for n in range(10_000)]),
        pa.array([str(n) for n in range(100_000)]),
        pa.array(["a" * n for n in range(600)]),  # every length, also beyond what is hashed in words
        pa.array(["\x00" * n for n in range(300)]),
        pa.array([b"\x00" * 300 + bytes([n]) for n in range(256)]),
        pa.array([uuid.UUID(int=n).bytes for n in range(1_000)], pa.binary(16)),
        pa.array([DAY + dt.timedelta(days=n) for n in range(1_000)]),
        pa.array([NOON + dt.timedelta(seconds=n) for n in range(1_000)], pa.timestamp("us", "UTC")),
        pa.array([Decimal(n) / 100 for n in range(1_000)], pa.decimal128(10, 2)),
        pa.array([float("inf"), float("-inf"), 1e300, 5e-324, 2.0**63, -(2.0**63), 2.0**62]),
        pa.array([2**63, 2**64 - 1, 0], pa.uint64()),
    ],
    ids=lambda array: f"{array.type}-{len(array)}",
)
def test_different_ids_have_different_hashes(values: pa.Array) -> None:
    assert len(np.unique(hash_ids(values, KEY))) == len(values)


@settings(deadline=None, max_examples=50)  # a busy machine is not a failure
@given(st.lists(st.text(max_size=30), unique=True, max_size=60), st.integers(0, 2**64 - 1))
def test_text_by_chance(texts: list[str], key: int) -> None:
    together = hash_ids(pa.array(texts, pa.string()), key) if texts else np.empty(0)
    alone = [int(hash_ids(pa.array([text]), key)[0]) for text in texts]
    assert together.tolist() == alone
    assert len(set(alone)) == len(texts)


def test_the_key_decides() -> None:
    ids = pa.array(["a", "b" * 300])
    assert not set(hash_ids(ids, KEY).tolist()) & set(hash_ids(ids, KEY + 1).tolist())


def test_uuids_of_an_extension_type() -> None:
    raw = pa.array([uuid.UUID(int=n).bytes for n in range(3)], pa.binary(16))
    assert hash_ids(pa.ExtensionArray.from_storage(pa.uuid(), raw), KEY).tolist() == hash_ids(raw, KEY).tolist()


@pytest.mark.parametrize("values", [[[1]], [{"a": 1}], [True]])
def test_types_that_cannot_be_ids(values: list[Any]) -> None:
    with pytest.raises(InputError, match="an id must be"):
        hash_ids(pa.array(values), KEY)
