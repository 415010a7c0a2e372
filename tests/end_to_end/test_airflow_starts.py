"""The real Airflow that the other end-to-end tests run on: it starts, runs a DAG asked for over REST, and leaves."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import psutil
import pytest

from tests.support import airflow_env
from tests.support.airflow_env import RunningAirflow
from tests.support.postgres import PostgresServer
from tests.support.processes import ServiceError

TRIVIAL_DAG = '''
"""Two mapped tasks that leave an XCom and a stored state."""

from __future__ import annotations

import pendulum
from airflow.sdk import DAG, CronTriggerTimetable, task

with DAG(
    "trivial",
    schedule=CronTriggerTimetable("0 2 * * *", timezone="UTC"),
    start_date=pendulum.datetime(2026, 3, 1, tz="UTC"),
    end_date=pendulum.datetime(2026, 3, 4, tz="UTC"),
):

    @task
    def answer(n, task_state_store=None):
        task_state_store.set("progress", {"n": n})
        return n + 1

    answer.expand(n=[1, 2])
'''


def states(airflow: RunningAirflow, run_id: str) -> dict[int, tuple[str, int]]:
    """Map index → state and try number."""
    instances = airflow.api.task_instances("trivial", run_id)
    return {instance["map_index"]: (instance["state"], instance["try_number"]) for instance in instances}


def check_trivial_run(airflow: RunningAirflow) -> None:
    """Trigger, look inside, clear one mapped index."""
    airflow.api.wait_for_dag("trivial")
    run_id = airflow.api.trigger("trivial")
    airflow.api.wait_for_run("trivial", run_id, deadline_seconds=90)
    assert states(airflow, run_id) == {0: ("success", 1), 1: ("success", 1)}
    assert [airflow.api.xcom("trivial", run_id, "answer", map_index=index) for index in (0, 1)] == [2, 3]
    assert airflow.api.task_state("trivial", run_id, "answer", map_index=1) == {"progress": {"n": 2}}

    airflow.api.clear("trivial", run_id, [("answer", 1)])
    airflow.api.wait_for_run("trivial", run_id, deadline_seconds=90)
    assert states(airflow, run_id) == {0: ("success", 1), 1: ("success", 2)}


def check_broken_dag(airflow: RunningAirflow) -> None:
    """Waiting for a DAG that does not import ends with its import error instead of a timeout."""
    (airflow.environment.dags_folder / "broken.py").write_text("from airflow.sdk import DAG\nimport no_such_module\n")
    with pytest.raises(ServiceError, match="no_such_module"):
        airflow.api.wait_for_dag("broken")


def check_nothing_is_left(airflow: RunningAirflow, pids: set[int]) -> None:
    """No process of Airflow lives on: neither those seen while it ran, nor any in its process groups."""
    assert all(service.members() == set() for service in airflow.services.values())
    left = [pid for pid in pids if psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE]
    assert left == []


def pids_of(airflow: RunningAirflow) -> set[int]:
    return {process.pid for service in airflow.services.values() for process in service.members()}


def test_components_on_postgres(tmp_path: Path, postgres_server: PostgresServer) -> None:
    """API server, scheduler, dag processor and triggerer apart, on PostgreSQL; a backfill from the command line."""
    environment = airflow_env.airflow_environment(tmp_path / "airflow", postgres=postgres_server)
    (environment.dags_folder / "trivial.py").write_text(TRIVIAL_DAG)
    with airflow_env.components(environment) as airflow:
        pids = pids_of(airflow)
        check_trivial_run(airflow)
        environment.backfill("trivial", date(2026, 3, 1), date(2026, 3, 3))
        runs = airflow.api.wait_for_backfill("trivial", runs=3, deadline_seconds=120)
        assert [run["logical_date"][:10] for run in runs] == ["2026-03-01", "2026-03-02", "2026-03-03"]
        assert len(pids) >= len(airflow_env.COMPONENTS)
    check_nothing_is_left(airflow, pids)


def test_standalone_on_sqlite(tmp_path: Path) -> None:
    """`airflow standalone` with its own SQLite: what the demo and a first-time user run."""
    environment = airflow_env.airflow_environment(tmp_path / "airflow")
    (environment.dags_folder / "trivial.py").write_text(TRIVIAL_DAG)
    with airflow_env.standalone(environment) as airflow:
        pids = pids_of(airflow)
        check_trivial_run(airflow)
        check_broken_dag(airflow)
    check_nothing_is_left(airflow, pids)


def test_the_callers_airflow_settings_do_not_leak_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment is made of its arguments: connections become variables, inherited AIRFLOW variables do not."""
    monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", "NoSuchExecutor")
    environment = airflow_env.airflow_environment(
        tmp_path / "airflow", connections={"risk_model": {"conn_type": "http", "host": "127.0.0.1"}}
    )
    assert "AIRFLOW__CORE__EXECUTOR" not in environment.env
    assert environment.env["AIRFLOW_CONN_RISK_MODEL"] == '{"conn_type": "http", "host": "127.0.0.1"}'
    assert environment.run("config", "get-value", "core", "executor").strip().endswith("LocalExecutor")
