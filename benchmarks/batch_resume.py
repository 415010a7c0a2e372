"""What a crash costs: `kill -9` at half of the job, run again, and count at the server which records were paid twice.

    python -m benchmarks.batch_resume

The server keeps its counters over both runs. The bound is what was in flight when the process died; with checkpoints on
S3 also what one interval finished, because nothing is safe before it is uploaded. The hand-written script has no
checkpoints and pays for everything again.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import measure, product
from benchmarks.stub import StubServer
from tests.support.ministack import MiniStack, ministack

LOCAL, S3, SCRIPT = "product", "product, S3", "script"
INTERVAL_SECONDS = 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Side:
    """What is run twice, and where its rows end up: ``key`` is the id's column."""

    command: list[str | Path]
    warehouse: Path
    key: str
    environment: dict[str, str] = field(default_factory=dict)


def main(arguments: list[str] | None = None) -> bool:
    """Run the benchmark; whether its claims hold."""
    parser = measure.common_options("Calls repeated after kill -9 at 50 %.", rows=20_000, quick_rows=2_000)
    parser.add_argument("--latency-ms", type=float, default=50.0)
    parser.add_argument("--records-per-request", type=int, default=1)
    options = measure.read_options(parser, arguments)
    with (
        product.working_folder(options.work) as work,
        StubServer(latency_ms=options.latency_ms) as stub,
        ministack(services="s3") as s3,
    ):
        data = product.make_data(work / f"visits-{options.rows}", options.rows)
        runs = []
        for repeat in range(options.repeats):
            for name in (LOCAL, S3, SCRIPT):
                side = _side(name, stub, s3, data, work / f"{name}-{repeat}", options.records_per_request)
                runs.append({"side": name} | _crash(side, stub, options.rows))
    interval = product.CONCURRENCY / (options.latency_ms / 1000) * INTERVAL_SECONDS
    return measure.report("batch_resume", vars(options), runs, _claims(runs, options.records_per_request, interval))


def _crash(side: Side, stub: StubServer, rows: int) -> dict[str, Any]:
    stub.reset()
    running = measure.Running(side.command, env=side.environment)
    running.wait_for(partial(_answered, stub, rows // 2), timeout_seconds=600)
    running.kill()
    running.finish()
    at_death = stub.progress()
    again = measure.run(side.command, env=side.environment).require_success()
    stats = stub.stats()
    in_table = product.published(side.warehouse, side.key)
    if stats["distinct"] != rows or in_table != (rows, rows):
        raise RuntimeError(f"{stats['distinct']} of {rows} records called, {in_table} rows and ids in the table")
    return {
        "answered_at_kill": at_death["answered"],
        "repeated": stats["repeated"],
        "max_calls_of_one_id": stats["max_calls"],
        "peak_in_flight": stats["peak_in_flight"],
        "second_run_s": again.wall_seconds,
    }


def _answered(stub: StubServer, records: int) -> bool:
    return stub.progress()["answered"] >= records


def _side(name: str, stub: StubServer, s3: MiniStack, data: Path, folder: Path, per_request: int) -> Side:
    if name == SCRIPT:
        folder.mkdir(parents=True)
        output = folder / "out.duckdb"
        command = product.script_command(stub.url, data, output, records_per_request=per_request)
        return Side(command=command, warehouse=output, key="id")
    job = product.Job(folder=folder, data=data, url=stub.url, records_per_request=per_request)
    if name == S3:
        job = replace(job, checkpoint_uri=f"s3://{s3.make_bucket()}/checkpoints")
    environment = s3.environment() if name == S3 else {}
    return Side(command=job.command(), warehouse=job.warehouse, key="visit_id", environment=environment)


def _claims(runs: list[dict[str, Any]], per_request: int, interval: float) -> list[measure.Claim]:
    repeated = {name: [run["repeated"] for run in runs if run["side"] == name] for name in (LOCAL, S3, SCRIPT)}
    in_flight = product.CONCURRENCY * per_request
    script = median(repeated[SCRIPT])
    return [
        measure.Claim(
            what=f"called twice, worst (script: {script:.0f})", measured=max(repeated[LOCAL]), limit=in_flight
        ),
        measure.Claim(
            what="called twice, worst, S3", measured=max(repeated[S3]), limit=in_flight + interval * per_request
        ),
    ]


if __name__ == "__main__":
    raise SystemExit(0 if main() else 1)
