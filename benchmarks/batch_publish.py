"""Publishing speed: rows/s from checkpoints into the warehouse, against a bare load of the very same rows.

    python -m benchmarks.batch_publish --sink duckdb
    python -m benchmarks.batch_publish --sink postgresql

The job is run once. Each repeat then points it at an empty warehouse: nothing is left to call, so the run publishes and
no more. What such a run costs without publishing is measured by running it once again, and is subtracted. The bare
side loads the published rows, provenance columns included, from Arrow: DuckDB insert, PostgreSQL COPY by ADBC and by
psycopg, whichever is faster.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import measure, product
from benchmarks.stub import StubServer
from tests.support.postgres import postgres_server


def main(arguments: list[str] | None = None) -> bool:
    """Run the benchmark; whether its claims hold."""
    parser = measure.common_options("Publish rows/s against a bare load.", rows=1_000_000, quick_rows=50_000)
    parser.add_argument("--sink", choices=("duckdb", "postgresql"), default="duckdb")
    options = measure.read_options(parser, arguments)
    with (
        product.working_folder(options.work) as work,
        StubServer(latency_ms=0, count_ids="off") as stub,
        _warehouses(options.sink, work) as new_warehouse,
    ):
        data = product.make_data(work / f"visits-{options.rows}", options.rows, rows_per_group=100_000)
        job = product.Job(folder=work / "job", data=data, url=stub.url, records_per_request=64)
        job.run()
        rows = _export(job.warehouse, work / "rows.parquet")
        runs: list[dict[str, Any]] = []
        for _ in range(options.repeats):
            stub.reset()
            runs.append(_publish(replace(job, sink_url=new_warehouse()), options.rows))
            if called := stub.stats()["requests"]:
                raise RuntimeError(f"publishing called the model {called} times")
            runs.append(_load(rows, new_warehouse()))
    return measure.report(f"batch_publish_{options.sink}", vars(options), runs, _claims(runs))


def _publish(job: product.Job, rows: int) -> dict[str, Any]:
    publishing, idle = job.run(), job.run()
    return _row("product", "publish", rows, publishing.wall_seconds - idle.wall_seconds, publishing)


def _load(rows: Path, url: str) -> dict[str, Any]:
    flags: list[str | Path] = ["--input", rows, "--target", url]
    command = [sys.executable, "-m", "benchmarks.baselines.bare_copy", *flags]
    measured = measure.run(command).require_success()
    fastest = min(measured.last_json()["loads"], key=lambda load: float(load["seconds"]))
    return _row("bare", fastest["method"], fastest["rows"], fastest["seconds"], measured)


def _row(side: str, method: str, rows: int, seconds: float, measured: measure.Measured) -> dict[str, Any]:
    rates = {"seconds": seconds, "rows_per_s": rows / seconds}
    return {"side": side, "method": method, "rows": rows, **rates, "rss_mib": measured.peak_rss_mib}


def _export(warehouse: Path, target: Path) -> Path:
    """The published rows as parquet, written in a subprocess (see `measure`)."""
    code = "import duckdb, sys; duckdb.connect(sys.argv[1]).execute(sys.argv[2])"
    query = f"COPY {product.TABLE} TO '{target}' (FORMAT parquet)"
    measure.run([sys.executable, "-c", code, warehouse, query]).require_success()
    return target


@contextmanager
def _warehouses(sink: str, work: Path) -> Iterator[Callable[[], str]]:
    """A function that gives the URL of one empty warehouse after the other."""
    if sink == "duckdb":
        numbers = iter(range(sys.maxsize))
        yield lambda: f"duckdb:///{work}/warehouse-{next(numbers)}.duckdb"
        return
    with postgres_server(durable=True) as server:
        yield lambda: server.url(server.create_database("publish"))


def _claims(runs: list[dict[str, Any]]) -> list[measure.Claim]:
    ours, bare = (median(run["rows_per_s"] for run in runs if run["side"] == side) for side in ("product", "bare"))
    what = f"publish rows/s over a bare load's {bare:.0f}"
    return [measure.Claim(what=what, measured=ours / bare, limit=0.6, at_most=False)]


if __name__ == "__main__":
    raise SystemExit(0 if main() else 1)
