"""One endpoint asked within the time there is: send, judge, look at the answer, and perhaps try again.

It runs in a thread of its own and may be left behind there; what the caller wants to know even then (how many tries
were sent) it reads from the exchange.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from airflow_provider_ai.core.backoff import full_jitter, retry_after_seconds
from airflow_provider_ai.core.call_inputs import CallRecords, output_of
from airflow_provider_ai.core.call_ports import BlockingEndpoint
from airflow_provider_ai.core.call_settings import CallSettings
from airflow_provider_ai.core.call_verdict import Ending, ending_of_answer, ending_of_failure, ending_of_reply
from airflow_provider_ai.core.config import EndpointSettings
from airflow_provider_ai.core.ports import CallFailedError, EncodedRequest, InvalidAnswerError, Reply, Request

_FIRST_PAUSE_SECONDS = 0.05
_LONGEST_PAUSE_SECONDS = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """An endpoint and how it is asked. ``name``: of its circuit breaker and bulkhead in the store."""

    name: str
    settings: EndpointSettings
    request: Request
    endpoint: BlockingEndpoint


@dataclass(frozen=True, slots=True, kw_only=True)
class Clocks:
    """Time and chance: monotonic seconds, seconds since the epoch, numbers in ``[0, 1)``, and a pause in seconds."""

    monotonic: Callable[[], float]
    epoch: Callable[[], float]
    random: Callable[[], float]
    sleep: Callable[[float], None] = time.sleep


@dataclass(frozen=True, slots=True)
class Question:
    """Records, and the call they became."""

    records: CallRecords
    encoded: EncodedRequest


class CallEndedError(Exception):
    """The endpoint was asked and gave no answer that can be used."""

    def __init__(self, ending: Ending) -> None:
        super().__init__(ending.reason)
        self.ending = ending


class Exchange:
    """Tries of one endpoint. ``attempts``: calls sent so far, also to be read from another thread."""

    def __init__(
        self, target: Target, question: Question, *, settings: CallSettings, until: float, clocks: Clocks
    ) -> None:
        self.attempts = 0
        self._target = target
        self._question = question
        self._settings = settings
        self._until = until
        self._clocks = clocks

    def run(self) -> Any:
        """The output; CallEndedError when there is none. ``until`` is monotonic seconds."""
        while True:
            began = self._clocks.monotonic()
            ending, output = self._try(self._until - began)
            if ending is None:
                return output
            pause = self._pause(ending, took=self._clocks.monotonic() - began)
            if pause is None:
                raise CallEndedError(ending)
            self._clocks.sleep(pause)

    def _try(self, left: float) -> tuple[Ending | None, Any]:
        self.attempts += 1
        timeout = min(left, self._settings.attempt_timeout_seconds or left)
        try:
            encoded = self._question.encoded
            reply = self._target.endpoint.post(encoded.path, encoded.body, deadline_seconds=max(timeout, 0.001))
        except CallFailedError as error:
            return ending_of_failure(error), None
        return self._judged(reply)

    def _judged(self, reply: Reply) -> tuple[Ending | None, Any]:
        ending = ending_of_reply(reply)
        if ending is not None:
            return ending, None
        try:
            records = self._question.records
            request = self._target.request
            return None, output_of(request.decode(reply.body, records.ids), records, protocol=request.protocol)
        except InvalidAnswerError as error:
            return ending_of_answer(str(error)), None

    def _pause(self, ending: Ending, *, took: float) -> float | None:
        """Seconds until the next try; None when there is none: it may not help, or not end in time."""
        if not ending.again or self.attempts >= self._settings.max_attempts:
            return None
        asked = retry_after_seconds(ending.retry_after, now=self._clocks.epoch())
        jitter = full_jitter(
            self.attempts, base=_FIRST_PAUSE_SECONDS, cap=_LONGEST_PAUSE_SECONDS, random=self._clocks.random()
        )
        pause = jitter if asked is None else asked
        # A try that would be cut off where this one failed is not worth sending.
        return pause if self._clocks.monotonic() + pause + took < self._until else None
