"""What a crash costs: `kill -9` at half of the job, run again, and count at the server which records were paid twice.

    python -m benchmarks.batch_resume

The server keeps its counters over both runs. The bound is what was in flight when the process died; the hand-written
script has no checkpoints and pays for everything again.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import measure, product
from benchmarks.stub import StubServer


def main(arguments: list[str] | None = None) -> bool:
    """Run the benchmark; whether its claims hold."""
    parser = measure.common_options("Calls repeated after kill -9 at 50 %.", rows=20_000, quick_rows=2_000)
    parser.add_argument("--latency-ms", type=float, default=50.0)
    parser.add_argument("--records-per-request", type=int, default=1)
    options = measure.read_options(parser, arguments)
    with product.working_folder(options.work) as work, StubServer(latency_ms=options.latency_ms) as stub:
        data = product.make_data(work / f"visits-{options.rows}", options.rows)
        runs = [
            _crash(side, stub, data, work / f"{side}-{repeat}", options.rows, options.records_per_request)
            for repeat in range(options.repeats)
            for side in ("product", "script")
        ]
    return measure.report("batch_resume", vars(options), runs, _claims(runs, options.records_per_request))


def _crash(side: str, stub: StubServer, data: Path, folder: Path, rows: int, per_request: int) -> dict[str, Any]:
    command, warehouse = _command(side, stub, data, folder, per_request)
    stub.reset()
    running = measure.Running(command)
    running.wait_for(partial(_answered, stub, rows // 2), timeout_seconds=600)
    running.kill()
    running.finish()
    at_death = stub.progress()
    again = measure.run(command).require_success()
    stats = stub.stats()
    in_table = product.published(warehouse, "visit_id" if side == "product" else "id")
    if stats["distinct"] != rows or in_table != (rows, rows):
        raise RuntimeError(
            f"{side}: {stats['distinct']} of {rows} records called, {in_table} rows and ids in the table"
        )
    return {
        "side": side,
        "answered_at_kill": at_death["answered"],
        "repeated": stats["repeated"],
        "max_calls_of_one_id": stats["max_calls"],
        "peak_in_flight": stats["peak_in_flight"],
        "second_run_s": again.wall_seconds,
    }


def _answered(stub: StubServer, records: int) -> bool:
    return stub.progress()["answered"] >= records


def _command(side: str, stub: StubServer, data: Path, folder: Path, per_request: int) -> tuple[list[str | Path], Path]:
    if side == "product":
        job = product.Job(folder=folder, data=data, url=stub.url, records_per_request=per_request)
        return job.command(), job.warehouse
    folder.mkdir(parents=True)
    output = folder / "out.duckdb"
    return product.script_command(stub.url, data, output, records_per_request=per_request), output


def _claims(runs: list[dict[str, Any]], per_request: int) -> list[measure.Claim]:
    ours = [run["repeated"] for run in runs if run["side"] == "product"]
    script = median(run["repeated"] for run in runs if run["side"] == "script")
    in_flight = product.CONCURRENCY * per_request
    return [
        measure.Claim(what=f"records called twice, worst (script: {script:.0f})", measured=max(ours), limit=in_flight),
    ]


if __name__ == "__main__":
    raise SystemExit(0 if main() else 1)
