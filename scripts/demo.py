"""``make demo``: the three patterns in a real Airflow, on real rows, against a real model server, with crashes midway.

Batch: it backfills three dates. On the second one, with a larger copy of the rows, the process of a mapped task is
killed with SIGKILL while calls are in flight; Airflow retries it and the retry calls only what has no answer yet.
Asynchronous: notes become jobs on a queue, and their worker is killed. Synchronous: one visit is triaged. Everything is
on free loopback ports and is stopped at the end; the lake, the checkpoints and all logs stay in ``.demo``.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import astuple, dataclass, field
from datetime import date
from pathlib import Path

import psycopg
from rich.console import Console
from rich.table import Table

from scripts.demo_jobs import DAG_ID as JOBS_DAG_ID
from scripts.demo_jobs import JobDemo
from tests.support import clinical_data, processes
from tests.support.airflow_env import RunningAirflow, airflow_environment, standalone
from tests.support.ministack import ministack
from tests.support.mlserver import MODEL, mlserver
from tests.support.postgres import PostgresServer, postgres_server

FOLDER = processes.REPOSITORY / ".demo"
DAG_ID = "nightly_risk_scores"
TRIAGE_DAG_ID = "triage_visit"
DATES = clinical_data.DATES
BIG_DATE = DATES[1]
BIG_ROWS = 100_000
ROWS_PER_PARTITION = 25_000
RECORDS_PER_REQUEST = 64  # as in the DAG
HALF_A_PARTITION_BYTES = 1_200_000
RUN_SECONDS = 240.0
CONSOLE = Console(width=min(120, shutil.get_terminal_size((100, 40)).columns), highlight=False)


@dataclass(slots=True)
class Crash:
    """Kills the first process that works on a partition of the big date, once some of its calls are answered."""

    checkpoints: Path
    pid: int | None = None
    bytes_kept: int = 0
    _stop: threading.Event = field(default_factory=threading.Event)

    @contextlib.contextmanager
    def armed(self) -> Iterator[Crash]:
        """Watch in the background until left."""
        watcher = threading.Thread(target=self._watch, daemon=True)
        watcher.start()
        try:
            yield self
        finally:
            self._stop.set()
            watcher.join()

    def _watch(self) -> None:
        while self.pid is None and not self._stop.wait(0.02):
            for log in self.checkpoints.glob("*/e*/p*/log-*.wal"):
                if self._strike(log):
                    return

    def _strike(self, log: Path) -> bool:
        """The lock beside a log names the process that writes it."""
        try:
            size = log.stat().st_size
            holder = (log.parent / "lock").read_text()
        except OSError:
            return False
        if size < HALF_A_PARTITION_BYTES or " pid " not in holder:
            return False
        self.pid, self.bytes_kept = int(holder.rsplit(" ", 1)[1]), size
        os.kill(self.pid, signal.SIGKILL)
        say(f"[red]kill -9 {self.pid}[/]: the process of a mapped infer task, with {size:,} bytes of answers on disk")
        return True


def main() -> None:
    """Run the demo; a failure leaves the logs in ``.demo``."""
    options = _options()
    started = time.monotonic()
    shutil.rmtree(FOLDER, ignore_errors=True)
    lake = FOLDER / "lake"
    rows = _write_lake(lake / "visits")
    with ExitStack() as services:
        say("model server: training a classifier on 569 real patients, starting MLServer …")
        model = services.enter_context(mlserver())
        say(f"model server ready: {model.url} (Open Inference Protocol, model [b]{MODEL}[/])")
        warehouse = services.enter_context(postgres_server(durable=False))
        say(f"warehouse ready: {warehouse.url()}")
        stack = services.enter_context(ministack(services="sqs"))
        say(f"queues ready: {stack.url} (MiniStack, SQS)")
        jobs = JobDemo(FOLDER / "jobs", stack, warehouse, model.url, say)
        jobs.prepare(lake / "notes")
        say("Airflow: starting `airflow standalone` (scheduler, API server, DAG processor, triggerer) …")
        airflow = services.enter_context(_airflow(lake, warehouse))
        say(f"Airflow ready: [b]{airflow.environment.url}[/] (no login needed)")
        database_url = _add_connections(airflow, model.url, warehouse)
        jobs.add_connections(airflow)
        _backfill(airflow, lake / "_ai_checkpoints")
        _show(airflow, database_url, rows)
        _show_jobs(jobs, airflow, database_url)
        _triage(airflow, database_url)
        say(f"done in {time.monotonic() - started:.0f} s")
        _where_to_look(airflow, database_url, keep=options.keep)


def say(text: str) -> None:
    """A line of the story."""
    CONSOLE.print(f"[dim]{time.strftime('%H:%M:%S')}[/] {text}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser("make demo", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--keep", action="store_true", help="leave everything running until Enter or Ctrl-C")
    return parser.parse_args()


def _write_lake(visits: Path) -> dict[date, int]:
    """Three dates of visits; rows per date."""
    rows = clinical_data.write_visits(visits)
    clinical_data.write_generated_visits(visits, rows=BIG_ROWS, seed=1, day=BIG_DATE)
    rows[BIG_DATE] = BIG_ROWS
    counts = ", ".join(f"dt={day} {count:,}" for day, count in rows.items())
    say(f"input: {visits.relative_to(processes.REPOSITORY)} with {counts} rows ({BIG_DATE}: a generated larger copy)")
    return rows


def _airflow(lake: Path, warehouse: PostgresServer) -> contextlib.AbstractContextManager[RunningAirflow]:
    environment = airflow_environment(
        FOLDER / "airflow",
        postgres=warehouse,
        dags_folder=processes.REPOSITORY / "dags",
        plugins_folder=processes.REPOSITORY / "plugins",
        settings={
            "AI_LAKE_ROOT": str(lake),
            "AI_ROWS_PER_PARTITION": str(ROWS_PER_PARTITION),
            "AIRFLOW__CORE__TEST_CONNECTION": "Enabled",
        },
    )
    return standalone(environment)


def _add_connections(airflow: RunningAirflow, model_url: str, warehouse: PostgresServer) -> str:
    """As a user would in the UI, so that they can be looked at there; the warehouse's URL."""
    for name in ("risk_model", "triage_model"):
        airflow.api.post(
            "/connections",
            {
                "connection_id": name,
                "conn_type": "ai_endpoint",
                "description": "MLServer with a scikit-learn model",
                "host": model_url,
                "extra": f'{{"protocol": "open-inference", "model": "{MODEL}"}}',
            },
        )
    database = warehouse.create_database("warehouse")
    airflow.api.post(
        "/connections",
        {
            "connection_id": "warehouse",
            "conn_type": "postgres",
            "description": "PostgreSQL warehouse",
            "host": "127.0.0.1",
            "port": warehouse.port,
            "login": "postgres",
            "schema": database,
        },
    )
    return warehouse.url(database)


