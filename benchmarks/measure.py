"""Runs commands and says what they cost: wall seconds, CPU seconds, peak memory. Medians, ratios, tables, JSON.

Invariants:
- CPU seconds are user + system of the command and of every descendant it waited for, from wait4.
- Peak RSS is the larger of two figures: `ru_maxrss`, and the sum over the process tree sampled every 50 ms. Linux lets
  a child inherit the `ru_maxrss` of the process that started it, so a benchmark keeps itself small: it imports no
  pyarrow or pandas, and generates data and reads tables in subprocesses. A figure that could be its own is not used.
- A command runs in its own session, and what is left of it is killed by its process group before its id is released.
- Ratios compare sides measured alternately in one run, on the same machine within the same minutes.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import IO, Any

ROOT = Path(__file__).resolve().parent.parent
_MIB = 1024 * 1024
_SAMPLE_SECONDS = 0.05


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """What one command did and cost.

    Args:
        exit_code: negative for a signal, as subprocess has it.
        started: monotonic time just before the process was started.
        wall_seconds, cpu_seconds: from start to end; user + system, descendants included.
        rss_mib: peak of the command's own process as the kernel kept it.
        tree_rss_mib: peak of the sum over its process tree, sampled (shared pages count in each process).
        stdout, stderr: complete.
    """

    exit_code: int
    started: float
    wall_seconds: float
    cpu_seconds: float
    rss_mib: float
    tree_rss_mib: float
    stdout: str
    stderr: str

    @property
    def peak_rss_mib(self) -> float:
        """The larger of the two memory figures."""
        return max(self.rss_mib, self.tree_rss_mib)

    def last_json(self) -> dict[str, Any]:
        """The JSON object on the last line of stdout. Raises RuntimeError with the end of stderr without one."""
        lines = self.stdout.strip().splitlines()
        try:
            return dict(json.loads(lines[-1]))
        except (IndexError, ValueError):
            raise RuntimeError(f"no JSON on the last line of stdout; {self.failure()}") from None

    def require_success(self) -> Measured:
        """This, or RuntimeError with the end of stderr when the command failed."""
        if self.exit_code:
            raise RuntimeError(self.failure())
        return self

    def failure(self) -> str:
        """Exit code and the end of stderr."""
        return f"exit code {self.exit_code}, stderr ends: {self.stderr.strip()[-2000:]}"


class Running:
    """A started command that can be killed with its whole process group and is measured to its end."""

    def __init__(
        self, command: Sequence[str | Path], *, cwd: Path = ROOT, env: Mapping[str, str] | None = None
    ) -> None:
        self._out = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed by finish
        self._err = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed by finish
        self._tree_peak = 0
        self._own_peak = 0
        self.started = time.monotonic()
        self._process = subprocess.Popen(
            [str(part) for part in command],
            cwd=cwd,
            env=_environment(env),
            stdin=subprocess.DEVNULL,
            stdout=self._out,
            stderr=self._err,
            start_new_session=True,
        )
        self._over = threading.Event()
        self._sampler = threading.Thread(target=self._sample, daemon=True)
        self._sampler.start()

    @property
    def pid(self) -> int:
        """Process id, which is the process group's too."""
        return self._process.pid

    def alive(self) -> bool:
        """Whether the command still runs; it stays a zombie until `finish`."""
        info = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        return info is None

    def kill(self) -> None:
        """SIGKILL to the process group, as an evicted pod gets."""
        os.killpg(self.pid, signal.SIGKILL)

    def wait_for(self, condition: Callable[[], bool], *, timeout_seconds: float) -> None:
        """Poll until `condition`. Raises RuntimeError when the command ends first, TimeoutError when time is up."""
        end = time.monotonic() + timeout_seconds
        while not condition():
            if not self.alive():
                raise RuntimeError(f"the command ended too early: {self.finish().failure()}")
            if time.monotonic() > end:
                self.kill()
                raise TimeoutError(f"not reached within {timeout_seconds} s: {self.finish().failure()}")
            time.sleep(0.005)

    def finish(self) -> Measured:
        """Wait for the end, and measure."""
        os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
        wall = time.monotonic() - self.started
        self._over.set()
        self._sampler.join()
        self.kill()
        _, status, usage = os.wait4(self.pid, 0)
        self._process.returncode = os.waitstatus_to_exitcode(status)
        return Measured(
            exit_code=self._process.returncode,
            started=self.started,
            wall_seconds=wall,
            cpu_seconds=usage.ru_utime + usage.ru_stime,
            rss_mib=self._own_rss(usage.ru_maxrss * 1024) / _MIB,
            tree_rss_mib=self._tree_peak / _MIB,
            stdout=_text(self._out),
            stderr=_text(self._err),
        )

    def _own_rss(self, kept: int) -> int:
        """The kernel's figure, unless it may be the one inherited from this process; then the sampled one."""
        inherited = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        return kept if kept > inherited else self._own_peak

    def _sample(self) -> None:
        while not self._over.wait(_SAMPLE_SECONDS):
            own, tree = tree_rss(self.pid)
            self._own_peak = max(self._own_peak, own)
            self._tree_peak = max(self._tree_peak, tree)


def run(
    command: Sequence[str | Path],
    *,
    cwd: Path = ROOT,
    env: Mapping[str, str] | None = None,
    timeout_seconds: float = 3600.0,
) -> Measured:
    """Run a command to its end and measure it; it is killed after `timeout_seconds`."""
    running = Running(command, cwd=cwd, env=env)
    watch = threading.Timer(timeout_seconds, running.kill)
    watch.start()
    try:
        return running.finish()
    finally:
        watch.cancel()


