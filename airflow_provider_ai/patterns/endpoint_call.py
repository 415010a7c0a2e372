"""One endpoint asked through its circuit breaker and bulkhead, in a thread that can be left behind.

Order: render, ask the store whether the call may go out, audit that it is about to, send, audit how it ended, and begin
to tell the store. Nothing is raised: how it ended is in the result, also when the thread was left behind.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from airflow_provider_ai.core import call_reasons
from airflow_provider_ai.core.answer import SeenState
from airflow_provider_ai.core.call_inputs import records_of
from airflow_provider_ai.core.call_ports import Evidence
from airflow_provider_ai.core.call_settings import CallSettings
from airflow_provider_ai.core.call_verdict import Ending
from airflow_provider_ai.core.identity import digest
from airflow_provider_ai.core.ports import UnrenderableRecordError
from airflow_provider_ai.exceptions import AuditError
from airflow_provider_ai.patterns.audited_calls import CallAudit, Intention
from airflow_provider_ai.patterns.call_exchange import CallEndedError, Clocks, Exchange, Question, Target
from airflow_provider_ai.patterns.daemon_threads import DaemonThreads, Job, LeftBehindError, NoThreadError
from airflow_provider_ai.patterns.shared_state import Keepsake, SharedState

T = TypeVar("T")
log = logging.getLogger(__name__)

GRACE_SECONDS = 0.01
"""Beyond a cut-off: work that ends there by itself can still say how it ended."""
AUDIT_SHARE = 0.25
"""Of the deadline: what keeping one audit event may take."""
_LAST_EVENT_SECONDS = 0.05  # kept free for the event that says how an audited call ended


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """How it ended: with an ``output``, or with an ``ending`` that says why there is none.

    :param key: names endpoint and input, for the last good answer; None when there was nothing to send
    :param told: what is being told to the store
    """

    ending: Ending | None
    output: Any = None
    attempts: int = 0
    breaker: SeenState = "unknown"
    key: str | None = None
    told: Job[None] | None = None


class EndpointCaller:
    """Asks endpoints. ``audit``: None when it is off."""

    def __init__(
        self,
        *,
        settings: CallSettings,
        state: SharedState,
        threads: DaemonThreads,
        clocks: Clocks,
        audit: CallAudit | None = None,
    ) -> None:
        self._settings = settings
        self._state = state
        self._threads = threads
        self._clocks = clocks
        self._audit = audit

    def ask(self, target: Target, inputs: Any, *, until: float, keep: bool) -> Asked:
        """Ask ``target`` for an answer by ``until`` (monotonic seconds).

        :param keep: whether to keep a good answer for later calls
        """
        question, ending = attempted(self._threads, lambda: _question(target, inputs), self._left(until))
        if ending is not None:
            return Asked(ending=ending)
        key = digest("last-good", target.settings.identity(), question.encoded.path, question.encoded.body.hex())
        admission = self._state.admit(target.name, until=until)
        breaker: SeenState = "unknown" if admission is None else admission.state.value
        if admission is not None and admission.refused is not None:
            return Asked(ending=Ending(reason=admission.refused, evidence=Evidence.NONE), breaker=breaker, key=key)
        try:
            output, ending, attempts, evidence = self._exchanged(target, question, until)
        except BaseException:  # the caller is interrupted: the place is given back all the same
            self._state.settle(admission, Evidence.NONE)
            raise
        keepsake = Keepsake(key, output, target.settings.model) if keep and ending is None else None
        told = self._state.settle(admission, evidence, keepsake)
        return Asked(ending=ending, output=output, attempts=attempts, breaker=breaker, key=key, told=told)

    def _exchanged(self, target: Target, question: Question, until: float) -> tuple[Any, Ending | None, int, Evidence]:
        """The output, or how it ended instead; calls sent; and what that says of the endpoint."""
        audit, intention, over = self._audit, None, until + GRACE_SECONDS
        if audit is not None:
            until -= min(_LAST_EVENT_SECONDS, self._settings.deadline_seconds / 10)
            intention, ending = self._audited(lambda: audit.intend(target, question), until)
            if ending is not None:
                return None, ending, 0, Evidence.NONE
        exchange = Exchange(target, question, settings=self._settings, until=until, clocks=self._clocks)
        output, ending = attempted(self._threads, exchange.run, self._left(until) + GRACE_SECONDS)
        evidence = Evidence.ALIVE if ending is None else ending.evidence
        if audit is not None and intention is not None:
            ending = self._concluded(audit, intention, ending, over)
        return None if ending is not None else output, ending, exchange.attempts, evidence

    def _concluded(self, audit: CallAudit, intention: Intention, ending: Ending | None, over: float) -> Ending | None:
        """How it ended, audited. An answer waits for that; where there is none, nobody does."""
        if ending is None:
            return self._audited(lambda: audit.conclude(intention, None), over)[1]
        try:
            self._threads.start(lambda: audit.conclude(intention, ending))
        except NoThreadError:
            log.warning("audit: no thread is free to say how a call ended; that it was intended is on record")
        return ending

    def _audited(self, work: Callable[[], T], until: float) -> tuple[T, None] | tuple[Any, Ending]:
        """Likewise for the audit: how it fails says nothing of the endpoint."""
        seconds = min(self._left(until), AUDIT_SHARE * self._settings.deadline_seconds)
        try:
            return self._threads.run(work, seconds=seconds), None
        except LeftBehindError:
            detail = "no answer in time"
        except NoThreadError:
            detail = "all threads for calls of this process are busy or hang"
        except AuditError as error:
            log.warning("%s", error)
            detail = type(error).__name__
        except Exception as error:  # noqa: BLE001 - whatever is wrong with the audit, nothing goes on without it
            detail = type(error).__name__
        return None, Ending(reason=call_reasons.AUDIT_UNAVAILABLE, detail=detail, evidence=Evidence.NONE)

    def _left(self, until: float) -> float:
        return until - self._clocks.monotonic()


def attempted(threads: DaemonThreads, work: Callable[[], T], seconds: float) -> tuple[T, None] | tuple[Any, Ending]:
    """What ``work`` returns within ``seconds``, or how it ended instead."""
    try:
        return threads.run(work, seconds=seconds), None
    except CallEndedError as error:
        return None, error.ending
    except UnrenderableRecordError as error:
        return None, Ending(reason=str(error), detail="the request cannot be made", evidence=Evidence.NONE)
    except LeftBehindError:
        return None, Ending(reason=call_reasons.TIMEOUT, detail="left behind", evidence=Evidence.FAILING)
    except NoThreadError:
        detail = "all threads for calls of this process are busy or hang"
        return None, Ending(reason=call_reasons.BULKHEAD_FULL, detail=detail, evidence=Evidence.NONE)
    except Exception as error:  # noqa: BLE001 - foreign code on foreign data; its text may quote it
        return None, Ending(reason=call_reasons.INTERNAL, detail=type(error).__name__, evidence=Evidence.NONE)


def _question(target: Target, inputs: Any) -> Question:
    records = records_of(inputs, protocol=target.request.protocol)
    return Question(records, target.request.encode(target.settings.model, records.ids, records.records))
