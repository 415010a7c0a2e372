"""What does the work: an endpoint judged as in the other patterns, and functions that must not hurt the worker."""

from __future__ import annotations

import asyncio
import functools
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from airflow_provider_ai.core.config import EndpointSettings
from airflow_provider_ai.core.job_handling import (
    Ending,
    EndingKind,
    HandledJob,
    PostponedJobError,
    RejectedJobError,
)
from airflow_provider_ai.core.requests import JsonRequest
from airflow_provider_ai.core.verdict import Failure
from airflow_provider_ai.patterns.job_handlers import EndpointHandler, FunctionHandler
from airflow_provider_ai.testing import FakeModelEndpoint, Fault

SETTINGS = EndpointSettings(url="http://127.0.0.1:1", protocol="json", model="m")


def job(payload: Any = None, *, attempt: int = 1) -> HandledJob:
    return HandledJob(job_id="job", idempotency_key="job", attempt=attempt, payload=payload)


async def asked(endpoint: FakeModelEndpoint, payload: Any) -> Ending:
    handler = EndpointHandler(endpoint, settings=SETTINGS, request=JsonRequest(), epoch=lambda: 0.0)
    return await handler.handle(job(payload), deadline_seconds=5.0)


# --- endpoints


@pytest.mark.parametrize(
    ("payload", "output"),
    [
        ({"id": 7, "age": 63}, b'{"id":7,"answer":1}'),
        ([{"age": 63}, {"age": 64}], b'[{"answer":1},{"answer":1}]'),
    ],
)
async def test_a_payload_is_what_a_synchronous_call_takes(payload: Any, output: bytes) -> None:
    """One record in, one output out; a list in, a list out."""
    assert await asked(FakeModelEndpoint(), payload) == Ending(kind=EndingKind.DONE, output=output)


@pytest.mark.parametrize(
    ("fault", "kind", "reason", "wait"),
    [
        (Fault(status=429, retry_after="7"), EndingKind.LATER, "throttled", 7.0),
        (Fault(failure=Failure.CONNECT), EndingKind.LATER, "connect", None),
        (Fault(failure=Failure.CONNECT, permanent=True), EndingKind.LATER, "connect", None),  # not the job's fault
        (Fault(failure=Failure.TIMEOUT), EndingKind.RETRY, "timeout", None),
        (Fault(failure=Failure.DISCONNECTED), EndingKind.RETRY, "connection", None),
        (Fault(failure=Failure.TOO_LARGE), EndingKind.REJECTED, "too_large", None),
        (Fault(status=500), EndingKind.RETRY, "server_error", None),
        (Fault(status=503, retry_after="3"), EndingKind.RETRY, "server_error", 3.0),
        (Fault(status=422), EndingKind.REJECTED, "rejected", None),
        (Fault(body=b"not json"), EndingKind.RETRY, "not_json", None),
        (Fault(body=b'{"outputs": []}'), EndingKind.RETRY, "missing_output", None),
    ],
)  # fmt: skip
async def test_a_call_that_fails_is_judged_as_in_a_batch(
    fault: Fault, kind: EndingKind, reason: str, wait: float | None
) -> None:
    """Not let in does not count; rejected is for good; an answer that is none is tried again."""
    found = await asked(FakeModelEndpoint(faults=[fault]), {"id": 1})
    assert (found.kind, found.reason, found.retry_after_seconds) == (kind, reason, wait)
    assert found.output is None


@pytest.mark.parametrize("payload", [7, "text", [], [1], None, {"id": [1]}])
async def test_a_payload_that_is_no_record_is_rejected_unsent(payload: Any) -> None:
    """Trying it again cannot help, and the endpoint is not asked."""
    endpoint = FakeModelEndpoint()
    assert (await asked(endpoint, payload)).kind is EndingKind.REJECTED
    assert endpoint.calls == 0


# --- functions


Make = Callable[[Any], FunctionHandler]


@pytest.fixture
def handling() -> Iterator[Make]:
    made: list[FunctionHandler] = []

    def make(function: Any) -> FunctionHandler:
        made.append(FunctionHandler(function, most_threads=2))
        return made[-1]

    yield make
    for handler in made:
        handler.close()


