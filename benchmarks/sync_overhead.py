"""What a synchronous call costs on top of its model: the product and a bare keep-alive httpx call, one after the other.

    python -m benchmarks.sync_overhead

Both go to the same server, in turns (product, bare, product, bare …) from one process, with the circuit breaker and the
bulkhead in a SQLite store. The server is a process of its own, at two latencies. Then the breaker is opened by a server
that answers 503, and what a call costs that is not sent at all is measured.
"""

from __future__ import annotations

import gc
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import orjson

from airflow_provider_ai.core.call_settings import BreakerSettings, CallSettings
from airflow_provider_ai.core.config import EndpointSettings
from airflow_provider_ai.core.fallback import Static
from airflow_provider_ai.core.requests import JsonRequest
from airflow_provider_ai.runtime.sync_call import SyncCaller
from benchmarks import measure
from benchmarks.stub import StubServer

RECORD = {"age": 63, "pulse": 118, "note": "short of breath"}
BODY = orjson.dumps({"model": "m", "inputs": [{"id": 0, **RECORD}]})
WARM_UP = 50
_P50_MS, _P99_MS, _OPEN_MS = 1.5, 5.0, 10.0


def main(arguments: list[str] | None = None) -> bool:
    """Run the benchmark; whether its claims hold."""
    parser = measure.call_options("Overhead over a bare httpx call.", calls=3_000, quick_calls=100)
    parser.add_argument("--latency-ms", type=float, nargs="*", default=[0.0, 5.0])
    options = measure.read_options(parser, arguments)
    logging.disable()
    rows: list[dict[str, Any]] = []
    claims: list[measure.Claim] = []
    for latency in options.latency_ms:
        with StubServer(latency_ms=latency) as stub:
            ours, bare = _in_turns(stub, options.calls)
        rows += [_row(f"product, {latency:g} ms", ours), _row(f"httpx, {latency:g} ms", bare)]
        rows.append(_row(f"difference in pairs, {latency:g} ms", [a - b for a, b in zip(ours, bare, strict=True)]))
        claims += _overhead(latency, ours, bare)
    refused = _breaker_open(options.calls)
    rows.append(_row("breaker open", refused))
    worst = measure.quantile(refused, 0.99)
    claims.append(measure.Claim(what="breaker open to static answer, p99, ms", measured=worst, limit=_OPEN_MS))
    return measure.report("sync_overhead", vars(options), rows, claims)


def _in_turns(stub: StubServer, calls: int) -> tuple[list[float], list[float]]:
    """Milliseconds of each call, of both sides."""
    ours: list[float] = []
    bare: list[float] = []
    with _caller(stub) as caller, httpx.Client() as client:

        def post() -> None:
            answer = client.post(f"{stub.url}/predict", content=BODY, headers={"Content-Type": "application/json"})
            assert answer.json()["outputs"][0]["id"] == 0

        def call() -> None:
            answer = caller.call(RECORD)
            assert (answer.source, answer.breaker_state) == ("primary", "closed"), answer

        for number in range(WARM_UP + calls):
            gc.collect(0)
            for side, took in ((call, ours), (post, bare)):
                spent = _timed(side)
                if number >= WARM_UP:
                    took.append(spent)
    stats = stub.stats()
    assert stats["requests"] == 2 * (WARM_UP + calls), stats["requests"]
    assert stats["connections"] <= 3, "connections were not kept alive"
    return ours, bare


def _breaker_open(calls: int) -> list[float]:
    """Milliseconds of each call while the breaker stays open; nothing reaches the server."""
    with StubServer(latency_ms=0, rules=[{"do": "status", "status": 503}]) as stub, _caller(stub) as caller:
        while caller.call(RECORD).reason != "breaker_open":
            pass
        sent = stub.stats()["requests"]

        def call() -> None:
            answer = caller.call(RECORD)
            assert (answer.source, answer.reason) == ("static", "breaker_open"), answer

        took = [_timed(call) for _ in range(calls)]
        assert stub.stats()["requests"] == sent
    return took


@contextmanager
def _caller(stub: StubServer) -> Iterator[SyncCaller]:
    with TemporaryDirectory(prefix="store-") as folder:
        url = f"sqlite:///{Path(folder, 'store.db')}"
        settings = CallSettings(breaker=BreakerSettings(open_seconds=600.0, longest_open_seconds=600.0))
        with SyncCaller(
            endpoint=EndpointSettings(url=stub.url, protocol="json", model="m"),
            request=JsonRequest(),
            fallback=[Static({"priority": "routine"})],
            settings=settings,
            store=url,
        ) as caller:
            yield caller


def _timed(work: Callable[[], None]) -> float:
    began = time.perf_counter()
    work()
    return (time.perf_counter() - began) * 1000


def _row(side: str, took: list[float]) -> dict[str, Any]:
    quantiles = {f"p{share:g}_ms": measure.quantile(took, share / 100) for share in (50, 90, 99)}
    return {"side": side, "calls": len(took), **quantiles, "largest_ms": max(took)}


def _overhead(latency: float, ours: list[float], bare: list[float]) -> list[measure.Claim]:
    def more(share: float) -> float:
        return measure.quantile(ours, share) - measure.quantile(bare, share)

    where = f"over httpx at {latency:g} ms"
    return [
        measure.Claim(what=f"p50 {where}, ms", measured=more(0.5), limit=_P50_MS),
        measure.Claim(what=f"p99 {where}, ms", measured=more(0.99), limit=_P99_MS),
    ]


if __name__ == "__main__":
    raise SystemExit(0 if main() else 1)
