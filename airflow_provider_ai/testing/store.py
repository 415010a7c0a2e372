"""The store of synchronous calls in memory: the decisions of the real one, shared by the threads of one process."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import orjson

from airflow_provider_ai.core.call_ports import Admission, Evidence, GoodAnswer
from airflow_provider_ai.core.call_settings import BreakerSettings, CallSettings
from airflow_provider_ai.core.circuit_breaker import BreakerState
from airflow_provider_ai.core.shared_breaker import (
    CREDIBLE,
    SLOT_LEASE_SECONDS,
    Breaker,
    Window,
    after_call,
    after_probe,
    ask,
    bucket_start,
)
from airflow_provider_ai.exceptions import StoreUnavailableError
from airflow_provider_ai.testing.dead_letters import InMemoryDeadLetters
from airflow_provider_ai.testing.job_store import InMemoryJobStore

Clock = Callable[[], float]


class InMemoryStore:
    """What :class:`airflow_provider_ai.runtime.sync_call.SyncCaller` takes as its store.

    ``available = False`` makes everything in it raise StoreUnavailableError until it is True again.

    :param clock: epoch seconds
    """

    def __init__(self, *, clock: Clock = time.time) -> None:
        self.available = True
        self._clock = clock
        self._endpoints: dict[str, _Endpoint] = defaultdict(_Endpoint)
        self._answers = InMemoryGoodAnswers(clock=clock, require=self._require_available)
        self._jobs = InMemoryJobStore(clock=clock, require=self._require_available)
        self._dead_letters = InMemoryDeadLetters(clock=clock, require=self._require_available)

    def gate(self, settings: CallSettings) -> InMemoryGate:
        """A gate; all gates of this store share their breakers and slots."""
        gate = InMemoryGate(
            breaker=settings.breaker,
            max_concurrent_calls=settings.max_concurrent_calls,
            clock=self._clock,
            require=self._require_available,
        )
        gate._endpoints = self._endpoints
        return gate

    def answers(self) -> InMemoryGoodAnswers:
        """The answers of this store."""
        return self._answers

    def jobs(self) -> InMemoryJobStore:
        """The jobs of this store."""
        return self._jobs

    def dead_letters(self) -> InMemoryDeadLetters:
        """The dead letters of this store."""
        return self._dead_letters

    def prepare(self) -> None:
        """As a real one connects."""
        self._require_available()

    def close(self) -> None:
        """Nothing to release."""

    def _require_available(self) -> None:
        if not self.available:
            raise StoreUnavailableError("the store is down")


@dataclass(slots=True)
class _Endpoint:
    breaker: Breaker = field(default_factory=Breaker)
    calls: list[tuple[int, float, Evidence]] = field(default_factory=list)
    slots: dict[int, tuple[str, float]] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)


class InMemoryGate:
    """A call gate.

    :param clock: epoch seconds
    :param require: called before everything; what it raises is raised
    """

    def __init__(
        self,
        *,
        breaker: BreakerSettings | None = None,
        max_concurrent_calls: int = 64,
        clock: Clock = time.time,
        require: Callable[[], None] = lambda: None,
    ) -> None:
        self._settings = breaker or BreakerSettings()
        self._most = max_concurrent_calls
        self._clock = clock
        self._require = require
        self._endpoints: dict[str, _Endpoint] = defaultdict(_Endpoint)
        self._leases = 0

    def admit(self, endpoint: str) -> Admission:
        """Ask to send one call: at the breaker, then at the bulkhead."""
        self._require()
        known, now = self._endpoints[endpoint], self._clock()
        with known.lock:
            self._leases += 1
            lease = f"{id(self)}-{self._leases}"
            breaker = ask(known.breaker, self._settings, now=now, lease=lease)
            if breaker.refuses(lease):
                return Admission(endpoint=endpoint, state=breaker.state, refused="breaker_open")
            slot = self._free_slot(known, now)
            if slot is None:
                known.breaker = after_probe(breaker, Evidence.NONE, self._settings, now=now, lease=lease)
                return Admission(endpoint=endpoint, state=breaker.state, refused="bulkhead_full")
            known.breaker = breaker
            known.slots[slot] = (lease, now + SLOT_LEASE_SECONDS)
        return Admission(
            endpoint=endpoint,
            state=breaker.state,
            probe=breaker.lease == lease,
            slot=slot,
            lease=lease,
            version=breaker.version,
        )

    def settle(self, admission: Admission, evidence: Evidence) -> BreakerState:
        """Give the slot back and count the call, once; the breaker's state after that."""
        self._require()
        known, now = self._endpoints[admission.endpoint], self._clock()
        with known.lock:
            held = self._release(known, admission)
            if admission.probe:
                known.breaker = after_probe(known.breaker, evidence, self._settings, now=now, lease=admission.lease)
            elif held and evidence is not Evidence.NONE:
                known.calls.append((admission.version, bucket_start(now, self._settings), evidence))
                if evidence is Evidence.FAILING:
                    window, version = self._window(known, now), admission.version
                    known.breaker = after_call(known.breaker, window, self._settings, now=now, version=version)
            return known.breaker.state

    def _free_slot(self, known: _Endpoint, now: float) -> int | None:
        def over(slot: int) -> bool:
            return slot not in known.slots or not now < known.slots[slot][1] <= now + CREDIBLE * SLOT_LEASE_SECONDS

        return next(filter(over, range(self._most)), None)

    def _release(self, known: _Endpoint, admission: Admission) -> bool:
        slot = admission.slot
        held = slot is not None and known.slots.get(slot, ("", 0.0))[0] == admission.lease
        if slot is not None and held:
            del known.slots[slot]
        return held

    def _window(self, known: _Endpoint, now: float) -> Window:
        start = now - self._settings.window_seconds
        known.calls = [call for call in known.calls if call[0] == known.breaker.version and call[1] > start]
        failing = sum(evidence is Evidence.FAILING for _, _, evidence in known.calls)
        return Window(alive=len(known.calls) - failing, failing=failing)


class InMemoryGoodAnswers:
    """Last good answers, as JSON.

    :param clock: epoch seconds
    :param require: called before everything; what it raises is raised
    """

    def __init__(self, *, clock: Clock = time.time, require: Callable[[], None] = lambda: None) -> None:
        self._clock = clock
        self._require = require
        self._kept: dict[str, tuple[bytes, str, float]] = {}

    def load(self, key: str) -> GoodAnswer | None:
        """The answer kept under ``key``, however old; None when there is none."""
        self._require()
        if key not in self._kept:
            return None
        data, model, given_at = self._kept[key]
        age = max(0.0, self._clock() - given_at)
        return GoodAnswer(output=orjson.loads(data), model=model, age_seconds=age)

    def save(self, key: str, output: Any, *, model: str) -> None:
        """Keep an answer in place of an older one."""
        self._require()
        self._kept[key] = (orjson.dumps(output), model, self._clock())
