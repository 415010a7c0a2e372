"""Publishers killed by the kernel as they enter a system call: ``python -m tests.faults.support.forks``, under strace.

Python and its libraries take a second to start, so the publishers are forked from a process that has them. strace
counts the calls of each by itself, and kills at number :data:`STRIKE` of every kind: a publisher first makes as many
calls without effect as it takes for the one it is to die in to have that number.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tests.support.processes import REPOSITORY, child_environment

STRIKE = 200
_NO_FILE = 1 << 20
_IDLE: dict[str, Callable[[], object]] = {
    "pwrite64": partial(os.pwrite, _NO_FILE, b"", 0),
    "write": partial(os.write, _NO_FILE, b""),
    "fdatasync": partial(os.fdatasync, _NO_FILE),
    "ftruncate": partial(os.ftruncate, _NO_FILE, 0),
    "link": partial(os.link, "", ""),
    "unlink": partial(os.unlink, ""),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """The ``nth`` call of a kind that a publisher makes; ``file`` is the name of the one it touches."""

    call: str
    nth: int
    file: str


def points(url: str, trace: Path) -> list[Point]:
    """Publish into this warehouse unharmed; every call that touches its folder, in order."""
    _run([(url, None)], trace, kill=False)
    seen: Counter[tuple[str, str]] = Counter()
    found = []
    folder = re.escape(str(_folder(url)))
    for line in trace.read_text(errors="replace").splitlines():
        if call := re.match(r"(\d+) +(\w+)\(", line):
            seen[call[1], call[2]] += 1
            if file := re.search(rf"{folder}/([^>\"]+)[>\"]", line):
                found.append(Point(call=call[2], nth=seen[call[1], call[2]], file=file[1]))
    return found


def die(deaths: Sequence[tuple[str, Point]], trace: Path) -> None:
    """Publish into each warehouse and die at its point; AssertionError unless every death was the kernel's."""
    _run(deaths, trace, kill=True)
    lines = trace.read_text(errors="replace").splitlines()
    struck = [line for line in lines if line.endswith(("= ?", "<unavailable>"))]
    for url, point in deaths:
        there = any(f" {point.call}(" in line and f"{_folder(url)}/" in line for line in struck)
        assert there, f"it never came to {point}"


def _run(deaths: Sequence[tuple[str, Point | None]], trace: Path, *, kill: bool) -> None:
    calls = ",".join(_IDLE)
    inject = ["-e", f"inject={calls}:signal=KILL:when={STRIKE}"] if kill else []
    traced = ["strace", "-f", "-y", "-qq", "-e", "signal=none", "-e", f"trace={calls}", *inject]
    orders = json.dumps([[url, point and [point.call, point.nth]] for url, point in deaths])
    command = [*traced, "-o", str(trace), sys.executable, "-m", __name__, orders]
    subprocess.run(command, check=True, cwd=REPOSITORY, env=child_environment(), timeout=120)


def _folder(url: str) -> Path:
    return Path(url.partition(":///")[2]).parent


def _publisher(url: str, order: list[Any] | None, publish: Callable[[str], object]) -> None:
    if order is not None:
        call, nth = order
        for _ in range(STRIKE - nth):
            with suppress(OSError):
                _IDLE[call]()
    # strace counts per thread, and DuckDB would share its calls out among several.
    publish(f"{url}?threads=1" if url.startswith("duckdb:") else url)


def _main(orders: list[tuple[str, list[Any] | None]]) -> None:
    from tests.adapters.sinks import warehouses

    for url, order in orders:
        if (child := os.fork()) == 0:
            _publisher(url, order, warehouses.publish_both)
            os._exit(0)
        os.waitpid(child, 0)


if __name__ == "__main__":
    _main(json.loads(sys.argv[1]))
