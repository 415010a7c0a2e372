"""The engine against a scripted endpoint, in virtual time: what is called, what is kept, and how it ends."""

from __future__ import annotations

import asyncio
import errno
import itertools
import time
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any

import pytest

from airflow_provider_ai.core.config import Limits
from airflow_provider_ai.core.requests import JsonRequest
from airflow_provider_ai.core.verdict import Failure
from airflow_provider_ai.exceptions import (
    AIProviderError,
    CheckpointWriteError,
    InputChangedError,
    PartitionBusyError,
    QuarantineThresholdError,
    StoppedError,
)
from airflow_provider_ai.patterns.inference_engine import InferenceEngine
from airflow_provider_ai.testing import FakeModelEndpoint, Fault
from tests.patterns.harness import Bench
from tests.patterns.virtual_time import START


def poison(*ids: str, fault: Fault) -> Any:
    """An answer function that chokes on some records."""
    return lambda record: fault if record["id"] in ids else {"answer": 1}


# --- the plain case ---------------------------------------------------------------------------------------------


def test_every_record_is_called_once_and_kept() -> None:
    """Across blocks and partitions, with the concurrency used and never exceeded, and no gap between partitions."""
    bench = Bench(partitions=(350, 1, 149), limits=Limits(concurrency=20), block_rows=90)
    endpoint = FakeModelEndpoint(latency_seconds=0.1)
    bench.run(endpoint)
    assert set(endpoint.calls_of.values()) == {1}
    assert len(bench.outputs()) == bench.rows == endpoint.calls == bench.tally.requests == bench.tally.succeeded
    assert endpoint.peak_in_flight == 20
    assert bench.seconds == pytest.approx(500 / 20 * 0.1, abs=0.3)
    assert all(bench.sealed(index) is not None for index in range(3))
    assert bench.tally.cost_usd == 250.0


@pytest.mark.parametrize("concurrency", [1, 2, 64])
def test_the_concurrency_is_never_exceeded(concurrency: int, seed: int) -> None:
    """Also with answers of every length and faults in between."""
    faults = [None, Fault(status=500), None, Fault(status=429), Fault(latency_seconds=0.7)] * 20
    endpoint = FakeModelEndpoint(latency_seconds=0.05, faults=faults)
    bench = Bench(partitions=(300,), limits=Limits(concurrency=concurrency, max_attempts=50), seed=seed)
    bench.run(endpoint)
    assert endpoint.peak_in_flight <= concurrency
    assert len(bench.outputs()) == 300


def test_records_travel_in_groups() -> None:
    """64 a call; the last call of a block may be smaller."""
    bench = Bench(partitions=(1000,), request=JsonRequest(records_per_request=64), block_rows=500)
    endpoint = FakeModelEndpoint()
    bench.run(endpoint)
    assert endpoint.calls == 2 * 8
    assert len(bench.outputs()) == 1000


def test_nothing_to_do_calls_nothing() -> None:
    """No partitions, an empty partition, a finished partition."""
    endpoint = FakeModelEndpoint()
    Bench(partitions=()).run(endpoint)
    bench = Bench(partitions=(0,))
    bench.run(endpoint)
    assert bench.sealed() is not None
    assert endpoint.calls == 0
    bench = Bench(partitions=(10,))
    bench.run(endpoint)
    bench.run(endpoint)
    assert endpoint.calls == 10
    assert (bench.tally.reused, bench.tally.requests) == (10, 0)


def test_progress_is_told_ten_times_a_second() -> None:
    """From the event loop, with true counts."""
    seen: list[tuple[int, int]] = []
    bench = Bench(partitions=(100,), limits=Limits(concurrency=10))
    bench.run(
        FakeModelEndpoint(latency_seconds=0.25),
        on_tick=lambda engine: seen.append((engine.in_flight, bench.tally.done)),
    )
    assert len(seen) == pytest.approx(bench.seconds / 0.1, abs=2)
    assert max(in_flight for in_flight, _ in seen) == 10
    assert [done for _, done in seen] == sorted(done for _, done in seen)


# --- retries ----------------------------------------------------------------------------------------------------


def attempts(bench: Bench) -> dict[str, int]:
    """Record id → attempts, of what succeeded."""
    sealed = bench.sealed()
    assert sealed is not None
    rows = [row for table in bench.files(0).good_tables(sealed) for row in table.to_pylist()]
    return {row["id"]: row["attempts"] for row in rows}


