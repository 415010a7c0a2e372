"""A real Airflow with deployments of jobs, for all tests of the asynchronous pattern."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.end_to_end.job_deployment import Deployment, KafkaDeployment
from tests.support import airflow_env, clinical_data, ministack, processes
from tests.support.airflow_env import RunningAirflow
from tests.support.airflow_rest import AirflowApi
from tests.support.kafka import KafkaCluster
from tests.support.ministack import MiniStack
from tests.support.mlserver import MODEL, ModelServer
from tests.support.postgres import PostgresServer
from tests.support.processes import REPOSITORY

CANARY = "CANARY-4be1907d"  # in every note and its id; found nowhere but in the lake, the queues and the stores
DAGS = (
    "nightly_note_replies",
    "replies_arrived",
    "dead_letter_redrive",
    "ask_once",
    "ask_anew",
    "ask_here",
    "ask_by_webhook",
    "ask_over_kafka",
    "fifty_waits",
)
_Deployments = dict[str, tuple[Deployment, str]]


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


def _deployments(root: Path, postgres: PostgresServer, stack: MiniStack, cluster: KafkaCluster) -> _Deployments:
    """Each with its database's name; its queues are made."""
    made: _Deployments = {}
    for name in ("ai_jobs", "scenario_jobs", "hook_jobs", "kafka_jobs"):
        database = postgres.create_database(name)
        given: dict[str, Any] = {"name": name, "store": postgres.url(database), "folder": root / name, "stack": stack}
        new = KafkaDeployment(**given, cluster=cluster) if name == "kafka_jobs" else Deployment(**given)
        new.folder.mkdir()
        new.make_queues()
        made[name] = new, database
    return made


@pytest.fixture(scope="session")
def job_airflow(
    tmp_path_factory: pytest.TempPathFactory,
    postgres_server: PostgresServer,
    model_server: ModelServer,
    ministack_server: MiniStack,
    kafka_cluster: KafkaCluster,
) -> Iterator[JobAirflow]:
    """Started once for the session."""
    root = tmp_path_factory.mktemp("jobs")
    lake, dags = root / "lake", root / "dags"
    for folder in (lake, dags):
        folder.mkdir()
    for name in ("request_reply.py", "event_driven.py", "dead_letter_redrive.py"):
        shutil.copy(REPOSITORY / "dags" / name, dags)
    shutil.copy(Path(__file__).parent / "dags" / "job_scenarios.py", dags)
    deployments = _deployments(root, postgres_server, ministack_server, kafka_cluster)
    connections: dict[str, dict[str, Any]] = {}
    for deployment, database in deployments.values():
        connections |= deployment.connections(postgres_server.port, database)
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
            deployments={name: deployment for name, (deployment, _) in deployments.items()},
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
