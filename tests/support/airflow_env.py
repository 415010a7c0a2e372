"""A real Airflow: a home of its own, a migrated metadata database, free ports, and the processes that make it run.

No `AIRFLOW*` variable of the caller leaks into it. The metadata database is SQLite, or PostgreSQL where REST writes may
come concurrently (they break SQLite). A migrated database is made once and copied: a copy costs milliseconds.
"""

from __future__ import annotations

import base64
import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psycopg

from tests.support import processes
from tests.support.airflow_rest import AirflowApi, airflow_api
from tests.support.postgres import PostgresServer

AIRFLOW = Path(sys.executable).with_name("airflow")
COMPONENTS = ("api-server", "scheduler", "dag-processor", "triggerer")
TEMPLATE_DATABASE = "airflow_template"


@dataclass(frozen=True, kw_only=True, slots=True)
class AirflowEnvironment:
    """Everything an Airflow process needs to know; nothing runs yet. ``env`` is the whole environment."""

    home: Path
    port: int
    env: dict[str, str] = field(repr=False)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def dags_folder(self) -> Path:
        return Path(self.env["AIRFLOW__CORE__DAGS_FOLDER"])

    @property
    def logs_folder(self) -> Path:
        return self.home / "logs"

    def run(self, *arguments: str, timeout_seconds: float = 120.0) -> str:
        """Run an `airflow` command to its end; its stdout. :class:`processes.ServiceError` with stderr on failure."""
        done = subprocess.run(
            [str(AIRFLOW), *arguments],
            env=self.env,
            cwd=self.home,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_seconds,
            check=False,
        )
        if done.returncode:
            raise processes.ServiceError(f"airflow {' '.join(arguments)} failed:\n{done.stdout}\n{done.stderr}")
        return done.stdout

    def backfill(self, dag_id: str, first: date, last: date, *options: str) -> str:
        """Create a backfill of ``[first, last]``, both UTC days included, as an operator does on the command line.

        A bare ``--to-date`` is that day's midnight, which would leave out the last run of a DAG scheduled at 02:00.
        """
        dates = ("--from-date", first.isoformat(), "--to-date", f"{last.isoformat()}T23:59:59+00:00")
        return self.run("backfill", "create", "--dag-id", dag_id, *dates, *options)


@dataclass(frozen=True, kw_only=True, slots=True)
class RunningAirflow:
    """A healthy Airflow: its processes by component name (`standalone` is one) and a client of its REST API.

    Whatever is in ``services`` at the end is stopped.
    """

    environment: AirflowEnvironment
    services: dict[str, processes.Service]
    api: AirflowApi


def airflow_environment(
    home: Path,
    *,
    postgres: PostgresServer | None = None,
    dags_folder: Path | None = None,
    plugins_folder: Path | None = None,
    connections: Mapping[str, Mapping[str, Any]] | None = None,
    settings: Mapping[str, str] | None = None,
) -> AirflowEnvironment:
    """Prepare ``home`` and a migrated metadata database: SQLite inside ``home``, or a new database on ``postgres``.

    :param connections: id → ``{"conn_type": …, "host": …, "extra": {…}}``
    :param settings: further environment variables; they win
    """
    for folder in (home, home / "dags", home / "plugins"):
        folder.mkdir(parents=True, exist_ok=True)
    port = processes.free_port()
    env = _base_environment(home, port)
    env["AIRFLOW__CORE__DAGS_FOLDER"] = str(dags_folder or home / "dags")
    env["AIRFLOW__CORE__PLUGINS_FOLDER"] = str(plugins_folder or home / "plugins")
    for name, connection in (connections or {}).items():
        env[f"AIRFLOW_CONN_{name.upper()}"] = json.dumps(dict(connection))
    env["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"] = _sqlite_copy(home) if postgres is None else _postgres_copy(postgres)
    return AirflowEnvironment(home=home, port=port, env=env | dict(settings or {}))


