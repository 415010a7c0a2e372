"""The engine while the endpoint is down, in virtual time: it pauses, probes, and gives nothing up."""

from __future__ import annotations

import random
from typing import Any

import pytest

from airflow_provider_ai.core.config import Limits
from airflow_provider_ai.core.requests import JsonRequest
from airflow_provider_ai.core.verdict import Failure
from airflow_provider_ai.exceptions import EndpointUnavailableError, QuarantineThresholdError, StoppedError
from airflow_provider_ai.patterns.inference_engine import InferenceEngine
from airflow_provider_ai.testing import FakeModelEndpoint, Fault
from tests.patterns.harness import Bench, between
from tests.patterns.virtual_time import START

EVERYTHING_FAILS = {
    "refused": Fault(failure=Failure.CONNECT),
    "disconnected": Fault(failure=Failure.DISCONNECTED),
    "HTTP 500": Fault(status=500),
    "HTTP 503": Fault(status=503),
    "hanging": Fault(latency_seconds=1e9),
}


@pytest.mark.parametrize("fault", EVERYTHING_FAILS.values(), ids=EVERYTHING_FAILS)
@pytest.mark.parametrize("group", [1, 32])
def test_an_endpoint_down_for_ten_seconds_costs_nothing_but_time(fault: Fault, group: int, seed: int) -> None:
    """No record is given up, few calls go out meanwhile, and soon afterwards the run is at full speed."""
    limits = Limits(concurrency=16, request_deadline_seconds=2.0, max_attempts=2)
    bench = Bench(partitions=(1200 * group,), limits=limits, request=JsonRequest(records_per_request=group), seed=seed)
    calls = CallsBySecond(bench)
    bench.run(
        endpoint := FakeModelEndpoint(latency_seconds=0.2, outage=between(3, 13, fault)), on_tick=calls.note(endpoint)
    )
    assert bench.tally.quarantined == 0
    assert len(bench.outputs()) == bench.rows
    assert calls.between(3.4, 12.9) <= 16 + 14, "in flight when it was noticed, and the probes"
    assert calls.between(19, 20) > 0.9 * 80, "six seconds after the recovery it is at full speed"


class CallsBySecond:
    """How many calls had gone out at each tenth of a second."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self._counts: dict[int, int] = {}

    def note(self, endpoint: FakeModelEndpoint) -> Any:
        def tick(engine: InferenceEngine) -> None:
            self._counts[self._tenth(engine._loop.time() - START)] = endpoint.calls

        return tick

    def between(self, start: float, end: float) -> int:
        return self._counts[self._tenth(end)] - self._counts[self._tenth(start)]

    def _tenth(self, second: float) -> int:
        return round(10 * second)


def test_an_endpoint_that_never_comes_back_ends_the_run() -> None:
    """After max_outage_seconds, with everything kept, few calls, and no attempt used up."""
    bench = Bench(partitions=(1000,), limits=Limits(concurrency=8, max_outage_seconds=60.0))
    endpoint = FakeModelEndpoint(latency_seconds=0.1, outage=between(2.0, 1e9, Fault(failure=Failure.CONNECT)))
    with pytest.raises(EndpointUnavailableError, match=r"unreachable for 6[01] s"):
        bench.run(endpoint)
    assert bench.seconds == pytest.approx(63, abs=3)
    assert bench.kept() == {"succeeded": bench.tally.succeeded, "pending": 1000 - bench.tally.succeeded}
    assert endpoint.calls < bench.tally.succeeded + 8 + 60


def test_an_endpoint_that_only_answers_500_is_believed_in_the_end() -> None:
    """After half a minute the failures count, and the threshold ends the run: it cannot wait forever."""
    bench = Bench(partitions=(1000,), limits=Limits(concurrency=8), allowance=10)
    endpoint = FakeModelEndpoint(latency_seconds=0.1, outage=between(2.0, 1e9, Fault(status=500)))
    with pytest.raises(QuarantineThresholdError, match="11 records are quarantined, 10 are allowed"):
        bench.run(endpoint)
    assert 32 < bench.seconds < 120


def test_a_certificate_that_is_refused_ends_the_run_at_once() -> None:
    """No later call can succeed either."""
    bench = Bench(partitions=(1000,), limits=Limits(concurrency=8))
    endpoint = FakeModelEndpoint(faults=[Fault(failure=Failure.CONNECT, permanent=True)] * 99)
    with pytest.raises(EndpointUnavailableError, match="cannot help"):
        bench.run(endpoint)
    assert endpoint.calls <= 8
    assert bench.seconds < 1


def test_ten_seconds_of_429_cost_nothing_but_time(seed: int) -> None:
    """Few calls meanwhile, nobody given up, full speed again within five seconds."""
    bench = Bench(partitions=(2000,), limits=Limits(concurrency=32, max_attempts=2), seed=seed)
    calls = CallsBySecond(bench)
    endpoint = FakeModelEndpoint(latency_seconds=0.2, outage=between(3, 13, Fault(status=429, retry_after="1")))
    bench.run(endpoint, on_tick=calls.note(endpoint))
    assert len(bench.outputs()) == 2000
    assert calls.between(4, 12.9) < 100
    assert calls.between(18, 19) > 0.9 * 160


@pytest.mark.parametrize("status", [500, 503])
@pytest.mark.parametrize("healthy_seconds", [0.02, 0.2, 8.0])
def test_answers_that_are_still_on_their_way_hide_no_outage(status: int, healthy_seconds: float, seed: int) -> None:
    """What was sent before it began still succeeds while everything new is refused at once: no attempt is used up."""
    latencies = random.Random(seed)
    for run in range(6):
        bench = Bench(partitions=(600,), limits=Limits(concurrency=16, max_attempts=2), seed=seed + run)
        refused = Fault(status=status, latency_seconds=0.002)
        start = 5 * healthy_seconds
        endpoint = FakeModelEndpoint(
            latency_seconds=lambda: healthy_seconds * latencies.uniform(0.5, 1.5),
            outage=between(start, start + 10, refused),
        )
        bench.run(endpoint)
        assert bench.tally.quarantined == 0, f"run {run}"
        assert len(bench.outputs()) == bench.rows


@pytest.mark.parametrize("fault", EVERYTHING_FAILS.values(), ids=EVERYTHING_FAILS)
def test_an_outage_does_not_fill_the_memory(fault: Fault) -> None:
    """However long it takes: one block of fresh records, the calls in flight and a bounded number of delayed ones."""
    bench = Bench(partitions=(100_000,), limits=Limits(concurrency=8, request_deadline_seconds=2.0), block_rows=100)
    most = 0

    def measure(engine: InferenceEngine) -> None:
        nonlocal most
        most = max(most, bench.blocks_read * 100 - bench.tally.done)
        if engine._loop.time() > 1100:
            bench.stop.stop("seen enough")

    with pytest.raises(StoppedError):
        bench.run(FakeModelEndpoint(latency_seconds=0.1, outage=between(1.0, 1e9, fault)), on_tick=measure)
    assert most <= 2 * 100 + (8 + 4 * 8 + 8)
