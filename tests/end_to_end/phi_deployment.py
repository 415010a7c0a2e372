"""A deployment for health data: Airflow, queues, store, worker and dispatcher, all under the switch; marked records."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import tomli_w

from airflow_provider_ai.adapters.audit.event_table import AuditReader
from airflow_provider_ai.adapters.audit.signing import new_key_pair
from airflow_provider_ai.adapters.store import open_store
from airflow_provider_ai.core.audit_formats import AS
from airflow_provider_ai.core.keyring import keyring_text
from airflow_provider_ai.runtime.audit_export import ExportFilter, exported
from tests.end_to_end.job_deployment import AIRFLOW_AI, Deployment
from tests.support import airflow_env, canaries, ministack, processes
from tests.support.airflow_env import RunningAirflow
from tests.support.airflow_rest import AirflowApi
from tests.support.canaries import Canaries
from tests.support.keys import local_keys
from tests.support.ministack import MiniStack
from tests.support.postgres import PostgresServer
from tests.support.processes import REPOSITORY
from tests.support.quoting_model import REFUSE, QuotingModel, quoting_model

MARKED = ("id", "name", "mrn", "phone", "note", "long", "output")
DAGS = ("phi_everywhere", "phi_failing")
ROWS = 6  # the last one is refused by the model
COLUMNS = ["mrn", "phone", "note"]
HMAC_KEY = "a key of record keys for tests, long enough"


@dataclass(frozen=True, kw_only=True, slots=True)
class PhiAirflow:
    """What runs, and the marks to look for."""

    airflow: RunningAirflow
    jobs: Deployment
    stack: MiniStack
    bucket: str
    model: QuotingModel
    canaries: Canaries
    warehouse: str
    metadata: str

    @property
    def api(self) -> AirflowApi:
        return self.airflow.api

    def places(self) -> dict[str, bytes]:
        """Everything that must not show a mark, as it is now."""
        tables = {
            f"{where}: {place}": data
            for where, url in (("metadata", self.metadata), ("store", self.jobs.store))
            for place, data in canaries.tables(url).items()
        }
        sqs = self.stack.client("sqs")
        queues = [canaries.messages(sqs, name) for name in self.jobs.queues.values()]
        kept = canaries.files(self.airflow.environment.home, self.jobs.folder)
        held = {**tables, **kept, **canaries.objects(self.stack.client("s3"), self.bucket), **self._exports()}
        return held | {place: data for queue in queues for place, data in queue.items()}

    def _exports(self) -> dict[str, bytes]:
        store = open_store(self.jobs.store)
        try:
            reader = AuditReader(store)
            return {f"export {form}": b"\n".join(exported(reader, form, ExportFilter())) for form in AS}
        finally:
            store.close()

    def refuse_rows(self, table: str, like: str) -> None:
        """Make a table that no row goes into; PostgreSQL quotes each in its error."""
        with psycopg.connect(self.warehouse) as connection:
            connection.execute(f"CREATE TABLE {table} (LIKE {like}, CHECK (verdict = ''))")

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """Rows of the warehouse."""
        with psycopg.connect(self.warehouse) as connection:
            return connection.execute(sql).fetchall()

    @contextmanager
    def worker(self) -> Iterator[processes.Service]:
        """Asks the model."""
        endpoint = {"url": self.model.url, "protocol": "json", "model": "m", "columns": COLUMNS}
        with self.jobs.worker(endpoint=endpoint, **_guarding()) as service:
            yield service

    @contextmanager
    def dispatcher(self) -> Iterator[processes.Service]:
        """Takes replies from their queue."""
        file = self.jobs.folder / "dispatcher.toml"
        claims = {"uri": str(self.jobs.folder / "claims"), "inline_limit_bytes": 1000}
        tables = {"transport": self.jobs.transport, "store": {"url": self.jobs.store}, "claim_check": claims}
        file.write_text(tomli_w.dumps({**tables, **_guarding(), "dispatcher": {"poll_seconds": 1}}))
        with processes.running(
            "dispatcher",
            [AIRFLOW_AI, "dispatcher", file],
            log_path=self.jobs.folder / "dispatcher.log",
            env=processes.child_environment({**self.stack.environment(), "PYTHONPATH": str(REPOSITORY)}),
            cwd=REPOSITORY,
            ready=lambda: True,
            deadline_seconds=60.0,
        ) as service:
            yield service


def _guarding() -> dict[str, Any]:
    """The tables of a spec that guard it; its keys lie beside it."""
    audit = {
        "heads": "heads",
        "hmac_key_file": "hmac.key",
        "signing_key_file": "signing.pem",
        "purpose": "TREAT",
    }
    encryption = {"kind": "local", "keyring_file": "keyring.json"}
    return {"phi": {"enabled": True}, "encryption": encryption, "audit": audit}


def visits(marks: Canaries) -> pa.Table:
    """Marks in every column; one note is too long for a message, one is refused."""
    notes = [f"coughs, {marks['note']}, since {number} days" for number in range(ROWS)]
    notes[1] += f" {marks['long']}" + " and so on" * 300
    notes[-1] += f" {REFUSE}"
    columns = {
        "visit": [f"{marks['id']}-{number}" for number in range(ROWS)],
        "name": [f"Mr {marks['name']}"] * ROWS,
        "mrn": [f"{marks['mrn']}{number}" for number in range(ROWS)],
        "phone": [f"+49 {marks['phone']}"] * ROWS,
        "note": notes,
    }
    return pa.table(columns)


@contextmanager
def phi_airflow(root: Path, postgres: PostgresServer, stack: MiniStack, *, seed: int) -> Iterator[PhiAirflow]:
    """Started, with its DAGs in it; nothing has run yet."""
    marks = Canaries.of_seed(seed, *MARKED)
    for name in ("lake/visits", "lake/twice", "dags", "jobs"):
        (root / name).mkdir(parents=True)
    rows = visits(marks)
    pq.write_table(rows, root / "lake" / "visits" / "visits.parquet")
    pq.write_table(pa.concat_tables([rows, rows]), root / "lake" / "twice" / "visits.parquet")
    shutil.copy(Path(__file__).parent / "dags" / "phi_everywhere.py", root / "dags")
    database, warehouse = postgres.create_database("phi_store"), postgres.create_database("phi_warehouse")
    jobs = Deployment(name="phi_jobs", store=postgres.url(database), folder=root / "jobs", stack=stack)
    jobs.make_queues()
    _upgrade(jobs.store)
    bucket = stack.make_bucket("phi")
    with ExitStack() as running:
        model = running.enter_context(quoting_model(marks["output"]))
        environment = airflow_env.airflow_environment(
            root / "airflow",
            postgres=postgres,
            dags_folder=root / "dags",
            plugins_folder=REPOSITORY / "plugins",
            connections={
                **_keys(jobs.folder),
                **_connections(jobs, postgres.port, database, warehouse),
                "phi_model": {
                    "conn_type": "ai_endpoint",
                    "host": model.url,
                    "extra": {"protocol": "json", "model": "m", "keys_conn_id": "ai_keys", "phi": True},
                },
            },
            settings={
                "AI_LAKE_ROOT": str(root / "lake"),
                "AI_OUTPUTS": f"s3://{bucket}/outputs/",
                "AI_CHECKPOINTS": f"s3://{bucket}/checkpoints/",
                "AIRFLOW__AI_PROVIDER__PHI": "True",
                "AIRFLOW__LOGGING__LOGGING_LEVEL": "DEBUG",
                **stack.environment(),
            },
        )
        airflow = running.enter_context(airflow_env.components(environment))
        for dag_id in DAGS:
            airflow.api.wait_for_dag(dag_id)
        yield PhiAirflow(
            airflow=airflow,
            jobs=jobs,
            stack=stack,
            bucket=bucket,
            model=model,
            canaries=Canaries(marks=marks.marks, fernet_key=environment.env["AIRFLOW__CORE__FERNET_KEY"]),
            warehouse=postgres.url(warehouse),
            metadata=environment.env["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"].replace("+psycopg2", ""),
        )


def _upgrade(store: str) -> None:
    opened = open_store(store)
    opened.upgrade()
    opened.close()


def _keys(folder: Path) -> dict[str, dict[str, Any]]:
    """The connections with keys; the same keys in files, for worker and dispatcher."""
    keyring, (signing, _) = keyring_text(local_keys("first")), new_key_pair()
    for name, text in {"keyring.json": keyring, "signing.pem": signing, "hmac.key": HMAC_KEY}.items():
        (folder / name).write_text(text)
    audit = {"signing_key": signing, "store_conn_id": "phi_jobs_store", "purpose": "TREAT"}
    return {
        "ai_keys": {"conn_type": "ai_keys", "password": keyring},
        "ai_audit": {"conn_type": "ai_audit", "host": str(folder / "heads"), "password": HMAC_KEY, "extra": audit},
        "ai_redaction_key": {"conn_type": "generic", "password": "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="},
    }


def _connections(jobs: Deployment, port: int, database: str, warehouse: str) -> dict[str, dict[str, Any]]:
    """Jobs, store, warehouse and lake."""
    made = jobs.connections(port, database)
    made["phi_jobs"]["extra"] |= {"keys_conn_id": "ai_keys", "phi": True}
    extra = {"region_name": ministack.REGION, "endpoint_url": jobs.stack.url}
    return {
        **made,
        "ai_store": made["phi_jobs_store"],
        "warehouse": {**made["phi_jobs_store"], "schema": warehouse},
        "lake": {
            "conn_type": "aws",
            "login": ministack.ACCESS_KEY,
            "password": ministack.SECRET_KEY,
            "extra": extra,
        },
    }
