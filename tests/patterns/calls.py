"""A synchronous call over fakes: an endpoint that does what the test says, and threads that may be left behind."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from airflow_provider_ai.core.call_ports import CallGate, GoodAnswers
from airflow_provider_ai.core.call_settings import CallSettings
from airflow_provider_ai.core.config import EndpointSettings
from airflow_provider_ai.core.fallback import Callable as UserCallable
from airflow_provider_ai.core.fallback import Link, Static, reserves
from airflow_provider_ai.core.ports import CallFailedError, Reply, Request
from airflow_provider_ai.core.requests import JsonRequest
from airflow_provider_ai.core.verdict import Failure
from airflow_provider_ai.patterns.audited_calls import CallAudit
from airflow_provider_ai.patterns.call_exchange import Clocks, Target
from airflow_provider_ai.patterns.daemon_threads import DaemonThreads
from airflow_provider_ai.patterns.shared_state import SharedState
from airflow_provider_ai.patterns.sync_call import Step, SyncCall

ROUTINE = {"priority": "routine"}
FLOOR = Static(ROUTINE)
TIMEOUT = CallFailedError(Failure.TIMEOUT, "TimeoutError")
REFUSED = CallFailedError(Failure.CONNECT, "ClientConnectorError")
BROKEN = CallFailedError(Failure.DISCONNECTED, "ServerDisconnectedError")


def hang() -> Reply:
    """What a call does that never comes back; the thread is left behind for the rest of the tests."""
    threading.Event().wait()
    raise AssertionError


@dataclass
class ScriptedEndpoint:
    """Ends each call as scripted: a reply, an error, or whatever a function does; the last one is repeated."""

    script: Sequence[Reply | Exception | Callable[[], Reply]]
    deadlines: list[float] = field(default_factory=list)
    bodies: list[Any] = field(default_factory=list)

    def post(self, path: str, body: bytes, *, deadline_seconds: float) -> Reply:
        step = self.script[min(len(self.deadlines), len(self.script) - 1)]
        self.deadlines.append(deadline_seconds)
        self.bodies.append(orjson.loads(body))
        if isinstance(step, Exception):
            raise step
        return step if isinstance(step, Reply) else step()


def good(answer: Any = "urgent", record_id: Any = 0) -> Reply:
    """A valid answer to one record."""
    return Reply(200, orjson.dumps({"outputs": [{"id": record_id, "priority": answer}]}))


def target(endpoint: ScriptedEndpoint, *, model: str = "m", request: Request | None = None) -> Target:
    """An endpoint as the pattern takes it."""
    settings = EndpointSettings(url="http://model.example", protocol="json", model=model)
    return Target(name=model, settings=settings, request=request or JsonRequest(), endpoint=endpoint)


def sync_call(
    primary: ScriptedEndpoint,
    *steps: Step,
    settings: CallSettings | None = None,
    gate: CallGate | None = None,
    answers: GoodAnswers | None = None,
    promises: Sequence[float] | None = None,
    request: Request | None = None,
    threads: DaemonThreads | None = None,
    audit: CallAudit | None = None,
) -> SyncCall:
    """The pattern over ``primary`` and the steps, :data:`FLOOR` after them."""
    settings = settings or CallSettings(deadline_seconds=0.5)
    chain = [*steps, FLOOR]
    links: list[Link] = [step if isinstance(step, Link) else UserCallable("a.b", 0.1) for step in chain]
    if promises is None:
        promises = reserves(links, deadline_seconds=settings.deadline_seconds, store_timeout_seconds=0.05)
    threads = threads or DaemonThreads()
    return SyncCall(
        target(primary, request=request),
        chain,
        promises=promises,
        settings=settings,
        state=SharedState(
            gate=gate,
            answers=answers,
            threads=threads,
            cap_seconds=settings.store_seconds,
            clock=time.monotonic,
        ),
        threads=threads,
        clocks=Clocks(monotonic=time.monotonic, epoch=time.time, random=random.Random(1).random),
        audit=audit,
    )