async def handled(handler: FunctionHandler, payload: Any = 3) -> Ending:
    return await asyncio.wait_for(handler.handle(job(payload), deadline_seconds=5.0), 10.0)


async def doubled(job: HandledJob) -> Any:
    await asyncio.sleep(0)
    return {"twice": 2 * job.payload, "key": job.idempotency_key}


class Doubler:
    async def __call__(self, job: HandledJob) -> Any:
        return await doubled(job)


@pytest.mark.parametrize(
    "function",
    [doubled, Doubler(), functools.partial(doubled), lambda job: doubled(job), lambda job: {"twice": 6, "key": "job"}],
    ids=["async", "async object", "partial", "returns a coroutine", "plain"],
)
async def test_functions_of_every_kind_do_the_work(handling: Make, function: Any) -> None:
    """Asynchronous or not, function or object."""
    assert await handled(handling(function)) == Ending(kind=EndingKind.DONE, output=b'{"twice":6,"key":"job"}')


@pytest.mark.parametrize(
    ("error", "ending"),
    [
        (RejectedJobError("unknown_patient"), Ending(kind=EndingKind.REJECTED, reason="unknown_patient")),
        (RejectedJobError("Mrs Smith"), Ending(kind=EndingKind.REJECTED, reason="handler_error")),
        (
            PostponedJobError(retry_after_seconds=9.0),
            Ending(kind=EndingKind.LATER, reason="postponed", retry_after_seconds=9.0),
        ),
        (ValueError("Mrs Smith"), Ending(kind=EndingKind.RETRY, reason="handler_error")),
        (SystemExit(3), Ending(kind=EndingKind.RETRY, reason="handler_error")),
    ],
    ids=lambda value: type(value).__name__,
)
@pytest.mark.parametrize("plain", [True, False])
async def test_what_functions_raise_says_what_becomes_of_the_job(
    handling: Make, error: BaseException, ending: Ending, plain: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Words are kept, texts are not: not in the ending and not in the log."""

    def raising(job: HandledJob) -> None:
        raise error

    async def raising_later(job: HandledJob) -> None:
        raise error

    assert await handled(handling(raising if plain else raising_later)) == ending
    assert "Smith" not in caplog.text


async def test_a_result_that_is_not_plain_counts_as_a_failed_attempt(handling: Make) -> None:
    """It would come back as something else."""
    assert await handled(handling(lambda job: {1, 2})) == Ending(kind=EndingKind.RETRY, reason="invalid_result")


async def test_a_function_that_blocks_does_not_block_the_workers_loop(handling: Make) -> None:
    """An async one that sleeps with time.sleep: this loop turns on meanwhile."""

    async def blocking(job: HandledJob) -> int:
        time.sleep(1.0)  # noqa: ASYNC251 - that is what must not hurt
        return 1

    handler = handling(blocking)
    task = asyncio.create_task(handled(handler))
    turns = 0
    while not task.done():
        await asyncio.sleep(0.01)
        turns += 1
    assert turns > 30
    assert (await task).kind is EndingKind.DONE


async def test_a_cancelled_call_ends_an_async_function(handling: Make) -> None:
    """At its next await, in its own loop."""
    cancelled = threading.Event()
    begun = threading.Event()

    async def waiting(job: HandledJob) -> None:
        begun.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    task = asyncio.create_task(handling(waiting).handle(job(), deadline_seconds=60))
    await asyncio.to_thread(begun.wait, 10)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await asyncio.to_thread(cancelled.wait, 10)


async def test_plain_functions_that_hang_leave_their_threads_behind_within_bounds(handling: Make) -> None:
    """When all threads are taken the next job is put off, and does not count."""
    release = threading.Event()
    handler = handling(lambda job: release.wait(30))
    hanging = [asyncio.create_task(handler.handle(job(), deadline_seconds=60)) for _ in range(2)]
    await asyncio.sleep(0.1)
    assert await handled(handler) == Ending(kind=EndingKind.LATER, reason="no_thread")
    release.set()
    assert [(await task).output for task in hanging] == [b"true", b"true"]
