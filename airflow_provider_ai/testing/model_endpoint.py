"""A model endpoint in memory."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from airflow_provider_ai.core.ports import CallFailedError, Reply
from airflow_provider_ai.core.verdict import Failure


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """How a call ends instead of being answered: a ``status``, a ``failure``, or a 200 with a useless ``body``.

    :param retry_after: the Retry-After header
    :param latency_seconds: replaces the endpoint's latency
    :param permanent: no later call can succeed either
    :param error: raised as it is: what an endpoint must never do
    """

    status: int = 200
    failure: Failure | None = None
    retry_after: str | None = None
    body: bytes = b""
    latency_seconds: float | None = None
    permanent: bool = False
    error: BaseException | None = None


Answer = Callable[[Mapping[str, Any]], "Mapping[str, Any] | Fault | None"]


def _answered(record: Mapping[str, Any]) -> Mapping[str, Any]:
    return {"answer": 1}


class FakeModelEndpoint:
    """A model endpoint in memory.

    What a call meets, in this order: the next of ``faults`` (None: nothing); the ``outage``; a 429 above ``capacity``;
    a :class:`Fault` that ``answer`` gives for one of its records, which spoils the whole call; or the outputs.

    :param answer: record as sent (with ``id``) → output columns; None leaves the record out of the answer
    :param latency_seconds: seconds a call takes, or a function that says so for each call
    :param capacity: calls in flight that are answered; more get 429
    :param outage: event loop time → the fault every call meets then, or None
    """

    def __init__(
        self,
        answer: Answer = _answered,
        *,
        latency_seconds: float | Callable[[], float] = 0.0,
        capacity: int | None = None,
        faults: Iterable[Fault | None] = (),
        outage: Callable[[float], Fault | None] = lambda now: None,
    ) -> None:
        self.faults = deque(faults)
        self.outage = outage
        self.calls_of: Counter[Any] = Counter()
        self.answers_of: Counter[Any] = Counter()
        self.sent_at: list[float] = []
        self.in_flight = 0
        self.peak_in_flight = 0
        self._answer = answer
        self._latency = latency_seconds if callable(latency_seconds) else lambda: latency_seconds
        self._capacity = capacity

    @property
    def calls(self) -> int:
        """Calls so far."""
        return len(self.sent_at)

    async def post(self, path: str, body: bytes, *, deadline_seconds: float) -> Reply:
        """The scripted end of a call, after its latency; a timeout when that is longer than the deadline."""
        request = orjson.loads(body)
        records = request["inputs"]
        now = asyncio.get_running_loop().time()
        self.sent_at.append(now)
        self.calls_of.update(record["id"] for record in records)
        self.in_flight += 1
        self.peak_in_flight = max(self.peak_in_flight, self.in_flight)
        try:
            fault = self._fault(now)
            latency = self._latency() if fault is None or fault.latency_seconds is None else fault.latency_seconds
            await asyncio.sleep(min(latency, deadline_seconds))
            if latency >= deadline_seconds:
                raise CallFailedError(Failure.TIMEOUT, "TimeoutError")
            return self._reply(records) if fault is None else _end(fault)
        finally:
            self.in_flight -= 1

    def _fault(self, now: float) -> Fault | None:
        if self.faults:
            return self.faults.popleft()
        outage = self.outage(now)
        if outage is None and self._capacity is not None and self.in_flight > self._capacity:
            return Fault(status=429)
        return outage

    def _reply(self, records: Sequence[Mapping[str, Any]]) -> Reply:
        outputs: list[dict[str, Any]] = []
        for record in records:
            found = self._answer(record)
            if isinstance(found, Fault):
                return _end(found)
            if found is not None:
                outputs.append({"id": record["id"], **found})
        self.answers_of.update(output["id"] for output in outputs)
        return Reply(200, orjson.dumps({"outputs": outputs}))


def _end(fault: Fault) -> Reply:
    if fault.error is not None:
        raise fault.error
    if fault.failure is not None:
        raise CallFailedError(fault.failure, "scripted", permanent=fault.permanent)
    return Reply(fault.status, fault.body, fault.retry_after)
