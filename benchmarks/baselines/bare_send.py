"""Messages into a queue, by tens from several threads, and nothing else: what a hand-written boto3 script does.

``python -m benchmarks.baselines.bare_send ENDPOINT_URL QUEUE FILE``: FILE holds one message body a line.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import boto3
from botocore.config import Config

THREADS = 8
_BATCH = 10
_AHEAD = 100  # batches handed to the threads at a time


def main(endpoint_url: str, queue: str, path: str) -> None:
    """Send every line; one JSON line of what was sent, and how long it took."""
    client = boto3.client(
        "sqs", endpoint_url=endpoint_url, region_name="us-east-1", config=Config(max_pool_connections=THREADS)
    )
    url = client.get_queue_url(QueueName=queue)["QueueUrl"]

    def send(bodies: list[str]) -> int:
        entries = [{"Id": str(number), "MessageBody": body} for number, body in enumerate(bodies)]
        return len(client.send_message_batch(QueueUrl=url, Entries=entries)["Successful"])

    started, sent = time.perf_counter(), 0
    with ThreadPoolExecutor(THREADS) as pool, Path(path).open() as file:
        batches = _batches(file)
        while some := list(islice(batches, _AHEAD)):
            sent += sum(pool.map(send, some))
    print(json.dumps({"sent": sent, "seconds": time.perf_counter() - started}))


def _batches(lines: Iterator[str]) -> Iterator[list[str]]:
    while batch := [line.rstrip("\n") for line in islice(lines, _BATCH)]:
        yield batch


if __name__ == "__main__":
    main(*sys.argv[1:])
