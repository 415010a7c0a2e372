"""A runtime that carries out nothing: it reports a little progress and ends as it was told to.

As a program it is ``airflow-ai`` on this runtime: ``python -m tests.cli.fake_runtime ENDING batch run SPEC.toml``.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from airflow_provider_ai.cli import main
from airflow_provider_ai.core.report import (
    BatchReport,
    BatchStatus,
    PartitionStatus,
    Progress,
    QuarantineReason,
    StopToken,
)
from airflow_provider_ai.exceptions import (
    AIProviderError,
    DuplicateIdError,
    EndpointUnavailableError,
    QuarantineThresholdError,
    SinkUnavailableError,
    SpecError,
    StoppedError,
)

REPORT = BatchReport(records=100, succeeded=97, quarantined=3, requests=120, reused=0, published=97, seconds=1.23456)
UNTOLD = "visit 4711 has a secret"
GIVE_UP_SECONDS = 30.0

ERRORS: dict[str, Exception] = {
    "input": DuplicateIdError("two rows of visits.parquet share an id"),
    "endpoint": EndpointUnavailableError("the endpoint stayed down for 300 s"),
    "sink": SinkUnavailableError("the warehouse is down"),
    "threshold": QuarantineThresholdError("3 of 100 records failed, 1 is allowed"),
    "spec": SpecError("the table has another schema"),
    "crash": KeyError(UNTOLD),
}


def status() -> BatchStatus:
    """A batch of two partitions, one of them finished."""
    done = PartitionStatus(index=0, label="visits/00000", rows=60, succeeded=57, quarantined=3, published=True)
    begun = PartitionStatus(index=1, label="visits/00001", rows=40, succeeded=10, quarantined=0, published=False)
    reasons = (
        QuarantineReason(error_class="rejected", status=400, count=2),
        QuarantineReason(error_class="unrenderable", status=None, count=1),
    )
    return BatchStatus(plan="unfinished", input_changed=True, partitions=(done, begun), quarantine=reasons)


@dataclass
class FakeRuntime:
    """``ending``: ``complete``, ``wait`` (until it is stopped) or a key of ERRORS. Remembers what it was given."""

    ending: str = "complete"
    jobs: list[dict[str, Any]] = field(default_factory=list)
    verbs: list[str] = field(default_factory=list)

    def BatchJob(self, **settings: Any) -> dict[str, Any]:
        """The settings, kept."""
        self.jobs.append(settings)
        return settings

    def run_batch(
        self, job: Any, *, verb: str, on_progress: Callable[[Progress], None], stop: StopToken
    ) -> BatchReport:
        """Report progress, then end."""
        self.verbs.append(verb)
        for done in (0, 50, 100):
            on_progress(Progress(phase="infer", done=done, quarantined=3, total=100, records_per_second=81.0))
        if self.ending == "wait":
            raise _with_report(_stopped(stop))
        if self.ending in ERRORS:
            raise _with_report(ERRORS[self.ending])
        return REPORT

    def batch_status(self, job: Any) -> BatchStatus:
        """The same for every job, unless it is to fail."""
        if self.ending in ERRORS:
            raise ERRORS[self.ending]
        return status()


def _with_report(error: Exception) -> Exception:
    if isinstance(error, AIProviderError):
        error.report = REPORT
    return error


def _stopped(stop: StopToken) -> StoppedError:
    print("waiting", file=sys.stderr, flush=True)
    until = time.monotonic() + GIVE_UP_SECONDS
    while not stop.stopped and time.monotonic() < until:
        time.sleep(0.01)
    return StoppedError(f"stopped by {stop.reason or 'nobody'}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[2:], runtime=FakeRuntime(sys.argv[1])))
