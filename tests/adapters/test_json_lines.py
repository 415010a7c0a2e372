"""A file that is there whole or not at all."""

from __future__ import annotations

import json
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from airflow_provider_ai.adapters.json_lines import write_json_lines


def test_rows_are_lines(tmp_path: Path) -> None:
    """In order, in UTF-8, for the user alone."""
    file = tmp_path / "out.jsonl"
    assert write_json_lines(file, [{"a": "é"}, [1], None]) == 3
    assert [json.loads(line) for line in file.read_text("utf-8").splitlines()] == [{"a": "é"}, [1], None]
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_what_fails_in_between_leaves_the_old_file(tmp_path: Path) -> None:
    """And nothing beside it."""
    file = tmp_path / "out.jsonl"
    file.write_text("old\n")

    def rows() -> Iterator[int]:
        yield 1
        raise KeyError

    with pytest.raises(KeyError):
        write_json_lines(file, rows())
    assert file.read_text() == "old\n"
    assert list(tmp_path.iterdir()) == [file]


def test_it_replaces_the_old_file_at_the_end(tmp_path: Path) -> None:
    """Until then readers see the old one."""
    file = tmp_path / "out.jsonl"
    file.write_text("old\n")

    def rows() -> Iterator[int]:
        for n in range(3):
            assert file.read_text() == "old\n"
            yield n

    write_json_lines(file, rows())
    assert file.read_text() == "0\n1\n2\n"
