"""How many probes a recovering endpoint gets from 64 processes at half-open, counted at the endpoint.

    python -m benchmarks.sync_half_open

In every round the server answers 503 until the circuit breaker opens, and is well again, but slow, when 64 processes
that wait at a barrier call it all at once. The product shares its breaker in a store, SQLite or PostgreSQL; for
comparison the same product with a breaker in each process, which is what Python's breaker libraries do by themselves.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from airflow_provider_ai.core.call_settings import BreakerSettings, CallSettings
from airflow_provider_ai.core.config import EndpointSettings
from airflow_provider_ai.core.fallback import Static
from airflow_provider_ai.core.requests import JsonRequest
from airflow_provider_ai.runtime.sync_call import SyncCaller
from airflow_provider_ai.testing import InMemoryStore
from benchmarks import measure
from benchmarks.stub import StubServer
from tests.support.postgres import postgres_server

PROCESSES = 64
RECORD = {"age": 63, "pulse": 118}
OPEN_SECONDS = 1.0
PROBE_MS = 2_000.0
"""How long the probe takes: longer than it takes 64 processes on two cores to have asked."""
_WAIT_SECONDS = 120.0
_fork: Any = multiprocessing.get_context("fork")


def main(arguments: list[str] | None = None) -> bool:
    """Run the benchmark; whether its claims hold."""
    parser = measure.call_options("Probes at half-open, counted at the server.", calls=10, quick_calls=2)
    parser.description += " --calls: rounds."
    options = measure.read_options(parser, arguments)
    rows = []
    with TemporaryDirectory(prefix="store-") as folder, postgres_server() as server:
        stores = {
            "SQLite": f"sqlite:///{Path(folder, 'store.db')}",
            "PostgreSQL": server.url(server.create_database()),
            "each process": None,
        }
        for name, url in stores.items():
            rows += [{"breaker in": name, **row} for row in _rounds(url, options.calls)]
    return measure.report("sync_half_open", vars(options), rows, _claims(rows))


def _rounds(url: str | None, rounds: int) -> list[dict[str, Any]]:
    with StubServer(latency_ms=PROBE_MS, max_in_flight=PROCESSES) as stub, _crowd(stub.url, url) as crowd:
        return [_round(number, stub, crowd) for number in range(rounds)]


def _round(number: int, stub: StubServer, crowd: Crowd) -> dict[str, Any]:
    stub.set_faults({"do": "status", "status": 503}, latency_ms=0)
    crowd.everyone("break")
    opened = time.monotonic()
    stub.set_faults(latency_ms=PROBE_MS)
    stub.reset()
    time.sleep(max(0.0, opened + OPEN_SECONDS * 1.1 - time.monotonic()))
    answers = crowd.everyone("call")
    refused = [took for reason, _, took in answers if reason == "breaker_open"]
    return {
        "round": number,
        "probes at the server": stub.stats()["requests"],
        "refused": len(refused),
        "without a store": Counter(state for _, state, _ in answers)["unknown"],
        "refused p50 ms": measure.quantile(refused, 0.5) if refused else None,
        "refused max ms": max(refused, default=None),
    }


def _claims(rows: list[dict[str, Any]]) -> list[measure.Claim]:
    claims = []
    for name in ("SQLite", "PostgreSQL"):
        probes = [row["probes at the server"] for row in rows if row["breaker in"] == name]
        what = f"probes of {PROCESSES} processes, {name}"
        claims += [
            measure.Claim(what=f"{what}, most", measured=max(probes), limit=1),
            measure.Claim(what=f"{what}, fewest", measured=min(probes), limit=1, at_most=False),
        ]
    return claims


class Crowd:
    """64 processes that do the same thing at the same time."""

    def __init__(self, server: str, store: str | None) -> None:
        self._barrier = _fork.Barrier(PROCESSES + 1)
        self._results = _fork.SimpleQueue()
        self._members = []
        self._orders = []
        for _ in range(PROCESSES):
            theirs, ours = _fork.Pipe(duplex=False)
            process = _fork.Process(target=self._live, args=(server, store, theirs), daemon=True)
            process.start()
            self._members.append(process)
            self._orders.append(ours)

    def everyone(self, order: str) -> list[tuple[str | None, str, float]]:
        """Reason, breaker state and milliseconds of each one's call."""
        for pipe in self._orders:
            pipe.send(order)
        self._barrier.wait(_WAIT_SECONDS)
        return [self._results.get() for _ in self._members]

    def close(self) -> None:
        """Send everyone home."""
        for pipe in self._orders:
            pipe.send("end")
        for member in self._members:
            member.join(_WAIT_SECONDS)

    def _live(self, server: str, store: str | None, orders: Any) -> None:
        logging.disable()
        with _caller(server, store) as caller:
            while (order := orders.recv()) != "end":
                self._barrier.wait(_WAIT_SECONDS)
                started = time.perf_counter()
                answer = caller.call(RECORD)
                took = (time.perf_counter() - started) * 1000
                while order == "break" and answer.reason != "breaker_open":
                    answer = caller.call(RECORD)
                self._results.put((answer.reason, answer.breaker_state, took))
        os._exit(0)


@contextmanager
def _crowd(server: str, store: str | None) -> Iterator[Crowd]:
    crowd = Crowd(server, store)
    try:
        yield crowd
    finally:
        crowd.close()


def _caller(server: str, store: str | None) -> SyncCaller:
    breaker = BreakerSettings(minimum_calls=3, open_seconds=OPEN_SECONDS, longest_open_seconds=OPEN_SECONDS)
    return SyncCaller(
        endpoint=EndpointSettings(url=server, protocol="json", model="m"),
        request=JsonRequest(),
        fallback=[Static({"priority": "routine"})],
        settings=CallSettings(deadline_seconds=5.0, breaker=breaker),
        store=store or InMemoryStore(),
    )


if __name__ == "__main__":
    raise SystemExit(0 if main() else 1)
