"""Deployments of jobs for a real Airflow: queues in MiniStack or topics of Kafka, a store in PostgreSQL, workers."""

from __future__ import annotations

import base64
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import tomli_w

from tests.support import ministack, processes
from tests.support.kafka import KafkaCluster
from tests.support.ministack import MiniStack
from tests.support.processes import REPOSITORY

SECRET = "whsec_" + base64.b64encode(b"w" * 32).decode()
OLD_SECRET = "whsec_" + base64.b64encode(b"o" * 32).decode()
AIRFLOW_AI = Path(sys.executable).with_name("airflow-ai")
HANDLER = "tests.end_to_end.job_handler"


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
    def transport(self) -> dict[str, Any]:
        """The table of a worker's spec."""
        return {"kind": "sqs", "endpoint_url": self.stack.url, "region": ministack.REGION, **self.queues}

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

    def connections(self, port: int, database: str) -> dict[str, dict[str, Any]]:
        """The connections of this deployment, for Airflow."""
        told = dict(self.transport)
        host = told.pop("endpoint_url", None) or told.pop("bootstrap_servers")
        extra = {
            **told,
            "claim_check_uri": str(self.folder / "claims"),
            "inline_limit_bytes": 1000,
            # One of them has its keys from a connection, the others from the environment.
            **({"aws_conn_id": "lake"} if self.name == "ai_jobs" else {}),
            "store_conn_id": f"{self.name}_store",
            "webhook_secret": SECRET,
            "webhook_second_secret": OLD_SECRET,
        }
        store = {"conn_type": "postgres", "host": "127.0.0.1", "port": port, "login": "postgres", "schema": database}
        return {self.name: {"conn_type": "ai_jobs", "host": host, "extra": extra}, f"{self.name}_store": store}

    @contextmanager
    def worker(self, function: str = "answer", **tables: dict[str, Any]) -> Iterator[processes.Service]:
        """A worker process that calls a function of ``tests.end_to_end.job_handler``.

        :param tables: of its spec, in place of the usual ones; with an [endpoint] it calls no function
        """
        port = processes.free_port()
        working = {"concurrency": 8, "poll_seconds": 1, "grace_seconds": 2, "health_port": port}
        spec = {
            "transport": self.transport,
            "store": {"url": self.store},
            "claim_check": {"uri": str(self.folder / "claims"), "inline_limit_bytes": 1000},
            **({} if "endpoint" in tables else {"handler": {"target": f"{HANDLER}:{function}"}}),
            **tables,
            "worker": {**working, **tables.get("worker", {})},
        }
        file = self.folder / f"{function}.toml"
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
            log_path=self.folder / f"{function}.log",
            env=processes.child_environment(env),
            cwd=REPOSITORY,
            ready=lambda: processes.http_ok(f"http://127.0.0.1:{port}/health/ready"),
            deadline_seconds=60.0,
        ) as service:
            yield service


@dataclass(frozen=True, kw_only=True, slots=True)
class KafkaDeployment(Deployment):
    """The same on topics. The cluster draws out each rebalance for almost as long as a session."""

    cluster: KafkaCluster

    @property
    def transport(self) -> dict[str, Any]:
        servers = {"bootstrap_servers": self.cluster.bootstrap_servers, "session_timeout_seconds": 4}
        return {"kind": "kafka", **servers, **self.queues}

    def make_queues(self) -> None:
        for name in self.queues.values():
            self.cluster.make_topic(name)
