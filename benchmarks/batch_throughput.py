"""Engine throughput with checkpoints on, whole-process wall time and CPU per record, against the hand-written script.

    python -m benchmarks.batch_throughput

Server: 50 ms latency, hard limit of 64 in flight, so 1,280 records/s is ideal. Engine throughput is counted at the
server, from the first request read to the last response written; whole-process figures include the start of Python.
"""

from __future__ import annotations

from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import measure, product
from benchmarks.stub import StubServer


def main(arguments: list[str] | None = None) -> bool:
    """Run the benchmark; whether its claims hold."""
    parser = measure.common_options("Throughput against the hand-written script.", rows=20_000, quick_rows=1_000)
    parser.add_argument("--latency-ms", type=float, default=50.0)
    parser.add_argument("--concurrency", type=int, default=product.CONCURRENCY)
    options = measure.read_options(parser, arguments)
    ideal = options.concurrency / (options.latency_ms / 1000)
    with (
        product.working_folder(options.work) as work,
        StubServer(latency_ms=options.latency_ms, max_in_flight=options.concurrency) as stub,
    ):
        data = product.make_data(work / f"visits-{options.rows}", options.rows)
        runs = [
            _run(side, stub, data, work / f"{side}-{repeat}", options.rows, options.concurrency) | {"repeat": repeat}
            for repeat in range(options.repeats)
            for side in (("product", "script") if repeat % 2 == 0 else ("script", "product"))
        ]
    return measure.report("batch_throughput", vars(options), runs, _claims(runs, ideal))


def _run(side: str, stub: StubServer, data: Path, folder: Path, rows: int, concurrency: int) -> dict[str, Any]:
    stub.reset()
    if side == "product":
        measured = product.Job(folder=folder, data=data, url=stub.url, concurrency=concurrency).run()
    else:
        folder.mkdir(parents=True)
        command = product.script_command(stub.url, data, folder / "out.duckdb", concurrency=concurrency)
        measured = measure.run(command).require_success()
    stats = stub.stats()
    if (stats["distinct"], stats["repeated"]) != (rows, 0):
        raise RuntimeError(f"{side}: {stats['distinct']} of {rows} records called, {stats['repeated']} repeated")
    return {
        "side": side,
        "wall_s": measured.wall_seconds,
        "records_per_s": rows / stats["span_seconds"],
        "cpu_ms_per_record": measured.cpu_seconds / rows * 1000,
        "rss_mib": measured.peak_rss_mib,
        "rejected": sum(n for status, n in stats["statuses"].items() if status != "200"),
        "service_mean_ms": stats["service_ms"]["mean"],
        "service_p99_ms": stats["service_ms"]["p99"],
    }


def _claims(runs: list[dict[str, Any]], ideal: float) -> list[measure.Claim]:
    ours, theirs = ([run for run in runs if run["side"] == side] for side in ("product", "script"))
    rate = median(run["records_per_s"] for run in ours)
    wall = measure.ratio([run["wall_s"] for run in ours], [run["wall_s"] for run in theirs])
    cpu = measure.ratio([run["cpu_ms_per_record"] for run in ours], [run["cpu_ms_per_record"] for run in theirs])
    return [
        measure.Claim(
            what=f"engine records/s over {ideal:.0f} ideal", measured=rate / ideal, limit=0.95, at_most=False
        ),
        measure.Claim(what="whole-process wall, product / script", measured=wall, limit=1.0),
        measure.Claim(what="CPU per record, product / script", measured=cpu, limit=1.2),
        measure.Claim(what="peak RSS, MiB", measured=max(run["rss_mib"] for run in ours), limit=350.0),
    ]


if __name__ == "__main__":
    raise SystemExit(0 if main() else 1)
