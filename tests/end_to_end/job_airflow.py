"""A real Airflow with deployments of jobs: queues in MiniStack, stores in PostgreSQL, worker processes."""

from __future__ import annotations

import base64
import json
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import pytest
import tomli_w

from tests.support import airflow_env, clinical_data, ministack, processes
from tests.support.airflow_env import RunningAirflow
from tests.support.airflow_rest import AirflowApi
from tests.support.ministack import MiniStack
from tests.support.mlserver import MODEL, ModelServer
from tests.support.postgres import PostgresServer
from tests.support.processes import REPOSITORY

CANARY = "CANARY-4be1907d"  # in every note and its id; found nowhere but in the lake, the queues and the stores
SECRET = "whsec_" + base64.b64encode(b"w" * 32).decode()
OLD_SECRET = "whsec_" + base64.b64encode(b"o" * 32).decode()
DAGS = (
    "nightly_note_replies",
    "replies_arrived",
    "dead_letter_redrive",
    "ask_once",
    "ask_here",
    "ask_by_webhook",
    "fifty_waits",
)
AIRFLOW_AI = Path(sys.executable).with_name("airflow-ai")


@dataclass(frozen=True, kw_only=True, slots=True)
class Deployment:
    """Queues, a store and claim checks, behind the connection ``name``."""

    name: str
    stack: MiniStack
    store: str
    folder: Path

    @property
    def queues(self) -> dict[str, str]:
        return {f"{kind}_queue": f"{self.name}-{kind}" for kind in ("request", "result", "dead_letter")}

    @property
    def calls(self) -> list[str]:
        """Ids of the notes that workers were asked about, once for each call."""
        file = self.folder / "calls.txt"
        return file.read_text().splitlines() if file.exists() else []

    def make_queues(self) -> None:
        sqs = self.stack.client("sqs")
        for name in self.queues.values():
            sqs.create_queue(QueueName=name)

    def sent(self) -> int:
        """Messages in the request queue."""
        sqs = self.stack.client("sqs")
        url = sqs.get_queue_url(QueueName=self.queues["request_queue"])["QueueUrl"]
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        found = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=names)["Attributes"]
        return sum(int(found[name]) for name in names)

    def query(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        """Rows of the store."""
        with psycopg.connect(self.store) as connection:
            return connection.execute(sql, values).fetchall()

    def connection(self, port: int, database: str) -> dict[str, dict[str, Any]]:
        """The connections of this deployment, for Airflow."""
        extra = {
            **self.queues,
            "claim_check_uri": str(self.folder / "claims"),
            "inline_limit_bytes": 1000,
            "region": ministack.REGION,
            # One of them has its keys from a connection, the others from the environment.
            **({"aws_conn_id": "lake"} if self.name == "ai_jobs" else {}),
            "store_conn_id": f"{self.name}_store",
            "webhook_secret": SECRET,
            "webhook_second_secret": OLD_SECRET,
        }
        store = {"conn_type": "postgres", "host": "127.0.0.1", "port": port, "login": "postgres", "schema": database}
        return {
            self.name: {"conn_type": "ai_jobs", "host": self.stack.url, "extra": extra},
            f"{self.name}_store": store,
        }

    @contextmanager
    def worker(self, **tables: dict[str, Any]) -> Iterator[processes.Service]:
        """A worker process; by default it calls ``tests.end_to_end.job_handler``."""
        port = processes.free_port()
        spec = {
            "transport": {"kind": "sqs", "endpoint_url": self.stack.url, "region": ministack.REGION, **self.queues},
            "store": {"url": self.store},
            "claim_check": {"uri": str(self.folder / "claims"), "inline_limit_bytes": 1000},
            "worker": {"concurrency": 8, "poll_seconds": 1, "grace_seconds": 2, "health_port": port},
            **(tables or {"handler": {"target": "tests.end_to_end.job_handler:answer"}}),
        }
        file = self.folder / "jobs.toml"
        file.write_text(tomli_w.dumps(spec))
        env = {
            **self.stack.environment(),
            "PYTHONPATH": str(REPOSITORY),
            "CALLS_FILE": str(self.folder / "calls.txt"),
            "WEBHOOK_SECRET": OLD_SECRET,
        }
        with processes.running(
            f"worker of {self.name}",
            [AIRFLOW_AI, "worker", file],
            log_path=self.folder / "worker.log",
            env=processes.child_environment(env),
            cwd=REPOSITORY,
            ready=lambda: processes.http_ok(f"http://127.0.0.1:{port}/health/ready"),
            deadline_seconds=60.0,
        ) as service:
            yield service


@dataclass(frozen=True, kw_only=True, slots=True)
class JobAirflow:
    """The running Airflow, the deployments, the lake and the warehouse."""

    airflow: RunningAirflow
    deployments: dict[str, Deployment]
    lake: Path
    warehouse: str
    metadata: str
    model: ModelServer
    made: set[str] = field(default_factory=set)

    @property
    def api(self) -> AirflowApi:
        return self.airflow.api

    @property
    def scenario(self) -> Deployment:
        return self.deployments["scenario_jobs"]

    def write(self, name: str, rows: int, *, text: str = "", bulk: int = 0) -> list[str]:
        """Write the notes of a data set; their ids. With ``bulk`` they are too large for a message."""
        folder = self.lake / name
        folder.mkdir(parents=True)
        ids = [f"{CANARY}-{name.replace('/', '-')}-{number}" for number in range(rows)]
        notes = [{"note_id": key, "note": f"word {text} {CANARY} {'x' * bulk}"} for key in ids]
        (folder / "notes.jsonl").write_text("".join(json.dumps(note) + "\n" for note in notes))
        return ids

    def start(self, dag_id: str, name: str) -> str:
        """Trigger a scenario on a data set; its run."""
        return self.api.trigger(dag_id, conf={"input": name})

    def instances(self, dag_id: str, run_id: str) -> list[dict[str, Any]]:
        """The instances of the task that asks."""
        return [ti for ti in self.api.task_instances(dag_id, run_id) if ti["task_id"] == "ask"]

    def wait_deferred(
        self, dag_id: str, run_id: str, count: int = 1, *, after_try: int = 0, seconds: float = 180
    ) -> int:
        """Until so many tasks wait, on a later attempt, and a triggerer has their triggers; the latest attempt."""
        tries: list[int] = []

        def deferred() -> bool:
            found = self.instances(dag_id, run_id)
            assert not [ti for ti in found if ti["state"] == "failed"]
            waiting = [ti for ti in found if ti["state"] == "deferred" and ti["try_number"] > after_try]
            tries[:] = [ti["try_number"] for ti in waiting]
            return len(waiting) == count and all(ti["triggerer_job"] for ti in waiting)

        processes.wait_until(deferred, deadline_seconds=seconds, what=f"{count} tasks of {dag_id} are deferred")
        return max(tries)

    def answers(self, name: str) -> list[tuple[int, str]]:
        """The rows that a data set led to."""
        sql = "SELECT length, first_word FROM answers WHERE _source_file LIKE %s ORDER BY length"
        with psycopg.connect(self.warehouse) as connection:
            return [tuple(row) for row in connection.execute(sql, [f"%/{name}/%"]).fetchall()]  # type: ignore[misc]


@pytest.fixture(scope="module")
def job_airflow(
    tmp_path_factory: pytest.TempPathFactory,
    postgres_server: PostgresServer,
    model_server: ModelServer,
    ministack_server: MiniStack,
) -> Iterator[JobAirflow]:
    """Started once for the module."""
    root = tmp_path_factory.mktemp("jobs")
    lake, dags = root / "lake", root / "dags"
    for folder in (lake, dags):
        folder.mkdir()
    for name in ("request_reply.py", "event_driven.py", "dead_letter_redrive.py"):
        shutil.copy(REPOSITORY / "dags" / name, dags)
    shutil.copy(Path(__file__).parent / "dags" / "job_scenarios.py", dags)
    connections: dict[str, dict[str, Any]] = {}
    deployments = {}
    for name in ("ai_jobs", "scenario_jobs", "hook_jobs"):
        database = postgres_server.create_database(name)
        (root / name).mkdir()
        made = Deployment(name=name, stack=ministack_server, store=postgres_server.url(database), folder=root / name)
        made.make_queues()
        deployments[name] = made
        connections |= made.connection(postgres_server.port, database)
    warehouse = postgres_server.create_database("job_warehouse")
    environment = airflow_env.airflow_environment(
        root / "airflow",
        postgres=postgres_server,
        dags_folder=dags,
        plugins_folder=REPOSITORY / "plugins",
        connections={
            **connections,
            "warehouse": {
                "conn_type": "postgres",
                "host": "127.0.0.1",
                "port": postgres_server.port,
                "login": "postgres",
                "schema": warehouse,
            },
            "lake": {
                "conn_type": "aws",
                "login": ministack.ACCESS_KEY,
                "password": ministack.SECRET_KEY,
                "extra": {"region_name": ministack.REGION},
            },
        },
        settings={
            "AI_LAKE_ROOT": str(lake),
            "AIRFLOW__AI_PATTERNS__WEBHOOK_CONN_ID": "hook_jobs",
            **ministack_server.environment(),
        },
    )
    metadata = environment.env["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"].replace("+psycopg2", "")
    with airflow_env.components(environment) as airflow:
        for dag_id in DAGS:
            airflow.api.wait_for_dag(dag_id)
        yield JobAirflow(
            airflow=airflow,
            deployments=deployments,
            lake=lake,
            warehouse=postgres_server.url(warehouse),
            metadata=metadata,
            model=model_server,
        )


def model_tables(model: ModelServer) -> dict[str, Any]:
    """The tables of a worker's spec that let it ask MLServer."""
    endpoint = {
        "url": model.url,
        "protocol": "open-inference",
        "model": MODEL,
        "columns": clinical_data.feature_columns(),
        "output_names": ["predict", "predict_proba"],
    }
    return {"endpoint": endpoint}
