"""What a worker gets done: jobs/s of `airflow-ai worker` on SQS, beside the queue's own ceiling and two other workers.

    make bench-workers

Everything works on a queue of one MiniStack that is full before it begins, alternately, with the same number of
processes; what is left is counted at the queue. A rate is that of the middle: from a tenth done to nine tenths done, so
neither a start nor an end is in it. Three questions:

- With a model that takes 50 ms and 64 slots, is the worker as fast as the slots allow, or else as the queue does?
- With a handler that does nothing, is it as fast as dramatiq-sqs and taskiq-aio-sqs, which keep no record of a job,
  send no result, and run a job again whenever its message comes again?
- What do SQLite and PostgreSQL make of it?
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any
from uuid import uuid4

from benchmarks import measure, product
from benchmarks.stub import StubServer
from tests.support import processes
from tests.support.ministack import MiniStack, ministack
from tests.support.postgres import PostgresServer, postgres_server

SLOTS, LATENCY_SECONDS = 64, 0.05
IDEAL = SLOTS / LATENCY_SECONDS
_THREADS = 8  # of the bare loop and of dramatiq, whose default it is
_PROGRAM = (sys.executable, "-c", "from airflow_provider_ai.cli import program; program()")
_LOOK_SECONDS = 0.1
_FIRST, _LAST = 0.1, 0.9
_STORES = ("SQLite", "PostgreSQL")
_OTHERS = ("dramatiq-sqs", "taskiq-aio-sqs")


def main(arguments: list[str] | None = None) -> bool:
    """Run the benchmark; whether its claims hold."""
    parser = measure.common_options("What a worker gets done. --rows: jobs.", rows=6_000, quick_rows=500)
    parser.add_argument("--processes", type=int, default=1, help="workers on a queue")
    parser.add_argument("--only", nargs="+", help="these sides alone; nothing is claimed")
    parser.set_defaults(repeats=3)
    options = measure.read_options(parser, arguments)
    with (
        product.working_folder(options.work) as folder,
        ministack(services="sqs") as server,
        postgres_server() as postgres,
    ):
        bench = Bench(folder, server, postgres, jobs=options.rows, processes=options.processes)
        sides = bench.sides()
        chosen = options.only or list(sides)
        rows = [{"side": name, **sides[name]()} for _ in range(options.repeats) for name in chosen]
    return measure.report("async_worker", vars(options), rows, [] if options.only else _claims(rows))


def _claims(rows: Sequence[Mapping[str, Any]]) -> list[measure.Claim]:
    def rate(side: str) -> float:
        return float(median(row["jobs/s"] for row in rows if row["side"] == side))

    ceiling = rate("bare")
    claims = [
        measure.Claim(
            what=f"50 ms model, {store}: jobs/s over the lower of {IDEAL:.0f} and the queue's {ceiling:.0f}",
            measured=rate(f"model, {store}") / min(IDEAL, ceiling),
            limit=0.9,
            at_most=False,
        )
        for store in _STORES
    ]
    for other in _OTHERS:
        claims += [
            measure.Claim(
                what=f"no-op, {store}: jobs/s over those of {other}",
                measured=rate(f"no-op, {store}") / rate(other),
                limit=1.0,
                at_most=False,
            )
            for store in _STORES
        ]
    return claims


class Bench:
    """One MiniStack, one PostgreSQL; fresh queues and a fresh store for every run."""

    def __init__(self, folder: Path, server: MiniStack, postgres: PostgresServer, *, jobs: int, processes: int) -> None:
        self._folder = folder
        self._server = server
        self._postgres = postgres
        self._jobs = jobs
        self._processes = processes
        self._sqs = server.client("sqs")
        self._requests = folder / "requests.jsonl"
        self._requests.write_text("".join(f"{_request(number)}\n" for number in range(jobs)))

    def sides(self) -> dict[str, Any]:
        """What is measured, by name, in the order of a round."""
        found: dict[str, Any] = {"bare": self.bare}
        for store in _STORES:
            found[f"model, {store}"] = partial(self.with_model, store)
        for store in _STORES:
            found[f"no-op, {store}"] = partial(self.without_model, store)
        return found | {"dramatiq-sqs": self.dramatiq, "taskiq-aio-sqs": self.taskiq}

    # --- sides

    def bare(self) -> dict[str, Any]:
        """The queue's ceiling for a worker that answers."""
        requests, results = self._queue("requests"), self._queue("results")
        self._fill(requests, self._requests)
        command = (sys.executable, "-m", "benchmarks.baselines.bare_worker")
        return self._work([*command, self._server.url, requests, results, str(_THREADS)], requests, results)

    def with_model(self, store: str) -> dict[str, Any]:
        """The product and a model server that takes its time."""
        with StubServer(latency_ms=1000 * LATENCY_SECONDS, max_in_flight=SLOTS * self._processes) as stub:
            endpoint = {"url": stub.url, "protocol": "json", "model": "m", "path": "/predict"}
            measured = self._product(store, {"endpoint": endpoint})
            stats = stub.stats()
            assert stats["statuses"] == {"200": self._jobs}, stats["statuses"]  # one call a job
            return measured

    def without_model(self, store: str) -> dict[str, Any]:
        """The product and a handler that does nothing."""
        return self._product(store, {"handler": {"target": "benchmarks.baselines.noop:handle"}})

    def dramatiq(self) -> dict[str, Any]:
        """dramatiq as it starts by default, with as many processes."""
        command = ["dramatiq", "benchmarks.baselines.dramatiq_worker", "--threads", str(_THREADS), "--processes"]
        return self._other("dramatiq_worker", command)

    def taskiq(self) -> dict[str, Any]:
        """taskiq as it starts by default, with as many processes."""
        return self._other(
            "taskiq_worker", ["taskiq", "worker", "benchmarks.baselines.taskiq_worker:broker", "--workers"]
        )

    def _product(self, store: str, tables: dict[str, Any]) -> dict[str, Any]:
        requests, results, dead = (self._queue(kind) for kind in ("requests", "results", "dead"))
        transport = {"kind": "sqs", "endpoint_url": self._server.url, "region": "us-east-1"}
        names = {"request_queue": requests, "result_queue": results, "dead_letter_queue": dead}
        spec = self._folder / f"{requests}.toml"
        spec.write_text(
            _toml(
                {
                    "transport": {**transport, **names},
                    "store": {"url": self._store_url(store)},
                    "worker": {"concurrency": SLOTS, "visibility_timeout_seconds": 30},
                    **tables,
                }
            )
        )
        submit = (*_PROGRAM, "jobs", "submit", spec, "--input", self._requests, "--key", "k", "--quiet")
        measure.run(submit, env=self._environment()).require_success()
        measured = self._work([*_PROGRAM, "worker", str(spec)], requests, results)
        assert self._depth(dead) == 0
        return measured

    def _other(self, module: str, command: Sequence[str]) -> dict[str, Any]:
        queue = self._queue("others")
        python = processes.side_environment("workers")
        environment = self._environment(BENCHMARK_QUEUE=queue)
        encode = (python, "-m", f"benchmarks.baselines.{module}", self._requests)
        bodies = measure.run(encode, env=environment).require_success()
        messages = self._folder / f"{queue}.txt"
        messages.write_text(bodies.stdout)
        self._fill(queue, messages)
        program, *rest = command
        return self._work([python.parent / program, *rest, str(self._processes)], queue, None, environment, copies=1)

    # --- measuring

    def _work(
        self,
        command: Sequence[str | Path],
        requests: str,
        results: str | None,
        environment: Mapping[str, str] | None = None,
        *,
        copies: int | None = None,
    ) -> dict[str, Any]:
        """Start the workers, watch the queue until it is empty, stop them."""
        assert self._depth(requests) == self._jobs, "the queue was not full"
        started = [
            processes.start(
                f"worker-{number}",
                command,
                log_path=self._folder / f"{requests}-{number}.log",
                env=processes.child_environment(environment or self._environment()),
                cwd=measure.ROOT,
            )
            for number in range(copies or self._processes)
        ]
        try:
            rate, seconds = self._watch(requests, started)
            cpu = sum(map(_cpu_seconds, started))
        finally:
            processes.stop_all(started)
        if results is not None:
            processes.wait_until(
                lambda: self._depth(results) == self._jobs, deadline_seconds=5.0, what="a result for each job"
            )
        for queue in filter(None, (requests, results)):
            self._sqs.delete_queue(QueueUrl=self._url(queue))
        return {"jobs/s": rate, "CPU µs per job": cpu / self._jobs * 1e6, "start to end s": seconds}

    def _watch(self, queue: str, started: Sequence[processes.Service]) -> tuple[float, float]:
        """Jobs per second of the middle, and seconds from start to end."""
        began = time.perf_counter()
        seen: list[tuple[float, int]] = []
        while not seen or seen[-1][1] < self._jobs:
            time.sleep(_LOOK_SECONDS)
            seen.append((time.perf_counter(), self._jobs - self._depth(queue)))
            for service in started:
                service.require_alive()
            assert time.perf_counter() - began < 300, f"{seen[-1][1]} of {self._jobs} jobs were done"
        middle = [(at, done) for at, done in seen if _FIRST * self._jobs <= done <= _LAST * self._jobs]
        if len(middle) < 2:
            middle = seen
        (start, before), (end, after) = middle[0], middle[-1]
        return (after - before) / (end - start), seen[-1][0] - began

    # --- queues and stores

    def _queue(self, kind: str) -> str:
        name = f"{kind}-{uuid4().hex[:8]}"
        self._sqs.create_queue(QueueName=name, Attributes={"VisibilityTimeout": "30"})
        return name

    def _fill(self, queue: str, bodies: Path) -> None:
        program = (sys.executable, "-m", "benchmarks.baselines.bare_send", self._server.url, queue, bodies)
        measure.run(program, env=self._environment()).require_success()

    def _url(self, queue: str) -> str:
        return str(self._sqs.get_queue_url(QueueName=queue)["QueueUrl"])

    def _depth(self, queue: str) -> int:
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        found = self._sqs.get_queue_attributes(QueueUrl=self._url(queue), AttributeNames=names)["Attributes"]
        return sum(int(found[name]) for name in names)

    def _store_url(self, store: str) -> str:
        if store == "SQLite":
            return f"sqlite:///{self._folder / uuid4().hex}.db"
        return self._postgres.url(self._postgres.create_database())

    def _environment(self, **more: str) -> dict[str, str]:
        return {**self._server.environment(), "PYTHONPATH": str(measure.ROOT), **more}


def _request(number: int) -> str:
    return json.dumps({"number": number, "text": "note " * 20}, separators=(",", ":"))


def _toml(tables: Mapping[str, Mapping[str, Any]]) -> str:
    lines: list[str] = []
    for name, table in tables.items():
        lines += [f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in table.items()), ""]
    return "\n".join(lines)


def _cpu_seconds(service: processes.Service) -> float:
    """Of all of its processes that still live."""
    times = [process.cpu_times() for process in service.members()]
    return float(sum(each.user + each.system for each in times))


if __name__ == "__main__":
    raise SystemExit(0 if main() else 1)
