"""A deployment of the asynchronous pattern: queues or topics, a store, workers and dispatchers as processes.

Each process is `airflow-ai worker` or `airflow-ai dispatcher` with one spec file, as a user would start it.
"""

from __future__ import annotations

import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import orjson

from airflow_provider_ai.adapters.claim_checks import InlineOrClaimCheck
from airflow_provider_ai.adapters.queues import open_transport
from airflow_provider_ai.adapters.store import open_store
from airflow_provider_ai.adapters.store.store import Store
from airflow_provider_ai.core.job_messages import request_message
from airflow_provider_ai.core.job_ports import JobStore, Transport
from airflow_provider_ai.core.jobs import Job, JobCounts, NewJob, job_id, submission_key
from airflow_provider_ai.core.transport_settings import Kind, TransportSettings
from tests.support import processes
from tests.support.kafka import KafkaCluster
from tests.support.ministack import ACCESS_KEY, REGION, SECRET_KEY, MiniStack

PROGRAM = Path(".venv/bin/airflow-ai")


@dataclass
class Fleet:
    """See the module. ``spec``: the file, without [worker], [handler] and [endpoint] tables."""

    folder: Path
    transport: Transport
    opened: Store
    tables: dict[str, dict[str, Any]]
    environment: dict[str, str]
    services: list[processes.Service] = field(default_factory=list)

    @property
    def store(self) -> JobStore:
        return self.opened.jobs()

    # --- processes

    def start(self, command: str, *, name: str, **tables: dict[str, Any]) -> processes.Service:
        """`airflow-ai <command>` with further tables of the spec; it is not waited for."""
        return self.run(name, [processes.REPOSITORY / PROGRAM, command, self.write_spec(name, **tables)])

    def write_spec(self, name: str, **tables: dict[str, Any]) -> Path:
        """The spec of a process."""
        spec = self.folder / f"{name}.toml"
        spec.write_text(_toml({**self.tables, **tables}))
        return spec

    def run(self, name: str, command: Sequence[str | Path]) -> processes.Service:
        """Start a process in the fleet's folder and environment."""
        service = processes.start(
            name,
            command,
            log_path=self.folder / f"{name}.log",
            env=processes.child_environment(self.environment),
            cwd=self.folder,
        )
        self.services.append(service)
        return service

    def start_ready(self, command: str, *, name: str, settings: dict[str, Any], **tables: Any) -> processes.Service:
        """Likewise, with a health endpoint that says it is ready."""
        port = processes.free_port()
        service = self.start(command, name=name, **{command: {**settings, "health_port": port}}, **tables)
        service.wait_ready(partial(processes.http_ok, f"http://127.0.0.1:{port}/health/ready"), deadline_seconds=30.0)
        self.ports[name] = port
        return service

    ports: dict[str, int] = field(default_factory=dict)

    def metric(self, name: str, metric: str) -> float:
        """A metric of a service: the sum over its labels."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.ports[name]}/metrics", timeout=5) as answer:
            lines = answer.read().decode().splitlines()
        found = [line for line in lines if line.partition(" ")[0].partition("{")[0] == metric]
        return sum(float(line.rpartition(" ")[2]) for line in found)

    def is_ready(self, name: str) -> bool:
        """What its health endpoint says."""
        try:
            return processes.http_ok(f"http://127.0.0.1:{self.ports[name]}/health/ready")
        except urllib.error.URLError:
            return False

    # --- jobs

    def submit(
        self, number: int, *, submission: str | None = None, payload: Callable[[int], Any] | None = None, **more: Any
    ) -> list[Job]:
        """Jobs whose payload is {"id": position}, in the store and in the queue."""
        submission = submission or submission_key("fleet", uuid4().hex)
        contents = InlineOrClaimCheck(None)
        make = payload or (lambda position: {"id": position})
        jobs = []
        for position in range(number):
            name = job_id(submission, position)
            packed = contents.pack(orjson.dumps(make(position)), kind="payload", job_id=name)
            jobs.append(NewJob(job_id=name, submission=submission, position=position, payload=packed, **more))
        kept = list(self.store.submit(jobs))
        self.send(kept)
        self.store.sent([job.job_id for job in kept])
        return kept

    def send(self, jobs: Sequence[Job]) -> None:
        """Requests for them, once more."""
        self.transport.requests.send([request_message(job, now=time.time()) for job in jobs])

    def counts(self, jobs: Sequence[Job]) -> JobCounts:
        """What whoever waits for them sees."""
        submission = jobs[0].submission
        return self.store.counts([submission])[submission]

    def wait(self, jobs: Sequence[Job], *, deadline_seconds: float) -> JobCounts:
        """Until all of them have arrived."""
        processes.wait_until(
            lambda: self.counts(jobs).pending == 0, deadline_seconds=deadline_seconds, what="all jobs have ended"
        )
        return self.counts(jobs)


@contextmanager
def fleet(
    folder: Path, server: MiniStack | KafkaCluster, store_url: str | None = None, *, kind: Kind = "sqs"
) -> Iterator[Fleet]:
    """Fresh queues and a fresh store; every process that was started is stopped at the end."""
    environment: dict[str, str] = {}
    if isinstance(server, KafkaCluster):
        table, settings = _topics(server)
    else:
        table, settings = _queues(server, kind)
        environment |= server.environment()
    transport = open_transport(settings)
    url = store_url or f"sqlite:///{folder}/store.db"
    opened = open_store(url, timeout_seconds=30.0)
    made = Fleet(folder, transport, opened, {"transport": table, "store": {"url": url}}, environment)
    try:
        yield made
    finally:
        processes.stop_all(made.services)
        transport.close()
        opened.close()


def _named(suffix: str) -> dict[str, str]:
    tag = uuid4().hex[:10]
    kinds = ("request", "result", "dead_letter")
    return {f"{kind}_queue": f"{kind.replace('_', '-')}s-{tag}{suffix}" for kind in kinds}


def _queues(server: MiniStack, kind: Kind) -> tuple[dict[str, Any], TransportSettings]:
    fifo = kind == "sqs-fifo"
    names = _named(".fifo" if fifo else "")
    table = {"kind": kind, "endpoint_url": server.url, "region": REGION, **names}
    for name in names.values():
        server.client("sqs").create_queue(QueueName=name, Attributes={"FifoQueue": "true"} if fifo else {})
    return table, TransportSettings(**table, access_key=ACCESS_KEY, secret_key=SECRET_KEY)  # type: ignore[arg-type]


def _topics(cluster: KafkaCluster) -> tuple[dict[str, Any], TransportSettings]:
    """The cluster draws out each rebalance for almost as long as a session."""
    names = _named("")
    servers = {"bootstrap_servers": cluster.bootstrap_servers, "session_timeout_seconds": 4}
    for name in names.values():
        cluster.make_topic(name)
    return (table := {"kind": "kafka", **servers, **names}), TransportSettings(**table)  # type: ignore[arg-type]


def _toml(tables: dict[str, dict[str, Any]]) -> str:
    lines: list[str] = []
    for name, table in tables.items():
        lines += [f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in table.items()), ""]
    return "\n".join(lines)


def exit_code(service: processes.Service, *, deadline_seconds: float) -> int:
    """SIGTERM, and what it ends with."""
    os.kill(service.pid, 15)
    return service.process.wait(timeout=deadline_seconds)
