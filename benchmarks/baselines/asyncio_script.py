"""The script a good data engineer writes by hand: pyarrow, asyncio, aiohttp, DuckDB. No checkpoints.

    python -m benchmarks.baselines.asyncio_script --url http://127.0.0.1:8080/predict --input visits --output out.duckdb

Sixty-four workers share one session and take records from one iterator, so no task per record is made; it retries what
is worth retrying, collects the results in memory and writes them at the end from Arrow. Prints one JSON line.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import resource
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

Record = dict[str, Any]


async def predict(session: aiohttp.ClientSession, url: str, records: list[Record], attempts: int = 5) -> list[Record]:
    """One call with simple retries; the outputs in the order of the records."""
    for attempt in range(attempts):
        try:
            async with session.post(url, json={"model": "m", "inputs": records}) as response:
                response.raise_for_status()
                outputs = (await response.json())["outputs"]
                by_id = {output["id"]: output for output in outputs}
                return [by_id[record["id"]] for record in records]
        except (aiohttp.ClientError, TimeoutError):
            if attempt + 1 == attempts:
                raise
            await asyncio.sleep(random.random() * 0.1 * 2**attempt)
    raise AssertionError("unreachable: the last attempt returns or raises")


async def predict_all(url: str, batches: Iterator[list[Record]], concurrency: int) -> list[Record]:
    """All calls, `concurrency` at a time; outputs in the order in which they came."""
    results: list[Record] = []
    connector = aiohttp.TCPConnector(limit=concurrency)
    timeout = aiohttp.ClientTimeout(total=30)

    async def work(session: aiohttp.ClientSession) -> None:
        for batch in batches:
            results.extend(await predict(session, url, batch))

    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session, asyncio.TaskGroup() as group:
        for _ in range(concurrency):
            group.create_task(work(session))
    return results


def read(path: Path, size: int) -> Iterator[list[Record]]:
    """Records of the dataset in lists of `size`."""
    table = pq.read_table(path, columns=["visit_id", "a", "b"]).rename_columns(["id", "a", "b"])
    for batch in table.to_batches(max_chunksize=size):
        yield batch.to_pylist()


def write(path: Path, results: list[Record]) -> None:
    """One new table with all results."""
    predictions = pa.Table.from_pylist(results)
    with duckdb.connect(str(path)) as connection:
        connection.register("arrived", predictions)
        connection.execute("CREATE OR REPLACE TABLE predictions AS SELECT * FROM arrived")


def main(arguments: list[str] | None = None) -> None:
    """Run the script."""
    started = time.perf_counter()
    parser = argparse.ArgumentParser()
    parser.add_argument("--url", required=True)
    parser.add_argument("--input", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument("--records-per-request", type=int, default=1)
    options = parser.parse_args(arguments)
    batches = read(options.input, options.records_per_request)
    results = asyncio.run(predict_all(options.url, batches, options.concurrency))
    write(options.output, results)
    usage = resource.getrusage(resource.RUSAGE_SELF)
    spent = {"seconds": time.perf_counter() - started, "cpu_seconds": usage.ru_utime + usage.ru_stime}
    print(json.dumps({"records": len(results), **spent}))


if __name__ == "__main__":
    main()
