"""Many writers at once: ``python -m tests.adapters.audit.crowd ORDER`` forks them, each with threads of its own.

Each member prints nothing; with ``kill`` the parent kills each of them at a moment of its own. What is left is in the
store, and in files: a member notes the number of each event in its file once ``append`` has returned.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from airflow_provider_ai.adapters.audit.opening import open_audit_log
from airflow_provider_ai.core.audit_settings import AuditSettings
from tests.adapters.audit.events import ACTOR, event
from tests.support.processes import REPOSITORY, child_environment, wait_until

_fork: Any = multiprocessing.get_context("fork")


def crowd(
    url: str,
    folder: Path,
    heads: Path,
    private: str,
    *,
    seed: int,
    processes: int,
    threads: int,
    events: int,
    kill: bool,
) -> dict[int, set[str]]:
    """Have them write; for each member the references that it was told are durable."""
    order = {
        "url": url,
        "folder": str(folder),
        "heads": str(heads),
        "private": private,
        "seed": seed,
        "processes": processes,
        "threads": threads,
        "events": events,
        "kill": kill,
    }
    done = subprocess.run(
        [sys.executable, "-m", __name__, json.dumps(order)],
        cwd=REPOSITORY,
        env=child_environment(),
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return {
        number: set((folder / str(number)).read_text().split()) if (folder / str(number)).exists() else set()
        for number in range(processes)
    }


def member(order: dict[str, Any], number: int, barrier: Any) -> None:
    """Append events from several threads."""
    settings = AuditSettings(
        store=order["url"],
        hmac_key=b"k" * 32,
        heads=order["heads"],
        signing_key=order["private"],
        timeout_seconds=30.0,
        head_interval_seconds=0.05,
    )
    log = open_audit_log(settings, ACTOR)
    file = os.open(f"{order['folder']}/{number}", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    barrier.wait(60)

    def write(thread: int) -> None:
        for count in range(order["events"]):
            name = f"{number}-{thread}-{count}"
            log.append([event(count, reference=name)])
            os.write(file, f"{name}\n".encode())

    threads = [threading.Thread(target=write, args=(thread,)) for thread in range(order["threads"])]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    log.close()
    os._exit(0)


def _has_text(file: Path) -> bool:
    return file.exists() and file.stat().st_size > 0


def main() -> None:
    """Fork them, and kill them where that is asked for."""
    order = json.loads(sys.argv[1])
    chance = random.Random(order["seed"])
    barrier = _fork.Barrier(order["processes"])
    members = [_fork.Process(target=member, args=(order, number, barrier)) for number in range(order["processes"])]
    for each in members:
        each.start()
    if order["kill"]:
        files = [Path(order["folder"], str(number)) for number in range(order["processes"])]
        wait_until(lambda: all(map(_has_text, files)), deadline_seconds=120, what="each of them writes")
        for each in members:
            time.sleep(chance.uniform(0.0, 0.2))
            os.kill(each.pid, signal.SIGKILL)
    for each in members:
        each.join(200)
    assert order["kill"] or all(each.exitcode == 0 for each in members), [each.exitcode for each in members]


if __name__ == "__main__":
    main()