def _backfill(airflow: RunningAirflow, checkpoints: Path) -> None:
    airflow.api.wait_for_dag(DAG_ID)
    command = f"airflow backfill create --dag-id {DAG_ID} --from-date {DATES[0]} --to-date {DATES[-1]}"
    say(f"[b]{command}[/]")
    with Crash(checkpoints).armed() as crash:
        airflow.environment.backfill(DAG_ID, DATES[0], DATES[-1])
        airflow.api.wait_for_backfill(DAG_ID, runs=len(DATES), deadline_seconds=RUN_SECONDS)
    if crash.pid is None:
        raise processes.ServiceError("no task could be killed: the partitions were done too soon")


def _show(airflow: RunningAirflow, database_url: str, rows: dict[date, int]) -> None:
    table = Table("run", "task", "try", "records", "already done", "requests", title="inference, as Airflow saw it")
    reused = saved = 0
    for run in airflow.api.dag_runs(DAG_ID, run_type="backfill"):
        for task in airflow.api.task_instances(DAG_ID, run["dag_run_id"]):
            if task["task_id"] != "score.infer":
                continue
            report = airflow.api.xcom(DAG_ID, run["dag_run_id"], "score.infer", map_index=task["map_index"])
            reused += report["reused"]
            if report["reused"]:
                saved += -(-report["rows"] // RECORDS_PER_REQUEST) - report["requests"]
            label = task["rendered_map_index"] or str(task["map_index"])
            counts = (f"{report[name]:,}" for name in ("rows", "reused", "requests"))
            table.add_row(str(run["logical_date"])[:10], label, str(task["try_number"]), *counts)
    CONSOLE.print(table)
    say(f"[green]requests saved by resuming after kill -9: {saved:,} ({reused:,} records were not sent again)[/]")
    _show_warehouse(database_url, rows)


def _show_warehouse(database_url: str, rows: dict[date, int]) -> None:
    with psycopg.connect(database_url) as connection:
        counts = connection.execute(
            "SELECT split_part(_partition, '/', 1) AS scope, COUNT(*), COUNT(DISTINCT visit_id), "
            "ROUND(AVG(predict)::numeric, 3) FROM risk_scores GROUP BY 1 ORDER BY 1"
        ).fetchall()
        sample = connection.execute(
            "SELECT visit_id, predict, _model, _source_file, _source_row, _run_id FROM risk_scores "
            "ORDER BY _partition, _source_row LIMIT 5"
        ).fetchall()
    table = Table("scope", "rows", "distinct visits", "share benign", title="risk_scores in the warehouse")
    for scope, count, distinct, share in counts:
        table.add_row(scope, f"{count:,}", f"{distinct:,}", str(share))
    CONSOLE.print(table)
    table = Table("visit_id", "predict", "_model", "_source_file", "_source_row", "_run_id", title="first rows")
    for visit, predict, model, source, row, run in sample:
        table.add_row(visit, str(predict), model, "…" + source[-28:], str(row), run)
    CONSOLE.print(table)
    if [count for _, count, _, _ in counts] != list(rows.values()):
        raise processes.ServiceError("the warehouse does not hold every record exactly once")


def _show_jobs(jobs: JobDemo, airflow: RunningAirflow, database_url: str) -> None:
    say(f"[b]airflow dags trigger {JOBS_DAG_ID}[/]: submit, wait in the triggerer, land the replies")
    totals = jobs.run(airflow, database_url)
    table = Table("jobs", "completed", "begun again", "rows", "distinct", title="jobs, with their worker killed midway")
    table.add_row(*(f"{number:,}" for number in astuple(totals)))
    CONSOLE.print(table)
    say(f"[green]nothing was lost, and nothing landed twice; {totals.again} jobs were begun again after kill -9[/]")


def _triage(airflow: RunningAirflow, database_url: str) -> None:
    """One synchronous call: its answer is a row."""
    airflow.api.wait_for_dag(TRIAGE_DAG_ID)
    run = airflow.api.trigger(TRIAGE_DAG_ID, conf={"date": DATES[0].isoformat(), "row": 17})
    airflow.api.wait_for_run(TRIAGE_DAG_ID, run, deadline_seconds=RUN_SECONDS)
    with psycopg.connect(database_url) as connection:
        tables = connection.execute(
            "SELECT table_name FROM information_schema.tables WHERE table_name IN ('triage_answers', 'triage_reviews')"
        ).fetchall()
    say(f"[b]airflow dags trigger {TRIAGE_DAG_ID}[/]: answered within 3 s, in {' '.join(name for (name,) in tables)}")


def _where_to_look(airflow: RunningAirflow, database_url: str, *, keep: bool) -> None:
    here = FOLDER.relative_to(processes.REPOSITORY)
    CONSOLE.print(
        f"look at  {here}/lake/visits            the input\n"
        f"         {here}/lake/_ai_checkpoints   manifests, sealed segments, seals\n"
        f"         {here}/airflow/logs           task logs\n"
        f"         {here}/jobs                   the workers' spec and log\n"
        "         dags/batch_inference.py  request_reply.py  sync_call.py    the DAGs; docs/ has a guide for each"
    )
    if keep and sys.stdin.isatty():
        CONSOLE.print(f"open     {airflow.environment.url}/dags/{DAG_ID}\n         {database_url}")
        with contextlib.suppress(KeyboardInterrupt):
            input("Enter stops everything: ")
    else:
        CONSOLE.print("stopping everything; `make demo DEMO_ARGS=--keep` leaves it up to look around in the Airflow UI")


if __name__ == "__main__":
    main()