def _base_environment(home: Path, port: int) -> dict[str, str]:
    inherited = {name: value for name, value in processes.child_environment().items() if not name.startswith("AIRFLOW")}
    url = f"http://127.0.0.1:{port}"
    return {
        **inherited,
        "PATH": f"{AIRFLOW.parent}{os.pathsep}{inherited.get('PATH', os.defpath)}",
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__API__BASE_URL": url,
        "AIRFLOW__API__HOST": "127.0.0.1",
        "AIRFLOW__API__PORT": str(port),
        "AIRFLOW__API__SECRET_KEY": secrets.token_hex(32),
        "AIRFLOW__API_AUTH__JWT_SECRET": secrets.token_hex(32),
        "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{url}/execution/",
        "AIRFLOW__CORE__FERNET_KEY": base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
        "AIRFLOW__CORE__HOSTNAME_CALLABLE": "socket.gethostname",
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__PARALLELISM": "4",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
        "AIRFLOW__DAG_PROCESSOR__BUNDLE_REFRESH_CHECK_INTERVAL": "1",
        "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "5",
        "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "5",
        "AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT": str(processes.free_port()),
        "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": str(processes.free_port()),
    }


def _sqlite_copy(home: Path) -> str:
    database = home / "airflow.db"
    if not database.exists():
        shutil.copyfile(sqlite_template(), database)
    return f"sqlite:///{database}"


def sqlite_template() -> Path:
    """A migrated SQLite database of this Airflow version, made once per user and machine. Copy it; never open it."""
    versions = f"{version('apache-airflow-core')}-{sys.version_info.major}.{sys.version_info.minor}"
    folder = Path(tempfile.gettempdir()) / f"airflow-provider-ai-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    template = folder / f"airflow-{versions}.db"
    if not template.exists():
        with tempfile.TemporaryDirectory(dir=folder) as home:
            unfinished = Path(home) / "airflow.db"
            _migrate(Path(home), f"sqlite:///{unfinished}")
            unfinished.replace(template)
    return template


def _postgres_copy(server: PostgresServer) -> str:
    with psycopg.connect(server.url(), autocommit=True) as connection:
        found = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [TEMPLATE_DATABASE]).fetchone()
        if found is None:
            unfinished = server.create_database("airflow_unfinished")
            with tempfile.TemporaryDirectory() as home:
                _migrate(Path(home), server.url(unfinished, driver="psycopg2"))
            connection.execute(f"ALTER DATABASE {unfinished} RENAME TO {TEMPLATE_DATABASE}")
    return server.url(server.create_database("airflow", template=TEMPLATE_DATABASE), driver="psycopg2")


def _migrate(home: Path, database_url: str) -> None:
    env = _base_environment(home, processes.free_port()) | {"AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": database_url}
    AirflowEnvironment(home=home, port=0, env=env).run("db", "migrate", timeout_seconds=300.0)


@contextmanager
def standalone(environment: AirflowEnvironment, *, deadline_seconds: float = 180.0) -> Iterator[RunningAirflow]:
    """`airflow standalone`, as the quick start has it; healthy when entered, wholly gone when left."""
    with components(environment, names=["standalone"], deadline_seconds=deadline_seconds) as airflow:
        yield airflow


@contextmanager
def components(
    environment: AirflowEnvironment, *, names: Sequence[str] = COMPONENTS, deadline_seconds: float = 180.0
) -> Iterator[RunningAirflow]:
    """The components apart, so that a test can kill one and put a new one (:func:`start_component`) in its place."""
    with airflow_api(environment.url) as api:
        services: dict[str, processes.Service] = {}
        try:
            for name in names:
                services[name] = start_component(environment, name)
            _wait_healthy(api, list(services.values()), deadline_seconds)
            yield RunningAirflow(environment=environment, services=services, api=api)
        finally:
            processes.stop_all(services.values())


def _wait_healthy(api: AirflowApi, services: Sequence[processes.Service], deadline_seconds: float) -> None:
    def healthy() -> bool:
        for service in services:
            service.require_alive()
        return api.healthy()

    services[0].wait_ready(healthy, deadline_seconds=deadline_seconds)


def start_component(environment: AirflowEnvironment, name: str) -> processes.Service:
    """Start one component (or `standalone`); the caller stops it."""
    command: list[str | Path] = [AIRFLOW, name]
    if name in ("scheduler", "triggerer"):
        command.append("--skip-serve-logs")
    log = environment.home / f"{name}.log"
    return processes.start(f"airflow {name}", command, log_path=log, env=environment.env, cwd=environment.home)
