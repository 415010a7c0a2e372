"""An Airflow inside the test process: environment before the first import, a migrated database copied per session.

The DAGs folder stays empty, because `dag.test()` re-syncs the whole folder on each call; a DAG made in a test is
serialised by :func:`run_dag` instead. What runs here is the shells' own code; deferral is proven in tests/end_to_end.
"""

from __future__ import annotations

import base64
import json
import os
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from airflow.models.dagrun import DagRun
    from airflow.sdk import DAG

HOME = Path(tempfile.mkdtemp(prefix="airflow-shell-"))
SETTINGS = {
    "AIRFLOW_HOME": str(HOME),
    "AIRFLOW__API_AUTH__JWT_SECRET": secrets.token_hex(32),
    "AIRFLOW__CORE__DAGS_FOLDER": str(HOME / "dags"),
    "AIRFLOW__CORE__FERNET_KEY": base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
    "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    "AIRFLOW__CORE__PLUGINS_FOLDER": str(HOME / "plugins"),
    "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
    "AIRFLOW__CORE__UNIT_TEST_MODE": "False",
    "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{HOME}/airflow.db",
    "AIRFLOW__LOGGING__LOGGING_LEVEL": "WARNING",
}


for _name in ("dags", "plugins"):
    (HOME / _name).mkdir()
os.environ.update(SETTINGS)


@pytest.fixture(scope="session", autouse=True)
def airflow_home() -> Iterator[Path]:
    """Airflow's home, with a migrated metadata database; removed with the session."""
    from tests.support.airflow_env import sqlite_template

    shutil.copyfile(sqlite_template(), HOME / "airflow.db")
    yield HOME
    shutil.rmtree(HOME, ignore_errors=True)


@pytest.fixture(autouse=True)
def _connections_are_not_remembered(airflow_home: Path) -> None:
    """What connections in the environment said is looked up once in a process, and would be another test's."""
    from airflow_provider_ai.operators import parse_time, phi_at_parse_time

    for remembered in (parse_time.endpoint_at_parse_time, phi_at_parse_time._transport, phi_at_parse_time._database):
        remembered.cache_clear()


@pytest.fixture
def run_dag(airflow_home: Path) -> Callable[..., DagRun]:
    """``run_dag(dag, conf=None, **options)`` serialises a DAG made in the test, runs it in process, returns its run."""

    def run(dag: DAG, conf: dict[str, Any] | None = None, **options: Any) -> DagRun:
        _serialise(dag)
        return dag.test(run_conf=conf, **options)

    return run


def _serialise(dag: DAG, bundle: str = "dags-folder") -> None:
    from airflow.models.dagbundle import DagBundleModel
    from airflow.models.serialized_dag import SerializedDagModel
    from airflow.serialization.definitions.dag import SerializedDAG
    from airflow.serialization.serialized_objects import LazyDeserializedDAG
    from airflow.utils.session import create_session

    serialised = LazyDeserializedDAG.from_dag(dag)
    with create_session() as session:
        session.merge(DagBundleModel(name=bundle))
        session.flush()
        SerializedDAG.bulk_write_to_db(bundle, None, [serialised], session=session)
        session.flush()
        SerializedDagModel.write_dag(serialised, bundle_name=bundle, session=session)


@pytest.fixture
def xcom(airflow_home: Path) -> Callable[..., Any]:
    """``xcom(run, task_id, map_index=-1, key="return_value")`` is the value a task pushed, None when it pushed none."""

    def pull(run: DagRun, task_id: str, *, map_index: int = -1, key: str = "return_value") -> Any:
        from airflow.models.xcom import XComModel
        from airflow.utils.session import create_session

        query = XComModel.get_many(
            run_id=run.run_id, dag_ids=run.dag_id, task_ids=task_id, map_indexes=map_index, key=key
        )
        with create_session() as session:
            found = session.scalars(query).first()
            return None if found is None else XComModel.deserialize_value(found)

    return pull


@pytest.fixture
def set_connection(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """``set_connection(conn_id, conn_type=…, host=…, extra={…})`` through the environment, where tasks look too."""

    def define(conn_id: str, **fields: Any) -> None:
        monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", json.dumps(fields))

    return define
