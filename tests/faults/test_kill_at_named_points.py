"""``kill -9`` during each step that changes a checkpoint: the moment is named, and each run is proven to die in it.

Every run resumes what the one before left behind, so each point is also hit with the debris of all earlier ones around.
"""

from __future__ import annotations

import re
import signal

import pytest

from tests.faults.conftest import MakeBatch
from tests.faults.support.batch import Batch
from tests.faults.support.invariants import verify
from tests.faults.support.strace import Tampering, last_call, needs_strace

ROTATE = 40

PLANNING = [
    ("write the manifest", {"call": "fsync", "path": r"manifest\.json", "do": "die"}),
    ("name the manifest", {"call": "rename", "path": r"manifest\.json$", "do": "die"}),
    ("the manifest has its name", {"call": "rename", "path": r"manifest\.json$", "do": "die after"}),
    ("remember the plan", {"call": "rename", "path": r"plans/\w+\.json$", "do": "die"}),
    ("the plan is remembered", {"call": "rename", "path": r"plans/\w+\.json$", "do": "die after"}),
]
LOGGING = [
    ("a log has just been created", {"call": "fsync", "path": r"/p00000$", "do": "die"}),
    ("before an append", {"call": "write", "path": r"p00000/.*\.wal$", "nth": 7, "do": "die"}),
    ("half an append", {"call": "write", "path": r"p00000/.*\.wal$", "nth": 9, "do": "die half"}),
    ("after an append", {"call": "write", "path": r"p00000/.*\.wal$", "nth": 2, "do": "die after"}),
    ("fsync of the log", {"call": "fsync", "path": r"\.wal$", "do": "die"}),
    ("the log is synced", {"call": "fsync", "path": r"\.wal$", "do": "die after"}),
]
SEALING = [
    ("a segment is in its temporary file", {"call": "fsync", "path": r"good-.*\.tmp$", "do": "die"}),
    ("name a segment", {"call": "rename", "path": r"good-.*\.arrow$", "do": "die"}),
    ("a segment has its name", {"call": "rename", "path": r"good-.*\.arrow$", "do": "die after"}),
    ("delete a log that a segment replaces", {"call": "unlink", "path": r"\.wal$", "do": "die"}),
    ("one of the logs is deleted", {"call": "unlink", "path": r"\.wal$", "do": "die after"}),
    ("the second segment", {"call": "rename", "path": r"good-.*\.arrow$", "nth": 2, "do": "die"}),
    ("write a partition's seal", {"call": "fsync", "path": r"done-000\.json", "do": "die"}),
    ("name a partition's seal", {"call": "rename", "path": r"done-000\.json$", "do": "die"}),
    ("a partition is sealed", {"call": "rename", "path": r"done-000\.json$", "do": "die after"}),
    ("the last partition is sealed", {"call": "rename", "path": r"p00003/done-000\.json$", "do": "die after"}),
]
ENDING = [
    ("call the plan complete", {"call": "rename", "path": r"plans/\w+\.json$", "nth": 2, "do": "die"}),
    ("the plan is complete", {"call": "rename", "path": r"plans/\w+\.json$", "nth": 2, "do": "die after"}),
]


@pytest.mark.parametrize(
    ("points", "latency_ms", "rotate"),
    [
        pytest.param(PLANNING, 1.0, None, id="plan"),
        pytest.param(LOGGING, 40.0, None, id="log"),  # slow, so that a partition outlives a sync
        pytest.param(SEALING, 5.0, None, id="seal"),
        pytest.param(SEALING, 40.0, ROTATE, id="seal, with logs that rotate"),
        pytest.param(ENDING, 1.0, None, id="end"),
    ],
)
def test_killed_while_it(make_batch: MakeBatch, points: list, latency_ms: float, rotate: int | None) -> None:
    """Each kill costs at most what was in flight, wherever it strikes."""
    batch = make_batch(rows=800, latency_ms=latency_ms, interval_seconds=0.1)
    for name, rule in points:
        _die(batch, name, rule, rotate)
    batch.run()
    verify(batch, repeated=len(points) * batch.in_flight)


def _die(batch: Batch, name: str, rule: dict, rotate: int | None) -> None:
    end = batch.start(faults={"rules": [rule], "rotate_records": rotate}).wait()
    assert end.code == -signal.SIGKILL, f"it never came to: {name}\n{end.stderr}"


SYSTEM_CALLS = [  # counted per thread: only the checkpoint thread names more than two files
    ("rename", 1, r"manifest\.json"),
    ("rename", 3, r"p00001/good-"),
    ("rename", 2, r"p00001/done-000\.json"),
    ("unlink", 1, r"p00001/done-000\.json\..*\.tmp"),  # what the killed run was writing
    ("unlink", 1, r"p00002/log-.*\.wal"),
    ("unlink", 1, r"p00002/log-.*\.wal"),  # by the resume, which finds it replaced
    ("rename", 3, r"p00003/(good-|done-000\.json)"),  # good- when the killed run had begun the partition
    ("rename", 2, r"plans/\w+\.json|p00003/done-000\.json"),  # the seal when the killed run had a segment to name
]


@needs_strace
def test_the_command_itself_killed_at_a_system_call(make_batch: MakeBatch) -> None:
    """The unchanged command line, killed by the kernel as it enters rename(2) or unlink(2) of a checkpoint file."""
    batch = make_batch(rows=800, latency_ms=5)
    for number, (call, when, path) in enumerate(SYSTEM_CALLS):
        trace = batch.folder / f"trace-{number}"
        for litter in batch.files("*.tmp") if "tmp" not in path else ():
            litter.unlink()  # or removing it would be the first unlink
        end = batch.start(under=Tampering(calls=call, fault="signal=KILL", when=str(when)).command(trace)).wait()
        assert end.code == -signal.SIGKILL, f"it never came to {call} of {path}\n{end.stderr}"
        assert re.search(path, last_call(trace))
    batch.run()
    verify(batch, repeated=len(SYSTEM_CALLS) * batch.in_flight)
