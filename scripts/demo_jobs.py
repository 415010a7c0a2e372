"""The asynchronous part of the demo: notes → jobs → a worker that is killed midway → replies in the warehouse.

Queues at MiniStack, the store in the demo's PostgreSQL, one worker process, and the DAG that ships. The worker is
killed with SIGKILL once a part of the replies is recorded, and started again as a supervisor would.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import psycopg
import pyarrow as pa
import pyarrow.parquet as pq

from tests.support import clinical_data, processes
from tests.support.airflow_env import RunningAirflow
from tests.support.ministack import ACCESS_KEY, REGION, SECRET_KEY, MiniStack
from tests.support.mlserver import MODEL
from tests.support.postgres import PostgresServer

DAG_ID = "nightly_note_replies"
DAY = date(2026, 3, 1)
JOBS = 2_000
RUN_SECONDS = 120.0
_KILLED_AFTER = 0.25
_SLOTS = 8
_LEASE_SECONDS = 4  # so that the jobs of a killed worker begin anew within seconds
_PROGRAM = processes.REPOSITORY / ".venv" / "bin" / "airflow-ai"
_QUEUES = {"request_queue": "notes", "result_queue": "note-replies", "dead_letter_queue": "notes-dead"}
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """What became of the jobs.

    :param again: jobs that were begun a second time
    :param rows, distinct: in the warehouse
    """

    jobs: int
    completed: int
    again: int
    rows: int
    distinct: int


class JobDemo:
    """One deployment. ``prepare`` before Airflow runs, ``connections`` and ``run`` when it does."""

    def __init__(self, folder: Path, stack: MiniStack, postgres: PostgresServer, model_url: str, say: Say) -> None:
        self._folder = folder
        self._stack = stack
        self._port = postgres.port
        self._database = postgres.create_database("jobs")
        self._store = postgres.url(self._database)
        self._model_url = model_url
        self._say = say
        self._spec = folder / "jobs.toml"

    def prepare(self, notes: Path) -> None:
        """Write the notes and the spec, and make the queues."""
        real = clinical_data.real_rows()
        places = [number % real.num_rows for number in range(JOBS)]
        rows = real.take(places).rename_columns(["note_id", *clinical_data.feature_columns()])
        ids = pa.array([f"note-{number:05d}" for number in range(JOBS)])
        day = notes / f"dt={DAY}"
        day.mkdir(parents=True)
        pq.write_table(rows.set_column(0, "note_id", ids), day / "part-0.parquet")
        self._folder.mkdir(parents=True)
        self._spec.write_text(_toml(self._tables()))
        create = [_PROGRAM, "queues", "create", self._spec]
        subprocess.run(create, env=self._environment(), check=True, capture_output=True)
        self._say(f"[b]airflow-ai queues create jobs.toml[/]: {', '.join(_QUEUES.values())}")

    def add_connections(self, airflow: RunningAirflow) -> None:
        """The queues and the store, as a user would add them in the UI."""
        extra = {
            **_QUEUES,
            "claim_check_uri": str(self._folder / "claims"),
            "region": REGION,
            "aws_conn_id": "stack",
            "store_conn_id": "ai_jobs_store",
        }
        store = {"host": "127.0.0.1", "port": self._port, "login": "postgres", "schema": self._database}
        keys = {"login": ACCESS_KEY, "password": SECRET_KEY, "extra": json.dumps({"region_name": REGION})}
        for connection in (
            {"connection_id": "stack", "conn_type": "aws", **keys},
            {"connection_id": "ai_jobs_store", "conn_type": "postgres", **store},
            {"connection_id": "ai_jobs", "conn_type": "ai_jobs", "host": self._stack.url, "extra": json.dumps(extra)},
        ):
            airflow.api.post("/connections", connection)

    def run(self, airflow: RunningAirflow, warehouse: str) -> Totals:
        """The DAG, with a worker that is killed once; what became of the jobs."""
        airflow.api.wait_for_dag(DAG_ID)
        workers = [self._worker()]
        over = threading.Event()
        killer = threading.Thread(target=self._kill_midway, args=(workers, over), daemon=True)
        killer.start()
        try:
            run = airflow.api.trigger(DAG_ID, conf={"date": DAY.isoformat()})
            airflow.api.wait_for_run(DAG_ID, run, deadline_seconds=RUN_SECONDS)
        finally:
            over.set()
            killer.join()
            processes.stop_all(workers)
        if len(workers) < 2:
            raise processes.ServiceError("the worker could not be killed: the jobs were done too soon")
        return self._totals(airflow.api.xcom(DAG_ID, run, "ask"), warehouse)

    def _kill_midway(self, workers: list[processes.Service], over: threading.Event) -> None:
        while not over.wait(0.05):
            done = self._count("inbox_state IS NOT NULL")
            if JOBS > done >= _KILLED_AFTER * JOBS:
                os.kill(workers[0].pid, signal.SIGKILL)
                running = self._count("state = 'running'")
                self._say(
                    f"[red]kill -9 {workers[0].pid}[/]: the worker, after {done:,} replies, with {running} jobs in hand"
                )
                workers.append(self._worker())
                return

    def _worker(self) -> processes.Service:
        service = processes.start(
            "worker",
            [_PROGRAM, "worker", self._spec],
            log_path=self._folder / "worker.log",
            env=processes.child_environment(self._environment()),
            cwd=self._folder,
        )
        self._say(f"[b]airflow-ai worker jobs.toml[/]: process {service.pid}, {_SLOTS} slots")
        return service

    def _count(self, condition: str) -> int:
        try:
            with psycopg.connect(self._store) as connection:
                return _one(connection, f"SELECT COUNT(*) FROM ai_jobs WHERE {condition}")  # noqa: S608 - from this file
        except psycopg.errors.UndefinedTable:  # before the first job
            return 0

    def _totals(self, manifest: dict[str, Any], warehouse: str) -> Totals:
        with psycopg.connect(warehouse) as connection:
            rows = _one(connection, "SELECT COUNT(*) FROM note_replies")
            distinct = _one(connection, "SELECT COUNT(DISTINCT _record_key) FROM note_replies")
        again = self._count("attempts > 1")
        totals = Totals(
            jobs=manifest["jobs"], completed=manifest["completed"], again=again, rows=rows, distinct=distinct
        )
        if (totals.jobs, totals.completed, totals.rows, totals.distinct) != (JOBS,) * 4:
            raise processes.ServiceError(f"the warehouse does not hold every reply exactly once: {totals}")
        return totals

    def _environment(self) -> dict[str, str]:
        return processes.child_environment(self._stack.environment())

    def _tables(self) -> dict[str, dict[str, Any]]:
        transport = {"kind": "sqs", "endpoint_url": self._stack.url, "region": REGION, **_QUEUES}
        model = {"url": self._model_url, "protocol": "open-inference", "model": MODEL}
        fields = {"columns": clinical_data.feature_columns(), "output_names": ["predict", "predict_proba"]}
        return {
            "transport": transport,
            "store": {"url": self._store},
            "claim_check": {"uri": str(self._folder / "claims")},
            "worker": {"concurrency": _SLOTS, "visibility_timeout_seconds": _LEASE_SECONDS, "poll_seconds": 1},
            "endpoint": {**model, **fields},
        }


def _one(connection: psycopg.Connection[Any], query: str) -> int:
    row = connection.execute(query).fetchone()  # type: ignore[call-overload]
    return int(row[0])


def _toml(tables: dict[str, dict[str, Any]]) -> str:
    lines: list[str] = []
    for name, table in tables.items():
        lines += [f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in table.items()), ""]
    return "\n".join(lines)
