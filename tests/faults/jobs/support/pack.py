"""The processes of a deployment, kept running as a supervisor would, and struck.

Workers, dispatchers, submitters and waiters are the real command line, each started again when it ends; a waiter
(`airflow-ai jobs wait`) has a dispatcher in it, as a triggerer has. Before a process is struck it is stopped (SIGSTOP)
and the store is asked which jobs it has: that is exactly what may be called again because of it.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import sqlalchemy as sa

from airflow_provider_ai.core.jobs import Job, submission_key
from benchmarks.stub import StubServer
from tests.faults.jobs.support import handler
from tests.faults.jobs.support.auditor import Auditor
from tests.faults.jobs.support.ledger import Ledger
from tests.support.job_fleet import Fleet
from tests.support.processes import REPOSITORY, Service, wait_until

CANARY = "CANARY-5d1f"
CONCURRENCY = 4
MOST_HELD = 2 * CONCURRENCY
"""Claims that a worker has at most: one for each slot, and as many that are being recorded beside the next."""
VISIBILITY_SECONDS = 4
PAUSE_SECONDS = VISIBILITY_SECONDS + 1.5
_EARLY = 0.15
_START_SECONDS, _LONGEST_START_SECONDS = 1.0, 6.0
_SETTLE_SECONDS = 0.1  # for a statement that was under way when its process was stopped
WORKER = {
    "concurrency": CONCURRENCY,
    "visibility_timeout_seconds": VISIBILITY_SECONDS,
    "max_attempts": 100,
    "poll_seconds": 1,
}
DISPATCHER = {
    "poll_seconds": 1,
    "visibility_timeout_seconds": VISIBILITY_SECONDS,
    "reconcile_seconds": 1.0,
    "resend_after_seconds": 6.0,
    "deliver_after_seconds": 3.0,
}


@dataclass
class Process:
    """A command line and its process now. ``endless``: a service, which is never done."""

    name: str
    arguments: list[str]
    endless: bool
    program: list[str] | None = None
    started: int = 0
    began: float = 0.0
    service: Service | None = None
    paused_until: float | None = None
    done: bool = False

    @property
    def running(self) -> bool:
        return self.service is not None and self.service.process.poll() is None

    @property
    def age_seconds(self) -> float:
        return time.monotonic() - self.began


@dataclass(frozen=True, slots=True)
class Strike:
    """A signal, and how many jobs its process had; None when the store could not say."""

    pid: int
    name: str
    signal: str
    held: int | None


class Between(Protocol):
    """What stands between the processes and their queues. ``done`` counts what it did to them."""

    done: Counter[str]
    down: bool

    def unleash(self) -> None:
        """Begin mischief."""
        ...

    def calm(self) -> None:
        """End it."""
        ...


@dataclass
class Pack:
    """See the module. ``faults`` (see :mod:`.runner`) go into every process that is started.

    :param listen: lets the auditor hear all results that were published, where it does not see them on their way
    """

    fleet: Fleet
    relay: Between
    auditor: Auditor
    ledger: Ledger
    stub: StubServer
    effects: Path
    listen: Callable[[], None]
    faults: dict[str, Any] = field(default_factory=dict)
    processes: dict[str, Process] = field(default_factory=dict)
    strikes: list[Strike] = field(default_factory=list)
    inputs: dict[str, list[int]] = field(default_factory=dict)

    # --- processes

    def add(self, name: str, *arguments: str, endless: bool = False, **tables: dict[str, Any]) -> Process:
        """Start a command line: its words, the spec (made from ``tables``), and the rest of them."""
        command, rest = self._split(arguments)
        spec = self.fleet.write_spec(name, **tables)
        process = Process(name, [*command, str(spec), *rest], endless)
        self.processes[name] = process
        self._start(process)
        return process

    def worker(self, name: str, **settings: Any) -> Process:
        """Start a worker."""
        target = {"target": f"{handler.__name__}:answer"}
        return self.add(name, "worker", endless=True, worker={**WORKER, **settings}, handler=target)

    def dispatcher(self, name: str, **settings: Any) -> Process:
        """Start a dispatcher."""
        return self.add(name, "dispatcher", endless=True, dispatcher={**DISPATCHER, **settings})

    def submit(self, key: str, ids: Sequence[int], **more: Any) -> Process:
        """Start `airflow-ai jobs submit` of records with these ids."""
        file = self.fleet.folder / f"{key}.jsonl"
        lines = [json.dumps({"id": number, "note": f"{CANARY} {number}", **more}) for number in ids]
        file.write_text("\n".join(lines))
        self.inputs[key] = list(ids)
        return self.add(f"submit-{key}", "jobs", "submit", "--", "--input", str(file), "--key", key, "--quiet")

    def wait(self, key: str, *, timeout_seconds: float = 300.0) -> Process:
        """Start `airflow-ai jobs wait`."""
        rest = ("--key", key, "--timeout", str(timeout_seconds), "--output", str(self.output(key)), "--quiet")
        return self.add(f"wait-{key}", "jobs", "wait", "--", *rest, dispatcher=DISPATCHER)

    def triggerer(self, key: str) -> Process:
        """Start a hub and a dispatcher that wait for a submission as a triggerer does."""
        name = f"triggerer-{key}"
        spec = self.fleet.write_spec(name, dispatcher=DISPATCHER)
        program = [sys.executable, "-m", "tests.faults.jobs.support.triggerer"]
        process = Process(name, [str(spec), key, str(len(self.inputs[key]))], endless=False, program=program)
        self.processes[name] = process
        self._start(process)
        return process

    def verdict(self, key: str) -> dict[str, Any]:
        """What that one has come to."""
        return dict(json.loads((self.fleet.folder / f"{key}.verdict.json").read_text()))

    def output(self, key: str) -> Path:
        """What a waiter writes."""
        return self.fleet.folder / f"{key}.out.jsonl"

    def jobs(self, key: str) -> list[Job]:
        """The jobs of a submission, as the store has them."""
        return list(self.fleet.store.jobs(submission_key("jobs", key), most=10_000))

    def tend(self) -> None:
        """Start what has ended and is not done; let those go on whose pause is over."""
        for process in self.processes.values():
            if process.paused_until is not None and time.monotonic() >= process.paused_until:
                self.resume(process)
            if process.service is not None and (code := process.service.process.poll()) is not None:
                process.done = not process.endless and code == 0
                process.service = None
            if process.service is None and not process.done:
                self._start(process)

    def tend_until(self, condition: Callable[[], bool], *, deadline_seconds: float, what: str) -> None:
        """Tend until it holds."""

        def holds() -> bool:
            self.tend()
            return condition()

        wait_until(holds, deadline_seconds=deadline_seconds, what=what)

    def done(self, *names: str) -> bool:
        """Whether processes have ended well."""
        return all(self.processes[name].done for name in names)

    # --- blows

    def kill(self, process: Process) -> Strike:
        """SIGKILL. It is started again by :meth:`tend`."""
        strike = self._struck(process, "SIGKILL")
        assert process.service is not None
        os.kill(process.service.pid, signal.SIGKILL)
        process.service.process.wait(10)
        process.paused_until = None
        return strike

    def pause(self, process: Process, seconds: float = PAUSE_SECONDS) -> Strike:
        """SIGSTOP, until :meth:`tend` lets it go on after so many seconds."""
        strike = self._struck(process, "SIGSTOP")
        process.paused_until = time.monotonic() + seconds
        return strike

    def resume(self, process: Process) -> None:
        """SIGCONT."""
        process.paused_until = None
        if process.service is not None and process.running:
            os.kill(process.service.pid, signal.SIGCONT)

    def retire(self, process: Process) -> None:
        """SIGTERM; it is not started again."""
        assert process.service is not None
        process.service.stop()
        process.service, process.done = None, True

    def strike_one(self, draw: random.Random) -> Strike | None:
        """A random blow for a random process; now and then also for one that has just been started."""
        targets = [each for each in self.processes.values() if each.running and each.paused_until is None]
        if draw.random() >= _EARLY:
            targets = [each for each in targets if self._works(each)]
        if not targets:
            return None
        target = draw.choice(targets)
        return self.pause(target) if draw.random() < 0.25 else self.kill(target)

    def stop(self) -> None:
        """Let everybody go on and end."""
        for process in self.processes.values():
            self.resume(process)
            process.done = True

    # ---

    def _works(self, process: Process) -> bool:
        """Whether it has come to do anything. On a busy machine a start takes longer than the time between blows."""
        assert process.service is not None
        if not process.name.startswith("worker"):
            return process.age_seconds > _START_SECONDS
        return process.age_seconds > _LONGEST_START_SECONDS or self.holds(process)

    def holds(self, process: Process) -> bool:
        """Whether a worker has jobs."""
        try:
            return process.service is not None and bool(self.ledger.held_by(process.service.pid))
        except sa.exc.DBAPIError:
            return False

    def _struck(self, process: Process, name: str) -> Strike:
        assert process.service is not None
        pid = process.service.pid
        os.kill(pid, signal.SIGSTOP)
        time.sleep(_SETTLE_SECONDS)
        try:
            held = len(self.ledger.held_by(pid))
        except sa.exc.DBAPIError:
            held = None
        strike = Strike(pid, process.name, name, held)
        self.strikes.append(strike)
        return strike

    def _start(self, process: Process) -> None:
        process.started += 1
        process.began = time.monotonic()
        program = [str(REPOSITORY / ".venv/bin/airflow-ai")]
        if self.faults:
            program = [sys.executable, "-m", "tests.faults.jobs.support.runner", json.dumps(self.faults)]
        process.service = self.fleet.run(process.name, [*(process.program or program), *process.arguments])

    @staticmethod
    def _split(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
        words = list(arguments)
        at = words.index("--") if "--" in words else len(words)
        return words[:at], words[at + 1 :]
