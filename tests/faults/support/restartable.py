"""Warehouses that are down for a while, and a command line that does not wait for them as long as usual.

``python -m tests.faults.support.restartable '{"sink_waits": […], "lock_wait_seconds": …}' airflow-ai batch run SPEC``
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg

from airflow_provider_ai.adapters.sinks import open_sink
from airflow_provider_ai.cli import main
from tests.faults.support import runner
from tests.support import postgres, processes
from tests.support.processes import REPOSITORY, child_environment


def impatient(*, sink_waits: Sequence[float], lock_wait_seconds: float = 0.1) -> list[str]:
    """What to run the command line under.

    :param sink_waits: pauses between tries, in seconds
    :param lock_wait_seconds: of one try, for a file that another process has locked
    """
    options = {"sink_waits": list(sink_waits), "lock_wait_seconds": lock_wait_seconds}
    return [sys.executable, "-m", "tests.faults.support.restartable", json.dumps(options)]


@dataclass(slots=True, kw_only=True)
class RestartablePostgres:
    """A server that can be stopped and started again on its data and its port."""

    server: postgres.PostgresServer
    service: processes.Service

    def stop(self) -> None:
        """Stop it in good order; clients are cut off."""
        self.service.stop()

    def kill(self) -> None:
        """SIGKILL to all of it."""
        self.service.kill()

    def start(self) -> None:
        """Start it again, as the account that owns its data."""
        stopped = self.service
        command = [str(part) for part in stopped.process.args]  # type: ignore[union-attr]
        data = Path(command[command.index("-D") + 1])
        account = {"user": data.stat().st_uid, "group": data.stat().st_gid, "extra_groups": []}
        self.service = processes.start(
            "PostgreSQL",
            command,
            log_path=stopped.log_path,
            cwd=data.parent,
            stop_signal=signal.SIGINT,
            stop_leader_only=True,
            **(account if os.geteuid() == 0 else {}),
        )
        self.service.wait_ready(self._answers, deadline_seconds=30.0)

    def _answers(self) -> bool:
        try:
            with psycopg.connect(self.server.url(), connect_timeout=2):
                return True
        except psycopg.OperationalError:
            return False


@contextmanager
def restartable_postgres() -> Iterator[RestartablePostgres]:
    """A running server of its own; gone at the end."""
    with postgres.postgres_server(durable=False) as server:
        restartable = RestartablePostgres(server=server, service=server.service)
        try:
            yield restartable
        finally:
            restartable.stop()


_HOLD = """
import sys
kind, path = sys.argv[1:]
if kind == "duckdb":
    import duckdb
    held = duckdb.connect(path)
else:
    import sqlite3
    held = sqlite3.connect(path)
    held.execute("BEGIN IMMEDIATE")
print("held", flush=True)
sys.stdin.read()
"""


@contextmanager
def held(kind: str, path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that has the file for itself; close its ``stdin`` and it lets go."""
    command = [sys.executable, "-c", _HOLD, kind, str(path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, text=True, cwd=REPOSITORY, env=child_environment(), **pipes) as holder:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "held\n"
            yield holder
        finally:
            holder.kill()


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    open_sink.__kwdefaults__["lock_wait_seconds"] = given.pop("lock_wait_seconds")
    runner.apply(given)
    raise SystemExit(main(sys.argv[3:]))
