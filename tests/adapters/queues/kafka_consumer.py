"""A member of a group in a process of its own: writes a line for every message it has dealt with, then deletes it.

Usage: python -m tests.adapters.queues.kafka_consumer SETTINGS.json OUTPUT DELETES
"""

from __future__ import annotations

import json
import signal
import sys
import threading
from pathlib import Path

from airflow_provider_ai.adapters.queues import open_transport
from airflow_provider_ai.core.transport_settings import TransportSettings


def main(settings: str, output: str, deletes: str) -> None:
    """Until SIGTERM."""
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    transport = open_transport(TransportSettings(**json.loads(Path(settings).read_text())))
    with Path(output).open("ab", buffering=0) as log:
        log.write(b"started\n")
        while not stop.is_set():
            found = transport.requests.receive(most=5, wait_seconds=0.5, visibility_seconds=300)
            for delivery in found:
                log.write(delivery.body + b"\n")
                if deletes == "yes":
                    transport.requests.delete([delivery])
    transport.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