def test_a_429_uses_up_no_attempt() -> None:
    """However many there are: with two attempts a record survives twenty of them."""
    bench = Bench(partitions=(1,), limits=Limits(max_attempts=2))
    endpoint = FakeModelEndpoint(faults=[Fault(status=429)] * 20 + [Fault(status=500)])
    bench.run(endpoint)
    assert endpoint.calls == 22
    assert attempts(bench) == {"0-0": 2}


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_a_429_is_waited_for_as_long_as_the_server_asks(form: str) -> None:
    """Retry-After in both forms; not much longer either."""
    date = format_datetime(datetime.fromtimestamp(time.time() + 40, UTC), usegmt=True)
    bench = Bench(partitions=(3,))
    endpoint = FakeModelEndpoint(faults=[Fault(status=429, retry_after="40" if form == "seconds" else date)])
    bench.run(endpoint)
    assert endpoint.calls == 4
    assert 35 < endpoint.sent_at[-1] - endpoint.sent_at[0] < 42
    assert endpoint.sent_at[2] - endpoint.sent_at[0] < 1, "one throttled call does not hold the others back"


def test_a_429_without_a_wish_comes_back_within_five_seconds() -> None:
    """Full jitter up to 5 s; never sooner than 50 ms."""
    bench = Bench(partitions=(1,))
    endpoint = FakeModelEndpoint(faults=[Fault(status=429)] * 30)
    bench.run(endpoint)
    gaps = [after - before for before, after in itertools.pairwise(endpoint.sent_at)]
    assert min(gaps) >= 0.0499
    assert max(gaps) <= 5.01


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (Fault(status=500), ("server_error", 500)),
        (Fault(status=503), ("server_error", 503)),
        (Fault(failure=Failure.DISCONNECTED), ("connection", None)),
        (Fault(latency_seconds=1e9), ("timeout", None)),
        (Fault(body=b"<html>"), ("invalid_answer:not_json", 200)),
        (Fault(body=b'{"outputs": []}'), ("invalid_output:missing_output", 200)),
    ],
)
def test_a_record_that_keeps_failing_is_given_up_after_max_attempts(fault: Fault, reason: tuple[str, int]) -> None:
    """With full-jitter pauses in between, among records that succeed."""
    limits = Limits(max_attempts=4, backoff_base_seconds=1.0, request_deadline_seconds=5.0)
    bench = Bench(partitions=(50,), limits=limits)
    sent: list[float] = []

    class Endpoint(FakeModelEndpoint):
        async def post(self, path: str, body: bytes, *, deadline_seconds: float) -> Any:
            choking = b'"0-7"' in body
            if choking:
                sent.append(asyncio.get_running_loop().time())
                self.faults.append(fault)
            return await super().post(path, body, deadline_seconds=deadline_seconds)

    bench.run(Endpoint(latency_seconds=0.05))
    assert len(sent) == 4
    assert len(bench.outputs()) == 49
    assert bench.reasons() == {reason: 1}
    own = 5.0 if reason[0] == "timeout" else 0.05
    for attempt, (before, after) in enumerate(itertools.pairwise(sent), start=1):
        assert own - 0.001 <= after - before <= own + 2.0 ** (attempt - 1) + 0.2


@pytest.mark.parametrize("status", [301, 400, 401, 404, 408, 413, 422])
def test_another_4xx_is_not_retried(status: int) -> None:
    """Trying the same again cannot help."""
    bench = Bench(partitions=(20,))
    endpoint = FakeModelEndpoint(poison("0-3", fault=Fault(status=status)))
    bench.run(endpoint)
    assert endpoint.calls_of["0-3"] == 1
    assert bench.reasons() == {("rejected", status): 1}
    assert len(bench.outputs()) == 19


@pytest.mark.parametrize(
    ("fault", "error_class", "most_calls"),
    [
        (Fault(status=400), "rejected", 13),  # the group, then two halves of each halving: 1 + 2 · 6
        (Fault(failure=Failure.TOO_LARGE), "too_large", 13),
        (Fault(status=500), "server_error", 24),  # every group twice, then max_attempts
        (Fault(failure=Failure.DISCONNECTED), "connection", 24),
        (Fault(latency_seconds=1e9), "timeout", 24),
        (Fault(body=b"{}"), "invalid_answer:no_outputs", 24),
    ],
)
def test_a_poison_record_is_isolated(fault: Fault, error_class: str, most_calls: int) -> None:
    """The 63 records it travels with succeed; finding it costs a bounded number of calls."""
    request = JsonRequest(records_per_request=64)
    bench = Bench(partitions=(64,), request=request, limits=Limits(request_deadline_seconds=2.0))

    class Endpoint(FakeModelEndpoint):
        async def post(self, path: str, body: bytes, *, deadline_seconds: float) -> Any:
            if b'"0-40"' in body:
                self.faults.append(fault)
            return await super().post(path, body, deadline_seconds=deadline_seconds)

    endpoint = Endpoint()
    bench.run(endpoint)
    assert len(bench.outputs()) == 63
    assert [name for name, _ in bench.reasons()] == [error_class]
    assert endpoint.calls <= most_calls
    assert bench.seconds < 60