def tree_rss(pid: int) -> tuple[int, int]:
    """Resident bytes of a process, and of it with its descendants; zeros when it is gone."""
    own = _rss(pid)
    total, waiting = own, _children(pid)
    while waiting:
        child = waiting.pop()
        total += _rss(child)
        waiting += _children(child)
    return own, total


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Median of ours over median of theirs."""
    return median(ours) / median(theirs)


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least ``share`` of the values do not exceed; 0.99 of fewer than 100 is the largest."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


@dataclass(frozen=True, kw_only=True, slots=True)
class Claim:
    """One figure against its limit.

    Args:
        what: the claim in words, with its unit.
        measured, limit: the two figures.
        at_most: whether the limit is an upper one.
    """

    what: str
    measured: float
    limit: float
    at_most: bool = True

    @property
    def holds(self) -> bool:
        """Whether the figure is within the limit."""
        return self.measured <= self.limit if self.at_most else self.measured >= self.limit


def table(headers: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A plain text table; floats with three significant decimals at most."""
    cells = [list(headers), *[[_cell(value) for value in row] for row in rows]]
    widths = [max(len(row[at]) for row in cells) for at in range(len(headers))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])


def report(name: str, settings: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], claims: Sequence[Claim]) -> bool:
    """Print runs and claims, and write them as JSON when `settings` has an `output` folder.

    Returns whether all claims hold; True with --quick, which is too small to tell.
    """
    if rows:
        print(table(list(rows[0]), [list(row.values()) for row in rows]))
    verdicts = [
        (claim.what, claim.measured, ("<= " if claim.at_most else ">= ") + _cell(claim.limit), _verdict(claim.holds))
        for claim in claims
    ]
    print("\n" + table(["claim", "measured", "limit", ""], verdicts))
    folder = settings.get("output")
    if folder is not None:
        _write(Path(folder), name, settings, rows, claims)
    if settings.get("quick"):
        print("\n--quick shows that it runs; its figures are not held against the claims")
        return True
    return all(claim.holds for claim in claims)


def common_options(what: str, *, rows: int, quick_rows: int) -> argparse.ArgumentParser:
    """The arguments every benchmark of a batch has; `read_options` applies --quick."""
    parser = _options(what, f"{quick_rows} rows, once: does it run at all")
    parser.add_argument("--rows", type=int, default=rows)
    parser.add_argument("--repeats", type=int, default=5, help="of each side, alternately; medians are compared")
    parser.add_argument("--work", type=Path, help="folder for data and checkpoints; default a temporary one")
    parser.set_defaults(quick_rows=quick_rows)
    return parser


def call_options(what: str, *, calls: int, quick_calls: int) -> argparse.ArgumentParser:
    """The arguments every benchmark of single calls has; `read_options` applies --quick."""
    parser = _options(what, f"{quick_calls} calls: does it run at all")
    parser.add_argument("--calls", type=int, default=calls, help="of each kind")
    parser.add_argument("--seed", type=int, default=1)
    parser.set_defaults(quick_calls=quick_calls)
    return parser


def _options(what: str, quick: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=what)
    parser.add_argument("--quick", action="store_true", help=quick)
    parser.add_argument("--output", type=Path, help="folder for the JSON result, e.g. benchmarks/results")
    return parser


def read_options(parser: argparse.ArgumentParser, arguments: list[str] | None) -> argparse.Namespace:
    """Parse, with --quick applied."""
    options = parser.parse_args(arguments)
    if options.quick and "quick_rows" in options:
        options.rows, options.repeats = options.quick_rows, 1
    elif options.quick:
        options.calls = options.quick_calls
    return options


def _verdict(holds: bool) -> str:
    return "holds" if holds else "DOES NOT HOLD"


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.3f}" if abs(value) < 100 else f"{value:.1f}"
    return str(value)


def _write(
    folder: Path, name: str, settings: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], claims: Sequence[Claim]
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    document = {
        "benchmark": name,
        "settings": {
            key: value for key, value in settings.items() if key not in ("output", "work", "quick_rows", "quick_calls")
        },
        "machine": {"cpus": os.cpu_count(), "python": platform.python_version(), "system": platform.system()},
        "versions": {package: version(package) for package in ("aiohttp", "duckdb", "pyarrow", "uvloop")},
        "runs": rows,
        "claims": [asdict(claim) | {"holds": claim.holds} for claim in claims],
    }
    path = folder / f"{name}.json"
    path.write_text(json.dumps(document, indent=1, default=str) + "\n")
    print(f"\nwrote {path}")


def _environment(extra: Mapping[str, str] | None) -> dict[str, str]:
    """Ours, with compiled modules allowed (as in production) and loopback never sent to a proxy."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {**kept, "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1", **(extra or {})}


def _text(file: IO[str]) -> str:
    with file:
        file.seek(0)
        return file.read()


def _rss(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize()
    except (OSError, IndexError):
        return 0


def _children(pid: int) -> list[int]:
    found: list[int] = []
    for listing in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found += [int(child) for child in listing.read_text().split()]
        except OSError:
            continue  # the thread ended between the listing and the read
    return found


def main(arguments: list[str] | None = None) -> None:
    """Measure the command given on the command line: its own output, then one JSON line on stderr."""
    command = sys.argv[1:] if arguments is None else arguments
    measured = run(command, cwd=Path.cwd())
    print(measured.stdout, end="")
    print(measured.stderr, end="", file=sys.stderr)
    costs = {key: value for key, value in asdict(measured).items() if key not in ("stdout", "stderr", "started")}
    print(json.dumps(costs), file=sys.stderr)
    raise SystemExit(measured.exit_code)


if __name__ == "__main__":
    main()
