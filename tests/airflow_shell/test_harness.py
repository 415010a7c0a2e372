"""The in-process Airflow that the tests of the shells rely on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any


def test_a_dag_made_in_a_test_runs_and_its_xcom_can_be_read(
    run_dag: Callable[..., Any], xcom: Callable[..., Any]
) -> None:
    """A mapped task runs in process, each index with its own XCom."""
    from airflow.sdk import DAG, task

    with DAG("harness") as dag:

        @task
        def double(n: int) -> int:
            return 2 * n

        double.expand(n=[1, 2])

    run = run_dag(dag)
    assert run.state == "success"
    assert [xcom(run, "double", map_index=index) for index in (0, 1)] == [2, 4]


def test_connections_come_from_the_test(set_connection: Callable[..., None]) -> None:
    """A connection set by a test is what a hook gets."""
    from airflow.sdk import BaseHook

    set_connection("somewhere", conn_type="http", host="127.0.0.1", extra={"key": "value"})
    connection = BaseHook.get_connection("somewhere")
    assert (connection.host, connection.extra_dejson) == ("127.0.0.1", {"key": "value"})


def test_airflow_lives_in_a_home_of_its_own(airflow_home: Path) -> None:
    """No test reads or writes the home of the person who runs it."""
    from airflow.configuration import AIRFLOW_HOME, conf

    assert Path(AIRFLOW_HOME) == airflow_home
    assert conf.get("database", "sql_alchemy_conn") == f"sqlite:///{airflow_home}/airflow.db"
