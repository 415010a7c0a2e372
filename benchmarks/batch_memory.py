"""Peak memory must follow the settings, not the input: 20,000 and 5,000,000 records under one limit.

    python -m benchmarks.batch_memory

The small job calls record by record at 50 ms; the large one sends 64 records a request to a server without latency.
The script's figure is shown beside it: it holds everything in memory.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks import measure, product
from benchmarks.stub import StubServer

SMALL = 20_000


def main(arguments: list[str] | None = None) -> bool:
    """Run the benchmark; whether its claims hold."""
    parser = measure.common_options("Peak RSS of a small and a large job.", rows=5_000_000, quick_rows=100_000)
    parser.add_argument("--no-script", action="store_true", help="leave the hand-written script out")
    parser.set_defaults(repeats=1)
    options = measure.read_options(parser, arguments)
    sides = ["product"] if options.no_script else ["product", "script"]
    with product.working_folder(options.work) as work:
        runs = [
            _run(side, work, rows, per_request, latency_ms) | {"repeat": repeat}
            for repeat in range(options.repeats)
            for rows, per_request, latency_ms in ((SMALL, 1, 50.0), (options.rows, 64, 0.0))
            for side in sides
        ]
    return measure.report("batch_memory", vars(options), runs, _claims(runs))


def _run(side: str, work: Path, rows: int, per_request: int, latency_ms: float) -> dict[str, Any]:
    data = product.make_data(work / f"visits-{rows}", rows, rows_per_group=100_000)
    with (
        StubServer(latency_ms=latency_ms, count_ids="bitmap", max_id=rows) as stub,
        product.working_folder(None) as folder,
    ):
        if side == "product":
            measured = product.Job(folder=folder, data=data, url=stub.url, records_per_request=per_request).run()
        else:
            output = folder / "out.duckdb"
            command = product.script_command(stub.url, data, output, records_per_request=per_request)
            measured = measure.run(command).require_success()
        stats = stub.stats()
    if (stats["distinct"], stats["repeated"]) != (rows, 0):
        raise RuntimeError(f"{side}: {stats['distinct']} of {rows} records called, {stats['repeated']} repeated")
    return {
        "side": side,
        "rows": rows,
        "records_per_request": per_request,
        "rss_mib": measured.rss_mib,
        "tree_rss_mib": measured.tree_rss_mib,
        "wall_s": measured.wall_seconds,
        "cpu_us_per_record": measured.cpu_seconds / rows * 1e6,
        "server_cpu_s": stats["cpu_seconds"],
    }


def _claims(runs: list[dict[str, Any]]) -> list[measure.Claim]:
    sizes = sorted({run["rows"] for run in runs})
    peaks = {
        rows: max(max(run["rss_mib"], run["tree_rss_mib"]) for run in runs if _is_ours(run) and run["rows"] == rows)
        for rows in sizes
    }
    return [measure.Claim(what=f"peak RSS of {rows} records, MiB", measured=peaks[rows], limit=350.0) for rows in sizes]


def _is_ours(run: dict[str, Any]) -> bool:
    return bool(run["side"] == "product")


if __name__ == "__main__":
    raise SystemExit(0 if main() else 1)