def test_many_poison_records_take_nobody_along() -> None:
    """Two in a hundred, anywhere, in groups of 16."""
    bad = [f"0-{row}" for row in range(0, 1000, 50)]
    bench = Bench(partitions=(1000,), request=JsonRequest(records_per_request=16))
    bench.run(FakeModelEndpoint(poison(*bad, fault=Fault(status=500)), latency_seconds=0.05))
    assert bench.reasons() == {("server_error", 500): 20}
    assert bench.outputs().keys() == {f"0-{row}" for row in range(1000)} - set(bad)


def test_an_output_that_is_missing_costs_only_its_own_record_a_retry() -> None:
    """The rest of the group is kept from the first answer on."""
    missing = {"0-1", "0-5"}
    bench = Bench(partitions=(8,), request=JsonRequest(records_per_request=8), limits=Limits(max_attempts=3))

    def answer(record: Any) -> Any:
        if record["id"] == "0-1" and endpoint.calls_of["0-1"] == 2:
            return {"answer": 2}
        return None if record["id"] in missing else {"answer": 1}

    endpoint = FakeModelEndpoint(answer)
    bench.run(endpoint)
    assert endpoint.calls_of == {f"0-{row}": 1 for row in range(8)} | {"0-1": 2, "0-5": 3}
    assert bench.reasons() == {("invalid_output:missing_output", 200): 1}
    assert attempts(bench) == {f"0-{row}": 1 for row in range(8) if row != 5} | {"0-1": 2}


@pytest.mark.parametrize("group", [1, 8])
def test_a_record_that_cannot_be_rendered_is_never_called(group: int) -> None:
    """It is given up with no attempt; the records beside it are sent once, and say so."""
    bench = Bench(
        partitions=(40,),
        request=JsonRequest(columns=["x"], records_per_request=group),
        record_of=lambda record_id: {"id": record_id} if record_id == "0-9" else {"id": record_id, "x": 1},
    )
    endpoint = FakeModelEndpoint()
    bench.run(endpoint)
    assert endpoint.calls_of["0-9"] == 0
    assert set(endpoint.calls_of.values()) <= {0, 1}
    assert bench.reasons() == {("unrenderable:missing_field", None): 1}
    assert set(attempts(bench).values()) == {1}
    bench.storage.break_locks()
    (record,) = (o for o in bench.given_up() if o.row == 9)
    assert record.attempts == 0


def test_retry_failed_calls_only_what_was_given_up() -> None:
    """A new round; what succeeded stays paid for, and the two rounds add up."""
    bench = Bench(partitions=(100,))
    endpoint = FakeModelEndpoint(poison("0-3", "0-4", fault=Fault(status=400)))
    bench.run(endpoint)
    bench.round = 1
    cured = FakeModelEndpoint(poison("0-4", fault=Fault(status=422)))
    bench.run(cured)
    assert cured.calls_of == {"0-3": 1, "0-4": 1}
    assert len(bench.outputs()) == 99
    assert bench.reasons() == {("rejected", 422): 1}


# --- limits -----------------------------------------------------------------------------------------------------


def busiest_minute(sent_at: list[float]) -> int:
    """Most calls in any 60 s."""
    return max(sum(start <= at < start + 60 for at in sent_at) for start in sent_at)


def test_requests_per_minute_are_kept_and_used() -> None:
    """Never more than the limit and a second's burst in any minute; and not much less."""
    bench = Bench(partitions=(500,), limits=Limits(requests_per_minute=120))
    endpoint = FakeModelEndpoint(latency_seconds=0.01)
    bench.run(endpoint)
    assert busiest_minute(endpoint.sent_at) <= 120 + 2
    assert bench.seconds == pytest.approx(500 / 2, rel=0.05)


