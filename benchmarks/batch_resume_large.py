"""How soon a nearly finished large job goes on: 5,000,000 rows, killed at 99 %, timed to its first call.

    python -m benchmarks.batch_resume_large

The job is run and killed once; every repeat resumes a copy of what it left behind. The time runs from just before the
process is started to the server having read the first request, on the one monotonic clock of the machine. The last
repeat runs to its end, and the records called twice are counted over both runs.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import measure, product
from benchmarks.stub import StubServer

PER_REQUEST = 64


def main(arguments: list[str] | None = None) -> bool:
    """Run the benchmark; whether its claims hold."""
    parser = measure.common_options("Time to first call of a 99 %-done job.", rows=5_000_000, quick_rows=200_000)
    options = measure.read_options(parser, arguments)
    with (
        product.working_folder(options.work) as work,
        StubServer(latency_ms=0, count_ids="bitmap", max_id=options.rows) as stub,
    ):
        data = product.make_data(work / f"visits-{options.rows}", options.rows, rows_per_group=100_000)
        job = product.Job(folder=work / "killed", data=data, url=stub.url, records_per_request=PER_REQUEST)
        killed = _kill_at(job, stub, int(options.rows * 0.99))
        runs = [_resume(job, stub, work / f"copy-{repeat}") for repeat in range(options.repeats - 1)]
        runs.append(_resume(job, stub, work / "copy-last", to_the_end=True))
    repeated = killed["records"] + runs[-1]["records"] - options.rows
    return measure.report("batch_resume_large", vars(options), runs, _claims(runs, repeated))


def _kill_at(job: product.Job, stub: StubServer, records: int) -> dict[str, Any]:
    shutil.rmtree(job.folder, ignore_errors=True)
    running = job.start()
    running.wait_for(partial(_reached, stub, "answered", records), timeout_seconds=3600)
    running.kill()
    running.finish()
    return stub.stats()


def _resume(job: product.Job, stub: StubServer, folder: Path, *, to_the_end: bool = False) -> dict[str, Any]:
    shutil.copytree(job.folder, folder)
    stub.reset()
    running = replace(job, folder=folder).start("--resume")
    if not to_the_end:
        running.wait_for(partial(_reached, stub, "requests", 1), timeout_seconds=600)
        running.kill()
    measured = running.finish()
    if to_the_end:
        measured.require_success()
    stats = stub.stats()
    shutil.rmtree(folder)
    return {
        "first_call_s": stats["first_read_monotonic"] - measured.started,
        "records": stats["records"],
        "wall_s": measured.wall_seconds,
        "rss_mib": measured.peak_rss_mib,
    }


def _reached(stub: StubServer, counter: str, wanted: int) -> bool:
    return stub.progress()[counter] >= wanted


def _claims(runs: list[dict[str, Any]], repeated: int) -> list[measure.Claim]:
    slowest = max(run["first_call_s"] for run in runs)
    in_flight = product.CONCURRENCY * PER_REQUEST
    return [
        measure.Claim(what="process start to first call, slowest, s", measured=slowest, limit=3.0),
        measure.Claim(what="records called twice", measured=repeated, limit=in_flight),
    ]


if __name__ == "__main__":
    raise SystemExit(0 if main() else 1)
