"""A synchronous call: one deadline, and an answer in any case.

The calling thread only waits and decides. Whatever can hang (rendering, the store, the endpoint, validation, a
fallback of the user's) runs in threads that are left behind at their cut-off, so nothing holds the caller longer than
it asked for. Time is one monotonic budget: every part gets what is left of it, less what later parts were promised.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from airflow_provider_ai.core.answer import Answer, Source
from airflow_provider_ai.core.call_settings import CallSettings
from airflow_provider_ai.core.fallback import LastGood, Static, cutoffs
from airflow_provider_ai.patterns.audited_calls import CallAudit
from airflow_provider_ai.patterns.call_exchange import Clocks, Target
from airflow_provider_ai.patterns.daemon_threads import DaemonThreads, Job
from airflow_provider_ai.patterns.endpoint_call import Asked, EndpointCaller, attempted
from airflow_provider_ai.patterns.shared_state import SharedState

log = logging.getLogger(__name__)
_LAST_WORDS_SECONDS = 0.005  # before the deadline the store is not waited for any more


@dataclass(frozen=True, slots=True)
class UserFunction:
    """A fallback of the user's: ``function(inputs) -> output`` as plain JSON; None when it has none either."""

    function: Callable[[Any], Any]


Step = Static | LastGood | Target | UserFunction
"""A link of the chain, ready to be used."""


@dataclass(frozen=True, slots=True)
class _Given:
    """What a step had to offer."""

    output: Any
    model: str | None = None
    age_seconds: float | None = None


class SyncCall:
    """Calls ``primary`` and, when that fails, the steps of ``chain``, the last of which is static.

    :param promises: seconds promised to each step (:func:`airflow_provider_ai.core.fallback.reserves`)
    :param audit: None when it is off
    """

    def __init__(
        self,
        primary: Target,
        chain: Sequence[Step],
        *,
        promises: Sequence[float],
        settings: CallSettings,
        state: SharedState,
        threads: DaemonThreads,
        clocks: Clocks,
        audit: CallAudit | None = None,
    ) -> None:
        self.primary = primary
        self.chain = tuple(chain)
        self.cutoffs = cutoffs(settings.deadline_seconds, promises)
        self.keep = any(isinstance(step, LastGood) for step in chain)
        self.state = state
        self.threads = threads
        self.clocks = clocks
        self.caller = EndpointCaller(settings=settings, state=state, threads=threads, clocks=clocks, audit=audit)

    def call(self, inputs: Any) -> Answer:
        """The answer to ``inputs`` (one record, or a list of them) within the deadline, whatever the endpoint does."""
        return _Call(self, inputs).answer()


class _Call:
    """One call under way. Lives in the thread that waits for it."""

    def __init__(self, pattern: SyncCall, inputs: Any) -> None:
        self._started = pattern.clocks.monotonic()
        self._pattern = pattern
        self._inputs = inputs
        self._attempts = 0
        self._told: list[Job[None]] = []

    def answer(self) -> Answer:
        pattern = self._pattern
        until, *ends = (self._started + cutoff for cutoff in pattern.cutoffs)
        primary = self._ask(pattern.primary, until, keep=pattern.keep)
        if primary.ending is None:
            given, source = _Given(primary.output, pattern.primary.settings.model), _PRIMARY
        else:
            given, source = self._fallback(primary, ends)
        for told in self._told:
            pattern.state.wait(told, until=self._started + pattern.cutoffs[-1] - _LAST_WORDS_SECONDS)
        answer = self._answer(given, source, primary)
        if answer.degraded:
            _log(answer, pattern.primary)
        return answer

    def _fallback(self, primary: Asked, ends: Sequence[float]) -> tuple[_Given, Source]:
        for step, end in zip(self._pattern.chain, ends, strict=True):
            given = self._given(step, primary, end)
            if given is not None:
                return given, _SOURCES[type(step)]
        raise AssertionError("a chain ends in Static")

    def _given(self, step: Step, primary: Asked, until: float) -> _Given | None:
        if isinstance(step, Static):
            return _Given(step.copy())
        if isinstance(step, LastGood):
            return self._last_good(step, primary.key, until)
        if isinstance(step, Target):
            asked = self._ask(step, until, keep=False)
            return _Given(asked.output, step.settings.model) if asked.ending is None else None
        return self._users(step, until)

    def _last_good(self, step: LastGood, key: str | None, until: float) -> _Given | None:
        kept = self._pattern.state.good_answer(key, until=until) if key is not None else None
        if kept is None or kept.age_seconds > step.max_age_seconds:
            return None
        return _Given(kept.output, kept.model, kept.age_seconds)

    def _users(self, step: UserFunction, until: float) -> _Given | None:
        def work() -> Any:
            # Through JSON: an answer is plain data, and the function keeps no hand on it.
            return orjson.loads(orjson.dumps(step.function(self._inputs)))

        output, ending = attempted(self._pattern.threads, work, until - self._pattern.clocks.monotonic())
        if ending is not None:
            log.warning("the callable fallback gave no answer: %s (%s)", ending.reason, ending.detail)
        return None if output is None else _Given(output)

    def _ask(self, target: Target, until: float, *, keep: bool) -> Asked:
        asked = self._pattern.caller.ask(target, self._inputs, until=until, keep=keep)
        self._attempts += asked.attempts
        if asked.told is not None:
            self._told.append(asked.told)
        return asked

    def _answer(self, given: _Given, source: Source, primary: Asked) -> Answer:
        ending = primary.ending
        return Answer(
            output=given.output,
            degraded=ending is not None,
            reason=None if ending is None else ending.reason,
            detail=None if ending is None else ending.detail,
            source=source,
            age_seconds=given.age_seconds,
            attempts=self._attempts,
            elapsed_ms=(self._pattern.clocks.monotonic() - self._started) * 1000,
            breaker_state=primary.breaker,
            model=given.model,
        )


def _log(answer: Answer, primary: Target) -> None:
    log.warning(
        "degraded answer (%s) after %.0f ms: %s%s. Endpoint %s, circuit breaker %s, calls sent: %d",
        answer.source,
        answer.elapsed_ms,
        answer.reason,
        f" ({answer.detail})" if answer.detail else "",
        primary.name,
        answer.breaker_state,
        answer.attempts,
    )


_PRIMARY: Source = "primary"
_SOURCES: dict[type, Source] = {
    Static: "static",
    LastGood: "last-good",
    Target: "endpoint",
    UserFunction: "callable",
}