def test_retries_count_against_requests_per_minute() -> None:
    """The server counts them too."""
    bench = Bench(partitions=(50,), limits=Limits(requests_per_minute=60))
    endpoint = FakeModelEndpoint(faults=[Fault(status=500), None] * 30)
    bench.run(endpoint)
    assert endpoint.calls > 50
    assert busiest_minute(endpoint.sent_at) <= 60 + 1


def test_tokens_per_minute_are_kept_by_what_was_used() -> None:
    """Estimates are corrected by what the server says: 100 tokens a call here, 30 a second allowed."""

    class Endpoint(FakeModelEndpoint):
        def _reply(self, records: Any) -> Any:
            reply = super()._reply(records)
            usage = b'{"usage": {"prompt_tokens": 60, "completion_tokens": 40}, '
            return type(reply)(reply.status, usage + reply.body[1:])

    bench = Bench(partitions=(200,), limits=Limits(tokens_per_minute=1800, concurrency=4))
    endpoint = Endpoint(latency_seconds=0.01)
    bench.run(endpoint)
    assert bench.tally.prompt_tokens + bench.tally.completion_tokens == 20_000
    assert bench.seconds == pytest.approx(20_000 / 30, rel=0.1)
    assert busiest_minute(endpoint.sent_at) * 100 <= 1800 + 30 + 4 * 100


# --- how it ends ------------------------------------------------------------------------------------------------


def test_too_many_failures_end_the_run_early_and_keep_what_was_paid_for() -> None:
    """Not a thousand calls to learn what eleven have shown."""
    bench = Bench(partitions=(1000,), limits=Limits(concurrency=4), allowance=10)
    endpoint = FakeModelEndpoint(
        lambda record: Fault(status=422) if int(record["id"][2:]) % 2 else {"answer": 1}, latency_seconds=0.1
    )
    with pytest.raises(QuarantineThresholdError, match=r"rejected \(HTTP 422\) × 1[1-4]"):
        bench.run(endpoint)
    assert endpoint.calls < 40
    kept = bench.kept()
    assert kept["succeeded"] == sum(endpoint.answers_of.values())
    assert kept["given_up"] == bench.tally.quarantined
    with pytest.raises(QuarantineThresholdError, match="found in the checkpoints"):
        bench.run(calm := FakeModelEndpoint())
    assert calm.calls <= 64, "a plain retry calls (next to) nothing more"


def stop_at(second: float, bench: Bench) -> Any:
    def tick(engine: InferenceEngine) -> None:
        if engine._loop.time() - START >= second:
            bench.stop.stop("SIGTERM")

    return tick


def test_a_stop_keeps_what_is_in_flight() -> None:
    """Nothing new is sent; the answers that come within the grace are kept."""
    bench = Bench(partitions=(1000,), limits=Limits(concurrency=10, stop_grace_seconds=5.0))
    endpoint = FakeModelEndpoint(latency_seconds=0.5)
    with pytest.raises(StoppedError, match=r"stopped \(SIGTERM\).*a retry resumes"):
        bench.run(endpoint, on_tick=stop_at(2.2, bench))
    assert bench.seconds < 3.0
    assert bench.kept()["succeeded"] == sum(endpoint.answers_of.values()) == endpoint.calls


def test_a_stop_waits_no_longer_than_its_grace() -> None:
    """A call that takes minutes is left alone when the pod is to go."""
    bench = Bench(partitions=(10,), limits=Limits(stop_grace_seconds=3.0, request_deadline_seconds=600.0))
    with pytest.raises(StoppedError):
        bench.run(FakeModelEndpoint(latency_seconds=300.0), on_tick=stop_at(1.0, bench))
    assert bench.seconds == pytest.approx(4.1, abs=0.2)


def test_a_stop_shortens_an_end_that_is_already_under_way() -> None:
    """A run that failed and waits for its last answers is stopped like any other."""
    bench = Bench(partitions=(10,), allowance=0, limits=Limits(stop_grace_seconds=3.0, request_deadline_seconds=600.0))
    endpoint = FakeModelEndpoint(latency_seconds=300.0, faults=[Fault(status=400, latency_seconds=0.5)])
    with pytest.raises(QuarantineThresholdError):
        bench.run(endpoint, on_tick=stop_at(1.0, bench))
    assert bench.seconds == pytest.approx(4.1, abs=0.2)


