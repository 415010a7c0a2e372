"""The synchronous pattern: an answer within the deadline, and it says what it is."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from airflow_provider_ai.core.call_settings import CallSettings
from airflow_provider_ai.core.ports import Reply
from airflow_provider_ai.core.requests import JsonRequest, OpenAIChatRequest
from airflow_provider_ai.patterns.daemon_threads import DaemonThreads
from airflow_provider_ai.patterns.sync_call import UserFunction
from tests.patterns.calls import (
    BROKEN,
    REFUSED,
    ROUTINE,
    TIMEOUT,
    ScriptedEndpoint,
    good,
    hang,
    sync_call,
    target,
)

RECORD = {"age": 63}
CANARY = "CANARY-4711"


def test_a_good_answer_is_the_endpoints_own() -> None:
    """Not degraded, from the primary, one call, with the model's name."""
    answer = sync_call(ScriptedEndpoint([good()])).call(RECORD)
    assert answer.output == {"priority": "urgent"}
    assert (answer.degraded, answer.reason, answer.source) == (False, None, "primary")
    assert (answer.attempts, answer.model, answer.breaker_state) == (1, "m", "unknown")


@pytest.mark.parametrize(
    ("step", "reason", "detail"),
    [
        (Reply(500, b""), "server_error", "HTTP 500"),
        (Reply(503, b""), "server_error", "HTTP 503"),
        (Reply(429, b"", "3600"), "throttled", "HTTP 429"),
        (Reply(401, b""), "rejected", "HTTP 401"),
        (Reply(302, b""), "rejected", "HTTP 302"),                                # redirects are not followed
        (TIMEOUT, "timeout", "TimeoutError"),
        (REFUSED, "connect", "ClientConnectorError"),
        (BROKEN, "connection", "ServerDisconnectedError"),
        (Reply(200, b"<html>"), "not_json", "the answer has no valid output"),
        (Reply(200, b'{"outputs": [{"id": 0, "p": '), "not_json", "the answer has no valid output"),
        (Reply(200, b'{"outputs": [{"id": 0, "p": NaN}]}'), "not_json", "the answer has no valid output"),
        (Reply(200, b"[]"), "not_an_object", "the answer has no valid output"),
        (Reply(200, b'{"outputs": []}'), "missing_output", "the answer has no valid output"),
        (RuntimeError(CANARY), "internal", "RuntimeError"),                       # a defect: only its class is told
    ],
)  # fmt: skip
def test_every_other_end_is_answered_by_the_floor_and_says_why(
    step: Reply | Exception, reason: str, detail: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The static answer, degraded, with a reason word; nothing of the payload is logged."""
    with caplog.at_level(logging.DEBUG):
        answer = sync_call(ScriptedEndpoint([step])).call({"note": CANARY})
    assert answer.output == ROUTINE
    assert (answer.degraded, answer.reason, answer.detail, answer.source) == (True, reason, detail, "static")
    assert (answer.attempts, answer.model) == (1, None)
    assert reason in caplog.text
    assert CANARY not in caplog.text


@pytest.mark.parametrize(
    ("inputs", "reason"),
    [
        (None, "not_records"),
        ("text", "not_records"),
        ([], "empty_inputs"),
        ([1, 2], "not_records"),
        ({"age": object()}, "not_encodable"),
        ({"age": 2**70}, "not_encodable"),
    ],
)
def test_a_request_that_cannot_be_made_is_degraded_and_never_sent(inputs: Any, reason: str) -> None:
    """Wrong types end as an answer too, and the endpoint is not called."""
    endpoint = ScriptedEndpoint([good()])
    answer = sync_call(endpoint).call(inputs)
    assert (answer.degraded, answer.reason, answer.attempts) == (True, reason, 0)
    assert endpoint.bodies == []


def test_an_endpoint_that_hangs_is_left_behind_before_the_deadline() -> None:
    """The static answer comes within the deadline although the call never returns."""
    began = time.monotonic()
    answer = sync_call(ScriptedEndpoint([hang]), settings=CallSettings(deadline_seconds=0.4)).call(RECORD)
    took = time.monotonic() - began
    assert (answer.degraded, answer.reason, answer.source, answer.attempts) == (True, "timeout", "static", 1)
    assert 0.3 < took < 2.0
    assert answer.elapsed_ms == pytest.approx(took * 1000, abs=200)


def test_validation_that_hangs_is_left_behind_too() -> None:
    """A validator of the user's runs in the thread as well, inside of the deadline."""

    class Slow(JsonRequest):
        __slots__ = ()

        def decode(self, body: bytes, ids: Any) -> Any:
            return hang()

    answer = sync_call(ScriptedEndpoint([good()]), request=Slow()).call(RECORD)
    assert (answer.degraded, answer.reason) == (True, "timeout")


def test_the_endpoint_is_told_the_time_that_is_left_for_it() -> None:
    """The deadline less what the fallbacks are promised."""
    endpoint = ScriptedEndpoint([good()])
    settings = CallSettings(deadline_seconds=2.0)
    sync_call(endpoint, UserFunction(lambda inputs: None), settings=settings, promises=(0.5, 0.1)).call(RECORD)
    assert endpoint.deadlines[0] == pytest.approx(1.4, abs=0.1)


def test_the_timeout_of_one_try_is_the_smaller_of_the_setting_and_the_rest() -> None:
    """``attempt_timeout_seconds`` cuts a try off, never the deadline."""
    endpoint = ScriptedEndpoint([TIMEOUT, good()])
    settings = CallSettings(deadline_seconds=5.0, attempt_timeout_seconds=0.2, max_attempts=2)
    answer = sync_call(endpoint, settings=settings).call(RECORD)
    assert (answer.degraded, answer.attempts) == (False, 2)
    assert endpoint.deadlines == [0.2, 0.2]


def test_there_is_no_retry_by_default() -> None:
    """One try, then the fallback: a caller who waits has no time to try again."""
    endpoint = ScriptedEndpoint([Reply(503, b""), good()])
    assert sync_call(endpoint).call(RECORD).attempts == 1


@pytest.mark.parametrize("step", [Reply(400, b""), Reply(200, b"<html>")])
def test_what_cannot_get_better_is_not_tried_again(step: Reply) -> None:
    """A refused request and an invalid answer are final."""
    settings = CallSettings(deadline_seconds=3.0, max_attempts=3)
    assert sync_call(ScriptedEndpoint([step]), settings=settings).call(RECORD).attempts == 1


def test_a_retry_that_would_not_end_in_time_is_not_sent() -> None:
    """Retry-After beyond the deadline means no retry, and no waiting for it."""
    began = time.monotonic()
    settings = CallSettings(deadline_seconds=2.0, max_attempts=3)
    answer = sync_call(ScriptedEndpoint([Reply(503, b"", "30")]), settings=settings).call(RECORD)
    assert (answer.attempts, answer.reason) == (1, "server_error")
    assert time.monotonic() - began < 1.0


def test_a_second_endpoint_answers_in_place_of_the_first() -> None:
    """Degraded, with the model that answered and the reason why the first did not; both calls are counted."""
    small = target(ScriptedEndpoint([good("soon")]), model="small")
    answer = sync_call(ScriptedEndpoint([Reply(500, b"")]), small).call(RECORD)
    assert answer.output == {"priority": "soon"}
    assert (answer.degraded, answer.reason, answer.source) == (True, "server_error", "endpoint")
    assert (answer.model, answer.attempts) == ("small", 2)


def test_a_second_endpoint_has_its_time_even_when_the_first_hangs() -> None:
    """Its share of the deadline is kept for it."""
    small = target(ScriptedEndpoint([good("soon")]), model="small")
    settings = CallSettings(deadline_seconds=1.0)
    answer = sync_call(ScriptedEndpoint([hang]), small, settings=settings).call(RECORD)
    assert (answer.source, answer.reason) == ("endpoint", "timeout")
    assert answer.elapsed_ms < 2000


def test_a_chain_of_hanging_links_still_ends_within_the_deadline() -> None:
    """First, second endpoint and function hang: the floor answers in time."""
    small = target(ScriptedEndpoint([hang]), model="small")
    settings = CallSettings(deadline_seconds=0.8)
    answer = sync_call(ScriptedEndpoint([hang]), small, UserFunction(lambda inputs: hang()), settings=settings).call(
        RECORD
    )
    assert (answer.source, answer.output) == ("static", ROUTINE)
    assert answer.elapsed_ms < 2000


@pytest.mark.parametrize(
    ("function", "source", "output"),
    [
        (lambda inputs: {"priority": "by age", "age": inputs["age"]}, "callable", {"priority": "by age", "age": 63}),
        (lambda inputs: None, "static", ROUTINE),                 # it has none either
        (lambda inputs: 1 / 0, "static", ROUTINE),
        (lambda inputs: object(), "static", ROUTINE),             # not plain JSON
        (lambda inputs: exit(), "static", ROUTINE),
    ],
)  # fmt: skip
def test_a_function_of_the_users_may_answer_or_fail(function: Callable[[Any], Any], source: str, output: Any) -> None:
    """What it returns is the answer; whatever goes wrong in it leads to the next link."""
    settings = CallSettings(deadline_seconds=3.0)
    answer = sync_call(ScriptedEndpoint([Reply(500, b"")]), UserFunction(function), settings=settings).call(RECORD)
    assert (answer.source, answer.output) == (source, output)


def test_each_static_answer_is_a_copy() -> None:
    """A caller that changes its answer does not change the next one."""
    call = sync_call(ScriptedEndpoint([Reply(500, b"")]))
    call.call(RECORD).output["priority"] = "changed"
    assert call.call(RECORD).output == ROUTINE


def test_a_list_of_records_is_answered_by_a_list() -> None:
    """In the order of the inputs, with the ids they had."""
    reply = Reply(200, b'{"outputs": [{"id": "b", "p": 2}, {"id": "a", "p": 1}]}')
    answer = sync_call(ScriptedEndpoint([reply])).call([{"id": "a"}, {"id": "b"}])
    assert answer.output == [{"id": "a", "p": 1}, {"id": "b", "p": 2}]


def test_half_an_answer_is_none() -> None:
    """One record without a valid output makes the whole answer a failure."""
    reply = Reply(200, b'{"outputs": [{"id": "a", "p": 1}]}')
    answer = sync_call(ScriptedEndpoint([reply])).call([{"id": "a"}, {"id": "b"}])
    assert (answer.degraded, answer.reason, answer.output) == (True, "missing_output", ROUTINE)


def test_more_calls_than_threads_are_answered_at_once() -> None:
    """When every thread hangs, the next call is degraded immediately instead of waiting for one."""
    threads = DaemonThreads(most=2)
    call = sync_call(ScriptedEndpoint([hang]), threads=threads, settings=CallSettings(deadline_seconds=1.0))
    assert [call.call(RECORD).reason for _ in range(2)] == ["timeout", "timeout"]
    began = time.monotonic()
    answer = call.call(RECORD)
    assert (answer.reason, answer.attempts) == ("bulkhead_full", 0)
    assert time.monotonic() - began < 0.8


def test_an_interrupt_passes_through() -> None:
    """Ctrl-C and Airflow's task timeout are not answered with a fallback: they end the caller."""

    class Interrupt(BaseException):
        pass

    call = sync_call(ScriptedEndpoint([good()]))

    def interrupted(*args: Any, **kwargs: Any) -> Any:
        raise Interrupt

    call.threads.run = interrupted  # type: ignore[method-assign]
    with pytest.raises(Interrupt):
        call.call(RECORD)


def test_many_threads_may_call_at_once() -> None:
    """Answers go to whom they belong."""

    def echo_of(number: int) -> int:
        endpoint = ScriptedEndpoint([lambda: Reply(200, b'{"outputs": [{"id": %d, "n": %d}]}' % (number, number))])
        return int(sync_call(endpoint, settings=CallSettings(deadline_seconds=5.0)).call({"id": number}).output["n"])

    answers: dict[int, int] = {}
    callers = [threading.Thread(target=lambda n=n: answers.__setitem__(n, echo_of(n))) for n in range(32)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert answers == {number: number for number in range(32)}


def test_a_prompt_that_misses_a_column_is_a_request_that_cannot_be_made() -> None:
    """The same reasons as in a batch."""
    request = OpenAIChatRequest(prompt="Summarise {{ record.note }}")
    answer = sync_call(ScriptedEndpoint([good()]), request=request).call({"other": 1})
    assert (answer.reason, answer.attempts) == ("undefined_variable", 0)
