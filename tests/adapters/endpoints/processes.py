"""Programs that are to end while something of theirs still hangs."""

from __future__ import annotations

import subprocess
import time

EXIT_SECONDS = 2.0  # what hangs does so for 20 s and more; how soon exactly is for benchmarks/sync_hangs.py to say
RUNS = 5


def run_to_its_end(*command: str) -> tuple[str, float]:
    """What a process prints before its last line, and the seconds from that line to its end.

    The least of a few runs: a busy machine is late now and then, what holds the end holds it always.
    """
    ends: list[tuple[float, str]] = []
    while len(ends) < RUNS and (not ends or min(ends)[0] >= EXIT_SECONDS):
        done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
        ended = time.monotonic()
        *said, finished = done.stdout.splitlines()
        ends.append((ended - float(finished), "\n".join(said)))
    seconds, words = min(ends)
    return words, seconds
