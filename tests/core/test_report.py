"""What a batch says of itself, and how it is asked to stop."""

from __future__ import annotations

import json
import sys
import threading
import time
from types import FrameType
from typing import Any

import pytest

from airflow_provider_ai.core.report import (
    BatchStatus,
    PartitionReport,
    PartitionStatus,
    PlanReference,
    Progress,
    StopToken,
)

PLAN = PlanReference(
    run="r", directory="s3://b/c/k", fingerprint="f", epoch=1, round=2, scope="s-1", partitions=3, rows=10
)


def test_a_plan_reference_crosses_xcom() -> None:
    """Plain JSON there and back; an unknown key is not swallowed."""
    assert PlanReference.from_dict(json.loads(json.dumps(PLAN.to_dict()))) == PLAN
    with pytest.raises(TypeError):
        PlanReference.from_dict({**PLAN.to_dict(), "extra": 1})
    with pytest.raises(TypeError):
        PlanReference.from_dict({"run": "r"})


def test_progress_is_rounded_for_people_and_json_able() -> None:
    """It is shown in Airflow's UI."""
    body = Progress(
        phase="infer", done=5, quarantined=1, total=10, records_per_second=1.25, eta_seconds=3.7, cost_usd=0.12345678
    ).to_dict()
    assert json.loads(json.dumps(body)) == body
    assert (body["records_per_second"], body["eta_seconds"], body["cost_usd"]) == (1.2, 4, 0.123457)
    assert Progress(phase="plan", done=0, quarantined=0, total=0).to_dict()["eta_seconds"] is None


def test_what_is_pending_is_what_a_resume_calls() -> None:
    """succeeded + quarantined + pending = rows, per partition and over all."""
    report = PartitionReport(index=0, rows=10, succeeded=6, quarantined=1, requests=9, reused=2, seconds=1.0)
    assert report.pending == 3
    parts = tuple(
        PartitionStatus(index=i, label=f"p{i}", rows=10, succeeded=6, quarantined=i, published=False) for i in range(2)
    )
    status = BatchStatus(plan="unfinished", input_changed=False, partitions=parts, quarantine=())
    assert [part.pending for part in parts] == [4, 3]
    assert (status.records, status.would_call) == (20, 7)


def test_the_first_reason_to_stop_stays() -> None:
    """A second signal does not rewrite why the run ended."""
    token = StopToken()
    assert (token.stopped, token.reason, token.wait(0.0)) == (False, "", False)
    token.stop("SIGTERM")
    token.stop("SIGINT")
    assert (token.stopped, token.reason) == (True, "SIGTERM")


def test_every_waiting_thread_is_woken() -> None:
    """At once, and whoever waits later does not wait at all."""
    token = StopToken()
    results: list[bool] = []
    threads = [threading.Thread(target=lambda: results.append(token.wait(60.0))) for _ in range(4)]
    started = time.monotonic()
    for thread in threads:
        thread.start()
    token.stop("SIGTERM")
    for thread in threads:
        thread.join(30.0)
    assert results == [True] * 4
    assert token.wait(60.0)
    assert time.monotonic() - started < 30.0


def interrupted_at(line: int, seen: list[int]) -> None:
    """Wait on a token and stop it at the n-th line that runs meanwhile, as a signal handler would. Notes every line."""
    token = StopToken()

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        if event == "line":
            seen.append(frame.f_lineno)
            if len(seen) == line:
                sys.settrace(None)
                token.stop("SIGTERM")
        return trace

    sys.settrace(trace)
    try:
        token.wait(0.001)
    finally:
        sys.settrace(None)


def test_a_signal_handler_may_stop_at_any_moment_of_a_wait() -> None:
    """It runs in the thread that waits, between any two lines of the wait: a lock held there must not block it."""
    for line in range(1, 100):
        seen: list[int] = []
        thread = threading.Thread(target=interrupted_at, args=(line, seen), daemon=True)
        thread.start()
        thread.join(10.0)
        assert not thread.is_alive(), f"stop() is stuck when called at line {line} of wait()"
        if len(seen) < line:
            break
    assert line > 3, "the wait was never interrupted"
