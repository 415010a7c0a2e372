"""What a queue gives a worker that does nothing: receive ten, send ten results, delete ten, from several threads.

``python -m benchmarks.baselines.bare_worker ENDPOINT_URL REQUESTS RESULTS THREADS`` works until it is killed. No store,
no handler, no look into a message: no worker that answers can be faster on this queue with this client.
"""

from __future__ import annotations

import sys
import threading
from typing import Any

import boto3
from botocore.config import Config

_RESULT = (
    '{"id":"' + "0" * 36 + '","type":"ai.job.result","data":{"status":"succeeded","output":{"ok":true}}}' + " " * 200
)


def main(endpoint_url: str, requests: str, results: str, threads: str) -> None:
    """Work in so many threads."""
    config = Config(max_pool_connections=int(threads), parameter_validation=False)
    client = boto3.client("sqs", endpoint_url=endpoint_url, region_name="us-east-1", config=config)
    source, target = (client.get_queue_url(QueueName=name)["QueueUrl"] for name in (requests, results))
    workers = [threading.Thread(target=_work, args=(client, source, target)) for _ in range(int(threads))]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()


def _work(client: Any, source: str, target: str) -> None:
    while True:
        answer = client.receive_message(QueueUrl=source, MaxNumberOfMessages=10, WaitTimeSeconds=2)
        messages = answer.get("Messages", ())
        if not messages:
            continue
        numbered = [(str(number), message) for number, message in enumerate(messages)]
        client.send_message_batch(
            QueueUrl=target, Entries=[{"Id": number, "MessageBody": _RESULT} for number, _ in numbered]
        )
        client.delete_message_batch(
            QueueUrl=source,
            Entries=[{"Id": number, "ReceiptHandle": each["ReceiptHandle"]} for number, each in numbered],
        )


if __name__ == "__main__":
    main(*sys.argv[1:])
