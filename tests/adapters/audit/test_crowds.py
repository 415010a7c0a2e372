"""Eight processes at once, and processes that are killed: every chain verifies, and what was durable is there."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_ai.core.audit_chain import Row
from tests.adapters.audit.crowd import crowd

Rows = Callable[[], list[Row]]
Verified = Callable[[], Any]


def references(found: list[Row]) -> Counter[str]:
    facts = (json.loads(row.facts) for row in found)
    return Counter(each["reference"] for each in facts if "reference" in each)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "told"
    made.mkdir()
    return made


def test_eight_processes(
    url: str, folder: Path, heads: Path, keys: tuple[str, str], seed: int, rows: Rows, verified: Verified
) -> None:
    """A chain each, without a gap; every event is there once."""
    told = crowd(url, folder, heads, keys[0], seed=seed, processes=8, threads=3, events=25, kill=False)
    found = rows()
    assert references(found) == {f"{n}-{t}-{c}": 1 for n in range(8) for t in range(3) for c in range(25)}
    assert set().union(*told.values()) == set(references(found))
    report, findings = verified()
    assert (findings, report.chains, report.events, report.unsealed) == ([], 8, 8 * 76, 0)


@pytest.mark.fault
def test_killed_writers(
    url: str, folder: Path, heads: Path, keys: tuple[str, str], seed: int, rows: Rows, verified: Verified
) -> None:
    """What a writer was told is durable is in its chain, once; all chains verify, and their ends are unsealed."""
    told = crowd(url, folder, heads, keys[0], seed=seed, processes=4, threads=3, events=100_000, kill=True)
    found = references(rows())
    assert all(told.values())
    assert set(found.values()) == {1}
    assert set().union(*told.values()) <= set(found)
    assert verified()[1] == []
