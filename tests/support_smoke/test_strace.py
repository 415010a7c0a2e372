"""What the fault tests read out of a trace."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.support.strace import last_call


@pytest.mark.parametrize(
    ("trace", "expected"),
    [
        ('7 unlink("a") = 0\n7 unlink("b") = ?\n', 'unlink("b") = ?'),
        ('7 unlink("a" <unfinished ...>\n8 read(3) = 1\n7 <... unlink resumed>) = ?\n', 'unlink("a"'),
        ('7 unlink("a" <unfinished ...>\n7 <... unlink resumed>) = 0\n8 fsync(4) = ? <unavailable>\n', "fsync(4) = ?"),
        ('7 unlink("a") = 0\n7 +++ killed by SIGKILL +++\n', ""),
    ],
    ids=["whole", "in two halves", "another thread's", "none"],
)
def test_the_last_call_of_a_trace(tmp_path: Path, trace: str, expected: str) -> None:
    """The call that never returned, with its arguments."""
    file = tmp_path / "trace"
    file.write_text(trace)
    found = last_call(file)
    assert found.startswith(expected)
    assert bool(found) == bool(expected)
