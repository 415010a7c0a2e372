"""The store as a synchronous call sees it: asked within a small time cap, and never needed.

A look that fails or takes too long is skipped, and then for a while nothing is asked at all: a dead store must not
cost every call its cap. What a call has to tell the store at its end is written by a thread and waited for briefly.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from airflow_provider_ai.core.call_ports import Admission, CallGate, Evidence, GoodAnswer, GoodAnswers
from airflow_provider_ai.exceptions import AIProviderError
from airflow_provider_ai.patterns.daemon_threads import DaemonThreads, Job, LeftBehindError, NoThreadError

T = TypeVar("T")
_SKIP_SECONDS = 5.0
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Keepsake:
    """A good answer to keep."""

    key: str
    output: Any
    model: str


class SharedState:
    """Circuit breakers, bulkheads and good answers, as far as there is a store and it answers.

    :param cap_seconds: what one look may take
    :param clock: monotonic seconds
    """

    def __init__(
        self,
        *,
        gate: CallGate | None,
        answers: GoodAnswers | None,
        threads: DaemonThreads,
        cap_seconds: float,
        clock: Callable[[], float],
    ) -> None:
        self._gate = gate
        self._answers = answers
        self._threads = threads
        self._cap = cap_seconds
        self._clock = clock
        self._skip_until = float("-inf")

    def prepare(self, work: Callable[[], None], *, seconds: float) -> None:
        """Get the store ready before the first call, whose deadline has no time for that."""
        self._within(work, seconds)

    def admit(self, endpoint: str, *, until: float) -> Admission | None:
        """Whether a call may go out; None when the store does not say, and then it may."""
        gate = self._gate
        return None if gate is None else self._look(lambda: self._admitted(gate, endpoint), until)

    def good_answer(self, key: str, *, until: float) -> GoodAnswer | None:
        """The answer kept under a key; None when there is none or the store does not say."""
        answers = self._answers
        return None if answers is None else self._look(lambda: answers.load(key), until)

    def settle(
        self, admission: Admission | None, evidence: Evidence, keepsake: Keepsake | None = None
    ) -> Job[None] | None:
        """Begin to count an admitted call, give its place back, and keep its answer; None when nothing is told."""
        counted = self._gate is not None and admission is not None and admission.refused is None
        if self._skipping() or not (counted or (keepsake and self._answers)):
            return None

        def tell() -> None:
            if self._gate is not None and admission is not None and counted:
                self._gate.settle(admission, evidence)
            if self._answers is not None and keepsake is not None:
                self._answers.save(keepsake.key, keepsake.output, model=keepsake.model)

        try:
            return self._threads.start(lambda: self._told(tell))
        except NoThreadError:
            return None  # leases end by themselves

    def wait(self, told: Job[None] | None, *, until: float) -> None:
        """Wait for what was begun, as long as a look may take and not beyond ``until`` (monotonic seconds)."""
        if told is not None and not told.wait(min(self._cap, until - self._clock())):
            self._skip("does not answer in time")

    def _look(self, question: Callable[[], T], until: float) -> T | None:
        return None if self._skipping() else self._within(question, min(self._cap, until - self._clock()))

    def _within(self, work: Callable[[], T], seconds: float) -> T | None:
        try:
            return self._threads.run(work, seconds=seconds)
        except NoThreadError:
            return None
        except LeftBehindError:
            self._skip("does not answer in time")
        except Exception as error:  # noqa: BLE001 - whatever is wrong with the store, the call goes on
            self._skip(_said(error))
        return None

    def _admitted(self, gate: CallGate, endpoint: str) -> Admission:
        """An admission that comes too late for its call is given back at once; nobody else would."""
        asked = self._clock()
        admission = gate.admit(endpoint)
        if self._clock() - asked > self._cap and admission.refused is None:
            gate.settle(admission, Evidence.NONE)
        return admission

    def _told(self, tell: Callable[[], None]) -> None:
        try:
            tell()
        except Exception as error:  # noqa: BLE001 - the answer stands, whatever is wrong with the store
            self._skip(_said(error))

    def _skipping(self) -> bool:
        return self._clock() < self._skip_until

    def _skip(self, why: str) -> None:
        self._skip_until = self._clock() + _SKIP_SECONDS
        log.warning("the store %s: calls go on without circuit breaker and bulkhead for %g s", why, _SKIP_SECONDS)


def _said(error: Exception) -> str:
    """Errors of this package say what to do; of others only the class is kept."""
    return f"fails: {error}" if isinstance(error, AIProviderError) else f"fails ({type(error).__name__})"
