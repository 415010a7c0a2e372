"""What a thousand deferred tasks cost a real triggerer of Airflow, idle, and how soon a reply resumes its task.

    python -m benchmarks.async_triggerer

One task defers by itself; its row and its trigger's are copied in the metadata database, each copy with a submission of
its own, and everything of Airflow but the triggerer is stopped. CPU is that of the triggerer's processes, its embedded
dispatcher (which polls SQS) included; looks at the store are counted in PostgreSQL's log of statements. Then replies
become durable, and each is timed until its task is scheduled to go on: Airflow's own share of it is in there, too.
"""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, LiteralString

import psycopg
from psycopg import sql

from airflow_provider_ai.adapters.store import open_store
from airflow_provider_ai.core.jobs import Content, JobState, NewJob, Outcome, job_id
from benchmarks import measure
from tests.support import airflow_env, ministack, processes
from tests.support.airflow_env import RunningAirflow
from tests.support.ministack import MiniStack
from tests.support.postgres import PostgresServer, postgres_server

DAG = "one_wait"
JOBS_EACH = 10
_IDLE_SECONDS, _SETTLE_SECONDS = 30.0, 20.0
_REPLIES, _REPLIES_PER_SECOND = 100, 5.0
_STOPPED = ("scheduler", "dag-processor", "api-server")
_CONTENT = Content(sha256="0" * 64, inline=b"{}")
_RESULT = Outcome(state=JobState.SUCCEEDED, content=_CONTENT)
_COPY_TRIGGER = (
    "INSERT INTO trigger (classpath, kwargs, created_date) SELECT classpath, %s, now() FROM trigger"
    " ORDER BY id LIMIT 1 RETURNING id"
)
_COPY_INSTANCE = (
    "INSERT INTO task_instance (id, map_index, trigger_id, {}) SELECT gen_random_uuid(), %s, %s, {}"
    " FROM task_instance WHERE map_index = -1"
)
_SOURCE = f"""
from airflow.sdk import DAG
from airflow_provider_ai.operators.request_reply import AISubmitAndWaitOperator

with DAG("{DAG}", schedule=None) as dag:
    AISubmitAndWaitOperator(task_id="ask", requests={{"id": 0}})
"""


def main(arguments: list[str] | None = None) -> bool:
    """Run the benchmark; whether its claims hold."""
    parser = measure.call_options("What waiting costs a triggerer. --calls: tasks.", calls=1000, quick_calls=50)
    options = measure.read_options(parser, arguments)
    with (
        TemporaryDirectory(prefix="triggerer-") as folder,
        postgres_server() as server,
        ministack.ministack(services="sqs") as stack,
        deferred(Path(folder), server, stack) as case,
    ):
        row = case.run(options.calls, random.Random(options.seed), quick=options.quick)
    return measure.report("async_triggerer", vars(options), [row], _claims(row))


