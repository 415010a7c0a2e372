"""dramatiq on SQS with the handler that does nothing. For the environment `.venvs/workers`.

``dramatiq benchmarks.baselines.dramatiq_worker`` works; ``python -m benchmarks.baselines.dramatiq_worker FILE`` turns
the requests in FILE (a JSON object a line) into its messages, a line each. The queue is named by the environment.
"""

from __future__ import annotations

import base64
import json
import os
import sys
from pathlib import Path

import dramatiq
from dramatiq_sqs import SQSBroker

from benchmarks.baselines import noop

dramatiq.set_broker(SQSBroker(visibility_timeout=30))
answer = dramatiq.actor(noop.answer, queue_name=os.environ["BENCHMARK_QUEUE"])


def main(path: str) -> None:
    """Print the messages."""
    for line in Path(path).read_text().splitlines():
        print(base64.b64encode(answer.message(**json.loads(line)).encode()).decode())


if __name__ == "__main__":
    main(*sys.argv[1:])
