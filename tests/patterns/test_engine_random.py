"""The engine under random faults: every run ends, and every record is accounted for, whatever happened.

Hypothesis prints the example that fails; all randomness of the run itself comes from the example's seed.
"""

from __future__ import annotations

import random
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_provider_ai.core.config import Limits
from airflow_provider_ai.core.requests import JsonRequest
from airflow_provider_ai.core.verdict import Failure
from airflow_provider_ai.exceptions import AIProviderError, CheckpointWriteError, StoppedError
from airflow_provider_ai.testing import FakeModelEndpoint, Fault
from tests.patterns.harness import Bench
from tests.patterns.virtual_time import START

LONGEST_SECONDS = 3600.0
WISHES = [None, "0", "3", "30", "-1", "soon", "Wed, 21 Oct 2015 07:28:00 GMT", "Wed, 99 Foo 2015"]

FAULTS = st.one_of(
    st.builds(Fault, status=st.sampled_from([301, 400, 404, 422, 500, 502, 503])),
    st.builds(Fault, status=st.just(429), retry_after=st.sampled_from(WISHES)),
    st.builds(Fault, failure=st.sampled_from(Failure)),
    st.builds(Fault, latency_seconds=st.sampled_from([0.0, 0.5, 4.9, 1e9])),
    st.builds(
        Fault,
        body=st.sampled_from([b"", b"[]", b"{}", b'{"outputs": [1, {}]}', b'{"outputs": [{"id": "0-0", "id": 1}]}']),
    ),
)
OUTAGES = st.lists(st.tuples(st.floats(0, 60), st.floats(0, 40), FAULTS), max_size=2)


def endpoint_of(seed: int, faults: list[Fault | None], outages: list[tuple[float, float, Fault]]) -> FakeModelEndpoint:
    """Answers some records badly, always the same ones; fails now and then; is away for a while."""
    numbers = random.Random(seed)

    def answer(record: Any) -> Any:
        kind = random.Random(f"{seed} {record['id']}").random()
        if kind < 0.02:
            return Fault(status=422)
        return None if kind < 0.04 else {"answer": record["id"]}

    def outage(now: float) -> Fault | None:
        found = (fault for start, length, fault in outages if start <= now - START < start + length)
        return next(found, None)

    return FakeModelEndpoint(answer, latency_seconds=lambda: numbers.uniform(0.01, 0.3), faults=faults, outage=outage)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    seed=st.integers(0, 2**32),
    partitions=st.lists(st.integers(0, 120), min_size=1, max_size=3),
    group=st.sampled_from([1, 2, 7, 64]),
    concurrency=st.sampled_from([1, 3, 16]),
    attempts=st.integers(1, 4),
    allowed=st.sampled_from([0, 5, None]),
    per_minute=st.sampled_from([None, 600]),
    faults=st.lists(st.none() | FAULTS, max_size=40),
    outages=OUTAGES,
    writes=st.none() | st.integers(0, 100),
    stop_at=st.none() | st.floats(0, 20),
)
def test_every_run_ends_and_every_record_is_accounted_for(
    seed: int,
    partitions: list[int],
    group: int,
    concurrency: int,
    attempts: int,
    allowed: int | None,
    per_minute: int | None,
    faults: list[Fault | None],
    outages: list[tuple[float, float, Fault]],
    writes: int | None,
    stop_at: float | None,
) -> None:
    """A run ends well, or with an error that is named; what was answered is kept; a retry repeats none of it."""
    bench = Bench(
        partitions=partitions,
        limits=Limits(
            concurrency=concurrency,
            max_attempts=attempts,
            requests_per_minute=per_minute,
            request_deadline_seconds=5.0,
            max_outage_seconds=60.0,
        ),
        request=JsonRequest(records_per_request=group),
        allowance=allowed,
        block_rows=50,
        seed=seed,
    )
    if writes is not None:
        bench.storage.refuse_writes(after=writes)

    def tick(engine: Any) -> None:
        assert engine.in_flight <= concurrency
        if stop_at is not None and engine._loop.time() - START >= stop_at:
            bench.stop.stop("SIGTERM")

    error: AIProviderError | None = None
    first = endpoint_of(seed, faults, outages)
    try:
        bench.run(first, on_tick=tick, limit_seconds=LONGEST_SECONDS)
    except AIProviderError as caught:
        error = caught
        assert "unexpected" not in str(error), "a defect, not an end"
    assert first.peak_in_flight <= concurrency
    kept = bench.kept()
    assert kept.total() == bench.rows
    if error is None:
        assert kept["pending"] == 0
        assert kept["given_up"] == bench.tally.quarantined
    if error is None or writes is None:
        assert kept["succeeded"] == bench.tally.succeeded
    # A volume that refuses writes may do so while a run that has failed for another reason waits for its last answers.
    may_lose = isinstance(error, CheckpointWriteError | StoppedError) or (error is not None and writes is not None)
    check_resume(bench, seed, first, concurrency * group if may_lose else 0)


def check_resume(bench: Bench, seed: int, first: FakeModelEndpoint, lost: int) -> None:
    """Where the fault is gone, a retry finishes the batch and pays again for at most what was lost in flight."""
    bench.storage.accept_writes()
    bench.storage.break_locks()
    bench.stop = type(bench.stop)()
    bench.allowance = bench.rows
    second = endpoint_of(seed, [], [])
    bench.run(second, limit_seconds=LONGEST_SECONDS)
    again = [record for record, count in second.answers_of.items() if count and first.answers_of[record]]
    assert len(again) <= lost
    assert bench.tally.done == bench.rows
    outputs = bench.outputs()
    assert all(columns == {"out:answer": record} for record, columns in outputs.items())
    seals = [bench.sealed(index) for index in range(len(bench.partitions))]
    assert sum(seal.succeeded + seal.quarantined for seal in seals if seal) == bench.rows
    assert len(outputs) == sum(seal.succeeded for seal in seals if seal)
