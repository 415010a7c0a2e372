"""One real Airflow for all tests of the batch pattern: components apart, metadata and warehouse on PostgreSQL.

That of the asynchronous pattern is in :mod:`.job_airflow`.
"""

from __future__ import annotations

import shutil
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.stub import StubServer
from tests.end_to_end.job_airflow import job_airflow
from tests.support import airflow_env, ministack
from tests.support.airflow_env import RunningAirflow
from tests.support.airflow_rest import AirflowApi
from tests.support.ministack import MiniStack
from tests.support.mlserver import MODEL, ModelServer
from tests.support.postgres import PostgresServer
from tests.support.processes import REPOSITORY, free_port

__all__ = ["job_airflow"]
# In every record id and note; found nowhere but in the lake and the warehouse.
CANARY = "CANARY-9f3b7c21"


DAGS = ("several_partitions", "one_partition", "on_s3", "backfilled", "waiting", "nightly_risk_scores")
_OF_ONE_AIRFLOW = {"test_request_reply": "jobs", "test_phi": "phi", "test_airflow_starts": "starts"}
# The DAG of a synchronous call as it ships, and the same DAG on other connections.
TRIAGE = {"triage_visit": "triage_model", "over_grpc": "grpc_model", "dead": "dead_model", "hanging": "hanging_model"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that share an Airflow stay together where several processes run them (`--dist loadgroup`)."""
    for item in items:
        if item.get_closest_marker("e2e") is not None:
            name = next((name for stem, name in _OF_ONE_AIRFLOW.items() if item.path.stem.startswith(stem)), "batch")
            item.add_marker(pytest.mark.xdist_group(name))


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """A DAG run and what a person does with it in the UI."""

    api: AirflowApi
    dag_id: str
    run_id: str

    def wait(self, *, state: str = "success", deadline_seconds: float = 90) -> None:
        """Until it has ended, in this state."""
        self.api.wait_for_run(self.dag_id, self.run_id, deadline_seconds=deadline_seconds, state=state)

    def instances(self, task: str) -> list[dict[str, Any]]:
        """The instances of a task of the group, by map index."""
        found = self.api.task_instances(self.dag_id, self.run_id)
        return sorted((ti for ti in found if ti["task_id"] == f"score.{task}"), key=lambda ti: ti["map_index"])

    def xcom(self, task: str, *, key: str = "return_value", map_index: int = -1) -> Any:
        """What a task of the group pushed."""
        return self.api.xcom(self.dag_id, self.run_id, f"score.{task}", key=key, map_index=map_index)

    def progress(self, task: str, *, map_index: int = -1) -> dict[str, Any]:
        """The progress that the UI shows under Storage."""
        state = self.api.task_state(self.dag_id, self.run_id, f"score.{task}", map_index=map_index)
        return dict(state["progress"])

    def clear(self, *tasks: str | tuple[str, int], wait: bool = True, **flags: Any) -> None:
        """Clear tasks of the group, all of the run without ``tasks``, and wait until it has run again."""
        if tasks:
            named = [f"score.{task}" if isinstance(task, str) else (f"score.{task[0]}", task[1]) for task in tasks]
            self.api.clear(self.dag_id, self.run_id, named, **flags)
        else:
            self.api.clear_run(self.dag_id, self.run_id)
        if wait:
            self.wait()


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchAirflow:
    """The running Airflow, the stub model it calls, the lake and the warehouse."""

    airflow: RunningAirflow
    stub: StubServer
    lake: Path
    warehouse: str
    metadata: str
    late_port: int
    made: set[tuple[str, int]] = field(default_factory=set)

    @property
    def api(self) -> AirflowApi:
        return self.airflow.api

    def write(self, name: str, rows: int, *, part: int = 0) -> list[str]:
        """Write a file of a data set of the lake; its record ids. No name is used by two tests: checkpoints stay."""
        assert (name, part) not in self.made
        self.made.add((name, part))
        ids = [f"{CANARY}-{name}-{part}-{number:04d}" for number in range(rows)]
        folder = self.lake / name
        folder.mkdir(parents=True, exist_ok=True)
        pq.write_table(visits(ids), folder / f"part-{part}.parquet", row_group_size=20)
        return ids

    def query(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        """Rows of the warehouse."""
        with psycopg.connect(self.warehouse) as connection:
            return connection.execute(sql, values).fetchall()

    def start(self, name: str, *, dag_id: str = "several_partitions", **conf: Any) -> Run:
        """Trigger a scenario on a data set."""
        return Run(api=self.api, dag_id=dag_id, run_id=self.api.trigger(dag_id, conf={"input": name, **conf}))

    def run(self, name: str, *, state: str = "success", **conf: Any) -> Run:
        """Trigger a scenario on a data set and wait for its end."""
        run = self.start(name, **conf)
        run.wait(state=state)
        return run

    def calls(self, ids: list[str], stage: str = "called") -> list[int]:
        """How often the model was called for each of these records, counted at the server."""
        counts = self.stub.counts(stage)
        return [counts.get(key, 0) for key in ids]

    def published(self, name: str, table: str = "scenarios") -> list[str]:
        """Labels of the published rows of a data set, one per row; a row's own id is not among its columns."""
        sql = f"SELECT label FROM {table} WHERE _source_file LIKE %s"
        return [label for (label,) in self.query(sql, f"%/{name}/%")]


def visits(ids: list[str]) -> pa.Table:
    """The rows of a data set."""
    return pa.table({"visit_id": ids, "note": [f"note of {key}" for key in ids]})


@pytest.fixture(scope="session")
def batch_airflow(
    tmp_path_factory: pytest.TempPathFactory,
    postgres_server: PostgresServer,
    model_server: ModelServer,
    ministack_server: MiniStack,
) -> Iterator[BatchAirflow]:
    """Started once; the stub keeps counting from test to test, so that a late repeat would be seen."""
    root = tmp_path_factory.mktemp("batch")
    lake, dags = root / "lake", root / "dags"
    dags.mkdir()
    shutil.copy(REPOSITORY / "dags" / "batch_inference.py", dags)
    shutil.copy(Path(__file__).parent / "dags" / "batch_scenarios.py", dags)
    _write_triage(dags)
    database = postgres_server.create_database("warehouse")
    late_port = free_port()
    with StubServer(latency_ms=20, max_in_flight=64) as stub, socket.create_server(("127.0.0.1", 0)) as silent:
        environment = airflow_env.airflow_environment(
            root / "airflow",
            postgres=postgres_server,
            dags_folder=dags,
            plugins_folder=REPOSITORY / "plugins",
            connections={
                **_endpoints(stub, model_server, late_port, silent.getsockname()[1]),
                "warehouse": {
                    "conn_type": "postgres",
                    "host": "127.0.0.1",
                    "port": postgres_server.port,
                    "login": "postgres",
                    "schema": database,
                },
                "lake": {
                    "conn_type": "aws",
                    "login": ministack.ACCESS_KEY,
                    "password": ministack.SECRET_KEY,
                    "extra": {"region_name": ministack.REGION, "endpoint_url": ministack_server.url},
                },
            },
            settings={
                "AI_LAKE_ROOT": str(lake),
                "AI_ROWS_PER_PARTITION": "100",
                "AIRFLOW__CORE__TEST_CONNECTION": "Enabled",
            },
        )
        metadata = environment.env["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"].replace("+psycopg2", "")
        with airflow_env.components(environment) as airflow:
            for dag_id in (*DAGS, *TRIAGE):
                airflow.api.wait_for_dag(dag_id)
            yield BatchAirflow(
                airflow=airflow,
                stub=stub,
                lake=lake,
                warehouse=postgres_server.url(database),
                metadata=metadata,
                late_port=late_port,
            )


def _write_triage(dags: Path) -> None:
    text = (REPOSITORY / "dags" / "sync_call.py").read_text()
    for dag_id, conn_id in TRIAGE.items():
        (dags / f"{dag_id}.py").write_text(
            text.replace('"triage_visit"', f'"{dag_id}"').replace('"triage_model"', f'"{conn_id}"')
        )


def _endpoints(stub: StubServer, model: ModelServer, late_port: int, silent_port: int) -> dict[str, dict[str, Any]]:
    def endpoint(url: str, protocol: str, name: str) -> dict[str, Any]:
        extra = {"protocol": protocol, "model": name}
        return {"conn_type": "ai_endpoint", "host": url, "password": f"key-{CANARY}", "extra": extra}

    slow = endpoint(stub.url, "json", "m")
    return {
        "stub_model": endpoint(stub.url, "json", "m"),
        "late_model": endpoint(f"http://127.0.0.1:{late_port}", "open-inference", "m"),
        "risk_model": endpoint(model.url, "open-inference", MODEL),
        "triage_model": endpoint(model.url, "open-inference", MODEL),
        "grpc_model": endpoint(f"grpc://{model.grpc_target}", "open-inference-grpc", MODEL),
        "dead_model": endpoint(f"http://127.0.0.1:{free_port()}", "open-inference", MODEL),
        "slow_model": {**slow, "extra": {**slow["extra"], "p99_seconds": 8}},
        "hanging_model": endpoint(f"http://127.0.0.1:{silent_port}", "open-inference", MODEL),
    }
