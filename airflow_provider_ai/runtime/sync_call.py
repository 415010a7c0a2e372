"""The synchronous pattern as a plain class, for web services, scripts, the command line and the Airflow operator.

>>> caller = SyncCaller(
...     endpoint=EndpointSettings(url="https://models.example.org", protocol="json", model="triage"),
...     request=JsonRequest(),
...     fallback=[LastGood(max_age=timedelta(hours=6)), Static({"priority": "routine"})],
...     settings=CallSettings(deadline_seconds=3.0),
...     store="postgresql://ai@db.example.org/ai",
... )
>>> answer = caller.call({"age": 63, "pulse": 118})
>>> answer.output, answer.degraded, answer.reason

Make one for each endpoint and keep it: connections are reused, and any number of threads may call it.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable as Work
from collections.abc import Sequence
from dataclasses import is_dataclass, replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

from airflow_provider_ai.adapters.crypto.opening import open_codec
from airflow_provider_ai.adapters.endpoints.blocking import ThreadLoops
from airflow_provider_ai.adapters.endpoints.opening import endpoint_opener
from airflow_provider_ai.core.answer import Answer
from airflow_provider_ai.core.call_ports import CallGate, GoodAnswers
from airflow_provider_ai.core.call_settings import CallSettings
from airflow_provider_ai.core.config import EndpointSettings, require
from airflow_provider_ai.core.fallback import Callable, Endpoint, LastGood, Link, check_chain, reserves
from airflow_provider_ai.core.identity import endpoint_name
from airflow_provider_ai.core.phi_policy import OFF, Phi
from airflow_provider_ai.core.ports import Request
from airflow_provider_ai.core.redaction import Necessary, Redaction, listed_columns
from airflow_provider_ai.exceptions import AIProviderError, SpecError
from airflow_provider_ai.patterns.audited_calls import AuditedGoodAnswers, CallAudit
from airflow_provider_ai.patterns.auditing import Auditor
from airflow_provider_ai.patterns.call_exchange import Clocks, Target
from airflow_provider_ai.patterns.daemon_threads import DaemonThreads, LeftBehindError, NoThreadError
from airflow_provider_ai.patterns.shared_state import SharedState
from airflow_provider_ai.patterns.sync_call import Step, SyncCall, UserFunction
from airflow_provider_ai.runtime.auditing import Audit, open_auditor
from airflow_provider_ai.runtime.phi import asked_for, guarded, require_phi
from airflow_provider_ai.runtime.telemetry import CallSpan
from airflow_provider_ai.runtime.user_functions import imported

if TYPE_CHECKING:
    from airflow_provider_ai.core.key_settings import KeySettings

log = logging.getLogger(__name__)
MOST_THREADS = 256
AUDIT_CLOSE_SECONDS = 5.0
"""What ending it may take."""
AUDIT_PREPARE_SECONDS = 10.0
"""What beginning a chain may take then: a commit, and a signed head at its place. Calls are not answered without."""
PREPARE_SECONDS = 2.0
"""What connecting to the store may take when a caller is made; without it, calls go out unguarded for a while."""


class CallStore(Protocol):
    """What is shared by all processes: :func:`airflow_provider_ai.adapters.store.open_store`, or a fake."""

    def gate(self, settings: CallSettings) -> CallGate:
        """Circuit breakers and bulkheads."""
        ...

    def answers(self) -> GoodAnswers:
        """Last good answers."""
        ...

    def prepare(self) -> None:
        """Connect, and make the tables when there are none yet. May raise anything and may hang."""
        ...

    def close(self) -> None:
        """Release connections."""
        ...


class SyncCaller:
    """Calls one endpoint synchronously: an answer within the deadline, always.

    :param endpoint: the model endpoint
    :param request: how inputs become a call: :class:`JsonRequest`, :class:`OpenInferenceRequest`, …
    :param fallback: links tried in order when the endpoint has no answer; must end in :class:`Static`
    :param settings: deadline and limits
    :param store: SQLAlchemy URL of the store, or an opened one; None: no circuit breaker, bulkhead or last good answers
    :param audit: every call is then audited, and what cannot be is answered degraded; None for no audit
    :param columns: fields that records may have; one with another is answered degraded, unsent. None for any
    :param redaction: what is done to fields before they are sent, to fallback endpoints as well
    :param phi: with it on, ``columns`` (or the request's) must be given, and what would leave data unprotected is
        refused here
    :param max_threads: calls of this process at a time, those included that still hang; more are answered degraded
    :param keys: encrypt the last good answers in a store that is named by its URL; None for answers in clear
    :raises SpecError: for settings that cannot be right
    """

    def __init__(
        self,
        *,
        endpoint: EndpointSettings,
        request: Request,
        fallback: Sequence[Link],
        settings: CallSettings | None = None,
        store: str | CallStore | None = None,
        audit: Audit | None = None,
        columns: Sequence[str] | None = None,
        redaction: Redaction | None = None,
        phi: Phi = OFF,
        max_threads: int = MOST_THREADS,
        keys: KeySettings | None = None,
    ) -> None:
        self._settings = settings or CallSettings()
        self._request = request
        chain = check_chain(fallback)
        self._allowed = listed_columns(request) if columns is None else tuple(columns)
        self._redaction = redaction
        on = self._require_phi(phi, endpoint, chain, store, keys=keys, audit=audit)
        self._guarded = on or columns is not None
        if store is None and any(isinstance(link, LastGood) for link in chain):
            raise SpecError("LastGood needs a store to keep answers in: set one, or drop the link")
        self._loops = ThreadLoops()
        self._threads = DaemonThreads(most=max_threads, at_end=self._loops.close_thread)
        self._store = _opened(store, self._settings, keys)
        self._auditor = open_auditor(audit)
        clocks = Clocks(monotonic=time.monotonic, epoch=time.time, random=random.random)
        self._state = SharedState(
            gate=None if self._store is None else self._store.gate(self._settings),
            answers=None if self._store is None else _audited(self._store.answers(), self._auditor),
            threads=self._threads,
            cap_seconds=self._settings.store_seconds,
            clock=clocks.monotonic,
        )
        if self._store is not None:
            self._state.prepare(self._store.prepare, seconds=PREPARE_SECONDS)
        if self._auditor.on:
            _prepare(self._auditor, self._threads)
        self._call = SyncCall(
            self._target(endpoint, request),
            [self._step(link) for link in chain],
            promises=reserves(
                chain,
                deadline_seconds=self._settings.deadline_seconds,
                store_timeout_seconds=self._settings.store_seconds,
            ),
            settings=self._settings,
            state=self._state,
            threads=self._threads,
            clocks=clocks,
            audit=CallAudit(self._auditor) if self._auditor.on else None,
        )

    def call(self, inputs: Any = None) -> Answer:
        """The answer to ``inputs``: one record, or a list of records; None for the request's own ``inputs``.

        Raises nothing that data, the endpoint, the store or a fallback could cause: that is in the answer.
        """
        span = CallSpan(
            endpoint=self._call.primary.name,
            deadline_seconds=self._settings.deadline_seconds,
            threads=self._threads,
        )
        answer = None
        try:
            answer = self._call.call(self._request.inputs if inputs is None else inputs)
        finally:
            span.end(answer)
        return answer

    def close(self) -> None:
        """Let threads and connections go. What hangs is left behind."""
        if self._auditor.on:
            _within(self._auditor.close, self._threads, AUDIT_CLOSE_SECONDS, "its last head may not be shipped")
        self._threads.close()
        if self._store is not None:
            self._store.close()

    def __enter__(self) -> SyncCaller:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _target(self, settings: EndpointSettings, request: Request) -> Target:
        matches = settings.protocol == request.protocol or settings.protocol == f"{request.protocol}-grpc"
        require(
            matches,
            f"request must be one of protocol {settings.protocol!r}, which the endpoint speaks",
            request.protocol,
        )
        request = self._necessary(request)
        opening = endpoint_opener(settings, max_response_bytes=self._settings.max_response_bytes)
        return Target(
            name=endpoint_name(settings), settings=settings, request=request, endpoint=self._loops.endpoint(opening)
        )

    def _necessary(self, request: Request) -> Request:
        """The request that sends no more than it may."""
        bare: Request = replace(request, inputs=None) if is_dataclass(request) else request
        own_id = "id" if request.protocol == "json" else None
        allowed = self._allowed if self._guarded else None
        necessary = Necessary(allowed=allowed, redaction=self._redaction, id_column=own_id, strict=True)
        return guarded(bare, necessary, phi=self._guarded)

    def _require_phi(
        self, phi: Phi, endpoint: EndpointSettings, chain: Sequence[Link], store: object, **protection: Any
    ) -> bool:
        others = [link for link in chain if isinstance(link, Endpoint) and isinstance(link.target, EndpointSettings)]
        targets = {f"fallback endpoint {n}": link.target for n, link in enumerate(others, start=1)}
        requests = [self._request, *(link.request for link in others if link.request is not None)]
        return require_phi(
            phi,
            **protection,
            endpoints={"endpoint": endpoint, **targets},
            databases={"store": store if isinstance(store, str) else None},
            records=True,
            columns=self._allowed,
            asked=[name for request in requests for name in asked_for(request, self._redaction)],
        )

    def _step(self, link: Link) -> Step:
        if isinstance(link, Callable):
            return UserFunction(imported(link.path, setting="Callable"))
        if isinstance(link, Endpoint):
            if isinstance(link.target, str):
                raise SpecError('Endpoint("connection") needs Airflow to look it up: give EndpointSettings instead')
            return self._target(link.target, link.request or self._request)
        return link


def _opened(store: str | CallStore | None, settings: CallSettings, keys: KeySettings | None) -> CallStore | None:
    if not isinstance(store, str):
        require(store is None or keys is None, "keys must be given to the store where it was opened", "both")
        return store
    # SQLAlchemy is not needed by callers without a store.
    from airflow_provider_ai.adapters.store import open_store

    return open_store(store, timeout_seconds=settings.store_seconds, codec=open_codec(keys))


def _audited(answers: GoodAnswers, auditor: Auditor) -> GoodAnswers:
    return AuditedGoodAnswers(answers, auditor) if auditor.on else answers


def _prepare(auditor: Auditor, threads: DaemonThreads) -> None:
    """Begin the chain before the first call, whose deadline has no time for that. If it cannot be now, calls say so."""
    _within(auditor.log.prepare, threads, AUDIT_PREPARE_SECONDS, "calls try again")


def _within(work: Work[[], None], threads: DaemonThreads, seconds: float, otherwise: str) -> None:
    try:
        threads.run(work, seconds=seconds)
    except (LeftBehindError, NoThreadError):
        log.warning("audit: no answer in time; %s", otherwise)
    except AIProviderError as error:
        log.warning("audit: %s; %s", error, otherwise)
