"""taskiq on SQS (taskiq-aio-sqs) with the handler that does nothing. For the environment `.venvs/workers`.

``taskiq worker benchmarks.baselines.taskiq_worker:broker`` works; ``python -m benchmarks.baselines.taskiq_worker FILE``
turns the requests in FILE (a JSON object a line) into its messages, a line each. The queue is named by the environment.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any
from uuid import uuid4

from taskiq.message import TaskiqMessage
from taskiq_aio_sqs import SQSBroker

from benchmarks.baselines import noop

broker = SQSBroker(
    os.environ["BENCHMARK_QUEUE"],
    endpoint_url=os.environ["AWS_ENDPOINT_URL"],
    region_name="us-east-1",
    max_number_of_messages=10,  # by default one
    wait_time_seconds=2,
    visibility_timeout=30,
)


@broker.task(task_name="answer")
async def answer(number: int, text: str) -> dict[str, Any]:
    """Answer a request."""
    return noop.answer(number, text)


def main(path: str) -> None:
    """Print the messages."""
    for line in Path(path).read_text().splitlines():
        message = TaskiqMessage(task_id=uuid4().hex, task_name="answer", labels={}, args=[], kwargs=json.loads(line))
        print(broker.formatter.dumps(message).message.decode())


if __name__ == "__main__":
    main(*sys.argv[1:])