@pytest.mark.parametrize("writes", [0, 1, 17])
def test_a_full_checkpoint_volume_stops_the_spending(writes: int) -> None:
    """No answer is paid for that cannot be kept, but for those in flight; the next run repeats no more than that."""
    bench = Bench(partitions=(200,), limits=Limits(concurrency=4))
    bench.storage.refuse_writes(after=writes)
    endpoint = FakeModelEndpoint(latency_seconds=0.1)
    with pytest.raises(CheckpointWriteError, match="Make room"):
        bench.run(endpoint)
    assert endpoint.calls <= writes + 4
    bench.storage.accept_writes()
    bench.storage.break_locks()
    bench.run(endpoint)
    assert len(bench.outputs()) == 200
    assert endpoint.calls <= 200 + 4


def test_a_volume_that_fills_up_while_sealing_loses_nothing() -> None:
    """The logs stay; a retry seals them without a call."""
    bench = Bench(partitions=(20,))
    bench.storage.refuse_writes(after=21)
    endpoint = FakeModelEndpoint()
    with pytest.raises(CheckpointWriteError):
        bench.run(endpoint)
    bench.storage.accept_writes()
    bench.storage.break_locks()
    bench.run(endpoint)
    assert (endpoint.calls, len(bench.outputs())) == (20, 20)


def test_a_partition_that_cannot_be_sealed_stops_the_spending() -> None:
    """The partitions behind it are not paid for first."""
    bench = Bench(partitions=(20, 5000), limits=Limits(concurrency=4))

    def fail_seal(engine: InferenceEngine) -> None:
        bench.journals[0].complete = refuse  # type: ignore[method-assign]

    endpoint = FakeModelEndpoint(latency_seconds=0.1)
    with pytest.raises(CheckpointWriteError):
        bench.run(endpoint, on_tick=fail_seal)
    assert endpoint.calls < 40


def refuse() -> Any:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_input_that_ends_early_is_named() -> None:
    """The files are not the ones that were planned; what was paid for is kept."""
    bench = Bench(partitions=(100,), early=3)
    endpoint = FakeModelEndpoint()
    with pytest.raises(InputChangedError, match="partition 0 ended 3 rows early"):
        bench.run(endpoint)
    assert bench.sealed() is None
    assert bench.kept()["succeeded"] == sum(endpoint.answers_of.values())


def test_a_runner_that_was_taken_over_stops() -> None:
    """It has shown no life for too long; another one works on the partition."""
    bench = Bench(partitions=(1000,), limits=Limits(concurrency=4))

    def lose(engine: InferenceEngine) -> None:
        if engine._loop.time() > 1002:
            bench.storage.break_locks()

    with pytest.raises(PartitionBusyError, match="took p0 over"):
        bench.run(FakeModelEndpoint(latency_seconds=0.1), on_tick=lose)
    assert bench.seconds < 4


@pytest.mark.parametrize(
    "error", [RuntimeError("secret"), TypeError("secret"), AssertionError("secret"), KeyError("secret")]
)
def test_an_endpoint_that_raises_anything_else_ends_the_run(error: Exception) -> None:
    """Its records must not get lost in silence: the run says that it did not end well, without the error's text."""
    bench = Bench(partitions=(50,), limits=Limits(concurrency=4))
    with pytest.raises(AIProviderError, match=type(error).__name__) as caught:
        bench.run(FakeModelEndpoint(latency_seconds=0.1, faults=[None] * 9 + [Fault(error=error)]))
    assert "secret" not in str(caught.value)
    assert bench.seconds < 40
    assert bench.kept()["succeeded"] >= 9


@pytest.mark.parametrize("where", ["encode", "decode", "tick", "open", "read"])
def test_a_defect_anywhere_ends_the_run(where: str) -> None:
    """Never a hang, never a run that looks finished; no text of the error, which may hold data."""
    bench = Bench(partitions=(50,), limits=Limits(concurrency=4))

    def broken(*_: Any, **__: Any) -> Any:
        raise ZeroDivisionError("secret")

    class Request(JsonRequest):
        encode = broken if where == "encode" else JsonRequest.encode  # type: ignore[assignment]
        decode = broken if where == "decode" else JsonRequest.decode  # type: ignore[assignment]

    bench.request = Request()
    if where == "open":
        bench.open = broken  # type: ignore[method-assign]
    if where == "read":
        bench.record_of = broken
    with pytest.raises(AIProviderError, match="unexpected ZeroDivisionError") as caught:
        bench.run(FakeModelEndpoint(latency_seconds=0.1), on_tick=broken if where == "tick" else lambda engine: None)
    assert "secret" not in str(caught.value)
    assert bench.seconds < 40
    assert bench.kept().total() == 50