def _claims(row: Mapping[str, Any]) -> list[measure.Claim]:
    return [
        measure.Claim(what="CPU of a core while idle, %", measured=row["idle CPU %"], limit=5.0),
        measure.Claim(what="looks at the store per second", measured=row["looks per s"], limit=1.0),
        measure.Claim(what="reply durable to task scheduled, p50 s", measured=row["reply p50 s"], limit=2.0),
    ]


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """A triggerer that looks after one task, and where its databases are."""

    triggerer: processes.Service
    metadata: str
    store: str
    statements: Path

    def run(self, tasks: int, draw: random.Random, *, quick: bool) -> dict[str, Any]:
        """Add the others; wait idly, then for replies."""
        waits = [f"{number:032x}" for number in range(1, tasks)]
        self._submit(waits)
        self._copy(waits)
        processes.wait_until(lambda: self._waiting() == tasks, deadline_seconds=120, what="all triggers are taken")
        time.sleep(5.0 if quick else _SETTLE_SECONDS)
        looks, cpu, began = self._looks(), self._cpu(), time.perf_counter()
        time.sleep(5.0 if quick else _IDLE_SECONDS)
        looks, cpu, wall = self._looks() - looks, self._cpu() - cpu, time.perf_counter() - began
        took = self._reply(draw.sample(waits, min(len(waits), 10 if quick else _REPLIES)), draw)
        return {
            "tasks": self._waiting() + len(took),
            "looks per s": looks / wall,
            "idle CPU %": 100 * cpu / wall,
            "reply p50 s": median(took),
            "reply max s": max(took),
            "rss MiB": sum(each.memory_info().rss for each in self.triggerer.members()) / 1024**2,
        }

    def _submit(self, waits: list[str]) -> None:
        opened = open_store(self.store, timeout_seconds=15.0)
        jobs = opened.jobs()
        for submission in waits:
            names = [job_id(submission, position) for position in range(JOBS_EACH)]
            new = [
                NewJob(job_id=name, submission=submission, position=position, payload=_CONTENT)
                for position, name in enumerate(names)
            ]
            jobs.submit(new)
            jobs.sent(names)
            jobs.receive_many(dict.fromkeys(names[:-1], _RESULT), via="benchmark")
        opened.close()

    def _copy(self, waits: list[str]) -> None:
        """Rows of other mapped instances of the task, each with a trigger of its own."""
        with psycopg.connect(self.metadata) as database:
            columns = "SELECT column_name FROM information_schema.columns WHERE table_name = 'task_instance'"
            own = {"id", "map_index", "trigger_id"}
            same = [sql.Identifier(name) for (name,) in database.execute(columns).fetchall() if name not in own]
            copy = sql.SQL(_COPY_INSTANCE).format(sql.SQL(", ").join(same), sql.SQL(", ").join(same))
            [(kwargs,)] = database.execute("SELECT kwargs FROM trigger").fetchall()
            for number, submission in enumerate(waits):
                changed = json.dumps({**json.loads(kwargs), "submission": submission, "expected": JOBS_EACH})
                [(trigger_id,)] = database.execute(_COPY_TRIGGER, [changed]).fetchall()
                database.execute(copy, [number, trigger_id])

    def _waiting(self) -> int:
        return len(self._metadata("SELECT 1 FROM trigger WHERE triggerer_id IS NOT NULL"))

    def _reply(self, waits: list[str], draw: random.Random) -> list[float]:
        """Seconds from each reply's commit to its task going on."""
        opened, durable, resumed = open_store(self.store, timeout_seconds=15.0), {}, {}
        due = list(waits)
        following = time.monotonic()
        while len(resumed) < len(waits):
            if due and time.monotonic() >= following:
                submission = due.pop()
                opened.jobs().receive_many({job_id(submission, JOBS_EACH - 1): _RESULT}, via="benchmark")
                durable[submission] = time.monotonic()
                following += draw.expovariate(_REPLIES_PER_SECOND)
            for (number,) in self._metadata("SELECT map_index FROM task_instance WHERE state = 'scheduled'"):
                resumed.setdefault(f"{number + 1:032x}", time.monotonic())
            time.sleep(0.05)
        opened.close()
        return [resumed[submission] - at for submission, at in durable.items()]

    def _metadata(self, query: LiteralString) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.metadata) as database:
            return database.execute(query).fetchall()

    def _looks(self) -> int:
        return self.statements.read_text(errors="replace").count("GROUP BY ai_jobs.submission")

    def _cpu(self) -> float:
        times = [each.cpu_times() for each in self.triggerer.members()]
        return sum(each.user + each.system for each in times)


@contextmanager
def deferred(folder: Path, server: PostgresServer, stack: MiniStack) -> Iterator[Case]:
    """One task that waits, and nothing of Airflow but the triggerer."""
    database = server.create_database("jobs")
    with psycopg.connect(server.url(), autocommit=True) as connection:
        connection.execute(f"ALTER DATABASE {database} SET log_statement = 'all'")
    environment = airflow_env.airflow_environment(
        folder / "airflow",
        postgres=server,
        connections=_connections(folder, server, database, stack),
        settings=stack.environment(),
    )
    (environment.dags_folder / "one.py").write_text(_SOURCE)
    metadata = environment.env["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"].replace("+psycopg2", "")
    with airflow_env.components(environment) as airflow:
        _defer(airflow)
        processes.stop_all([airflow.services.pop(name) for name in _STOPPED])
        yield Case(
            triggerer=airflow.services["triggerer"],
            metadata=metadata,
            store=server.url(database),
            statements=server.service.log_path,
        )


def _defer(airflow: RunningAirflow) -> None:
    airflow.api.wait_for_dag(DAG)
    run = airflow.api.trigger(DAG)

    def waits() -> bool:
        [instance] = airflow.api.task_instances(DAG, run)
        return instance["state"] == "deferred" and instance["triggerer_job"] is not None

    processes.wait_until(waits, deadline_seconds=120, what="the task is deferred")


def _connections(folder: Path, server: PostgresServer, database: str, stack: MiniStack) -> dict[str, dict[str, Any]]:
    queues = {
        f"{kind}_queue": f"{kind.replace('_', '-')}-{os.getpid()}" for kind in ("request", "result", "dead_letter")
    }
    for name in queues.values():
        stack.client("sqs").create_queue(QueueName=name)
    extra = {**queues, "claim_check_uri": str(folder / "claims"), "region": ministack.REGION}
    store = {"conn_type": "postgres", "host": "127.0.0.1", "port": server.port, "login": "postgres", "schema": database}
    return {"ai_jobs": {"conn_type": "ai_jobs", "host": stack.url, "extra": extra}, "ai_store": store}


if __name__ == "__main__":
    raise SystemExit(0 if main() else 1)
