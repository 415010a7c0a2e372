"""Outcomes survive the way into a checkpoint and back, whatever a model answered."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_ai.core.outcomes import Quarantined, Succeeded, decode_outcome, encode_outcome
from airflow_provider_ai.core.ports import Usage

BIGINT = st.integers(-(2**63), 2**63 - 1)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
VALUES = st.recursive(
    st.none() | st.booleans() | BIGINT | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
RECORDS = st.lists(st.tuples(BIGINT, TEXT, TEXT | BIGINT, st.dictionaries(TEXT, VALUES, max_size=3)), min_size=1)


@given(RECORDS, BIGINT, st.integers(1, 99), st.integers(0, 2**53), st.integers(0, 2**53))
def test_what_succeeded_comes_back(records: list[Any], at: int, attempts: int, prompt: int, completion: int) -> None:
    """Every output a checkpoint may hold, byte for byte the same in meaning."""
    rows, keys, ids, outputs = (list(column) for column in zip(*records, strict=True))
    outcome = Succeeded(
        rows=rows,
        keys=keys,
        ids=ids,
        outputs=outputs,
        inferred_at=at,
        attempts=attempts,
        usage=Usage(prompt_tokens=prompt, completion_tokens=completion),
    )
    assert decode_outcome(encode_outcome(outcome)) == outcome


@given(BIGINT, TEXT, TEXT, st.none() | st.integers(100, 599), st.integers(0, 99), st.integers(0, 99), BIGINT)
def test_what_was_given_up_comes_back(
    row: int, key: str, error_class: str, status: int | None, attempts: int, round_: int, at: int
) -> None:
    """With its reason, status, attempts and round."""
    outcome = Quarantined(
        row=row,
        key=key,
        error_class=error_class,
        status=status,
        attempts=attempts,
        round=round_,
        quarantined_at=at,
    )
    assert decode_outcome(encode_outcome(outcome)) == outcome


@pytest.mark.parametrize(
    ("record_id", "kept"),
    [
        (b"\x00\xff", "00ff"),  # bytes as hex
        (Decimal("1.50"), "1.50"),  # exact, trailing zero included
        (date(2024, 2, 29), "2024-02-29"),  # ISO 8601, as the warehouse casts it back
        (datetime(2024, 2, 29, 1, 2, 3, tzinfo=UTC), "2024-02-29T01:02:03+00:00"),
        (timedelta(seconds=90), "0:01:30"),  # no JSON form: its text
        (UUID(int=7), "00000000-0000-0000-0000-000000000007"),
        (2**64 - 1, 2**64 - 1),  # uint64 columns
    ],
)
def test_ids_of_any_column_type_can_be_kept(record_id: object, kept: object) -> None:
    """An id column of a type JSON does not know must not keep a paid answer out of the checkpoint."""
    outcome = Succeeded(rows=[0], keys=["k"], ids=[record_id], outputs=[{}], inferred_at=0)
    assert list(decode_outcome(encode_outcome(outcome)).ids) == [kept]  # type: ignore[union-attr]
