"""What the operator and the decorator of a synchronous call share: its settings, the guards, and the call itself.

Constants are checked when the DAG is parsed, rendered values and connections when the task runs, before anything is
sent. Connections are resolved in the main thread: Airflow's supervisor speaks to no other. The runtime and its
libraries are imported when a task runs, never to parse a DAG.
"""

from __future__ import annotations

import inspect
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowException, Context

from airflow_provider_ai.core.call_guards import check_execution_timeout, check_fallback, check_usual_time
from airflow_provider_ai.core.call_settings import BreakerSettings, CallSettings, seconds_of
from airflow_provider_ai.core.config import require
from airflow_provider_ai.core.fallback import Link
from airflow_provider_ai.core.identity import endpoint_name
from airflow_provider_ai.core.ports import Request
from airflow_provider_ai.exceptions import SpecError
from airflow_provider_ai.hooks.audit import task_audit
from airflow_provider_ai.hooks.storage import DEFAULT_AWS_CONN_ID
from airflow_provider_ai.operators.call_connections import CallConnections, resolve_connections
from airflow_provider_ai.operators.call_metrics import count_answer
from airflow_provider_ai.operators.hidden_fields import HiddenFieldsOperator, explained
from airflow_provider_ai.operators.parse_time import endpoint_at_parse_time

if TYPE_CHECKING:
    from airflow_provider_ai.core.answer import Answer

DEADLINE = timedelta(seconds=3)
DEFAULT_STORE_CONN_ID = "ai_store"
_DEFAULTS = CallSettings()


def call_settings(
    *,
    deadline: timedelta | float = DEADLINE,
    attempt_timeout: timedelta | float | None = None,
    max_attempts: int = _DEFAULTS.max_attempts,
    max_response_bytes: int = _DEFAULTS.max_response_bytes,
    max_concurrent_calls: int = _DEFAULTS.max_concurrent_calls,
    breaker: BreakerSettings | None = None,
) -> CallSettings:
    """The settings of a call from the arguments of an operator; SpecError for one that cannot be right."""
    require(breaker is None or isinstance(breaker, BreakerSettings), "breaker must be BreakerSettings(…)", breaker)
    return CallSettings(
        deadline_seconds=seconds_of(deadline),
        attempt_timeout_seconds=None if attempt_timeout is None else seconds_of(attempt_timeout),
        max_attempts=max_attempts,
        max_response_bytes=max_response_bytes,
        max_concurrent_calls=max_concurrent_calls,
        breaker=breaker or BreakerSettings(),
    )


_OF_SETTINGS = frozenset(inspect.signature(call_settings).parameters)


def check_call_arguments(given: Mapping[str, Any]) -> None:
    """SpecError for a known mistake in the arguments of a task, as far as they are ``given``: for mapped tasks, whose
    operator is made when they run."""
    settings = call_settings(**{name: given[name] for name in _OF_SETTINGS & given.keys()})
    if "fallback" in given:
        has_store = given.get("store_conn_id", DEFAULT_STORE_CONN_ID) is not None
        check_fallback(given["fallback"], settings, has_store=has_store)
    check_execution_timeout(given.get("execution_timeout"), settings.deadline_seconds)
    _check_connection(given.get("endpoint_conn_id"), settings)


def _check_connection(conn_id: object, settings: CallSettings) -> None:
    endpoint = endpoint_at_parse_time(conn_id) if isinstance(conn_id, str) else None
    if endpoint is not None:
        _check_usual_time(str(conn_id), endpoint, settings)


def _check_usual_time(conn_id: str, endpoint: Any, settings: CallSettings) -> None:
    try:
        check_usual_time(endpoint, settings.deadline_seconds)
    except SpecError as error:
        raise SpecError(f"connection {conn_id!r}: {error}") from None


class CallOperator(HiddenFieldsOperator):
    """One synchronous call with a hard deadline and an answer in any case.

    :param endpoint_conn_id: Airflow connection of type ``ai_endpoint`` (templated)
    :param fallback: links tried in order when the endpoint has no answer; must end in :class:`Static`
    :param deadline: from the call to its answer, fallbacks included; at most 5 s
    :param attempt_timeout: of one try of the endpoint; ``None`` for all the time there is
    :param max_attempts: tries of the endpoint, as far as the deadline allows them
    :param max_response_bytes: larger answers are refused
    :param max_concurrent_calls: calls to this endpoint at a time, over all tasks; more are answered degraded
    :param breaker: when the endpoint's circuit breaker opens
    :param store_conn_id: connection of the store that tasks share (templated); ``None`` for no store: no circuit
        breaker, no bulkhead, no last good answers
    :param fail_on_degraded: fail the task (a retry calls again) instead of returning a degraded answer
    :param output_uri: folder for outputs, local or ``s3://`` (templated): XCom then holds a reference, never an output
    :param aws_conn_id: connection for an ``s3://`` one (templated); not looked up for a local one
    """

    template_fields: Sequence[str] = ("endpoint_conn_id", "store_conn_id", "output_uri", "aws_conn_id")
    ui_color = "#e3dcfa"

    def __init__(
        self,
        *,
        endpoint_conn_id: str,
        fallback: Sequence[Link] | Link,
        deadline: timedelta | float = DEADLINE,
        attempt_timeout: timedelta | float | None = None,
        max_attempts: int = _DEFAULTS.max_attempts,
        max_response_bytes: int = _DEFAULTS.max_response_bytes,
        max_concurrent_calls: int = _DEFAULTS.max_concurrent_calls,
        breaker: BreakerSettings | None = None,
        store_conn_id: str | None = DEFAULT_STORE_CONN_ID,
        fail_on_degraded: bool = False,
        output_uri: str | None = None,
        aws_conn_id: str | None = DEFAULT_AWS_CONN_ID,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.endpoint_conn_id = endpoint_conn_id
        self.store_conn_id = store_conn_id
        self.fail_on_degraded = fail_on_degraded
        self.output_uri = output_uri
        self.aws_conn_id = aws_conn_id
        self.settings = call_settings(
            deadline=deadline,
            attempt_timeout=attempt_timeout,
            max_attempts=max_attempts,
            max_response_bytes=max_response_bytes,
            max_concurrent_calls=max_concurrent_calls,
            breaker=breaker,
        )
        self.fallback = check_fallback(fallback, self.settings, has_store=store_conn_id is not None)
        check_execution_timeout(self.execution_timeout, self.settings.deadline_seconds)
        _check_connection(endpoint_conn_id, self.settings)

    def execute(self, context: Context) -> Any:
        """The answer as plain JSON, see :class:`airflow_provider_ai.core.answer.Answer`."""
        return explained(lambda: self.answer(context).to_dict())

    @abstractmethod
    def answer(self, context: Context) -> Answer:
        """Ask; may raise any error of this package."""

    def call(self, request: Request, inputs: Any, context: Context) -> Answer:
        """Ask the endpoint, count the answer, and put its output where it belongs."""
        from airflow_provider_ai.runtime.sync_call import SyncCaller

        connections, audit = self._connections(), task_audit(context)
        with SyncCaller(
            endpoint=connections.endpoint,
            request=request,
            fallback=connections.fallback,
            settings=self.settings,
            store=connections.store,
            keys=connections.keys,
            audit=audit,
        ) as caller:
            answer = caller.call(inputs)
        count_answer(answer, endpoint=endpoint_name(connections.endpoint))
        if answer.degraded and self.fail_on_degraded:
            raise AirflowException(_refusal(answer))
        return self._kept(answer, connections, context)

    def _connections(self) -> CallConnections:
        connections = resolve_connections(
            endpoint_conn_id=self.endpoint_conn_id,
            fallback=self.fallback,
            store_conn_id=self.store_conn_id,
            output_uri=self.output_uri,
            aws_conn_id=self.aws_conn_id,
        )
        _check_usual_time(self.endpoint_conn_id, connections.endpoint, self.settings)
        return connections

    def _kept(self, answer: Answer, connections: CallConnections, context: Context) -> Answer:
        """The answer; with an ``output_uri`` its output is stored there, and referred to."""
        if self.output_uri is None:
            return answer
        # pyarrow is not needed to parse a DAG.
        from airflow_provider_ai.adapters.claim_check import store_output
        from airflow_provider_ai.adapters.crypto.opening import open_codec

        ti = context["ti"]
        place = (ti.dag_id, ti.run_id, ti.task_id, str(ti.map_index))
        codec = open_codec(connections.keys)
        reference = store_output(answer.output, self.output_uri, place, options=connections.storage, codec=codec)
        return replace(answer, output=None, output_ref=reference)


def _refusal(answer: Answer) -> str:
    detail = f" ({answer.detail})" if answer.detail else ""
    return (
        f"degraded answer ({answer.source}): {answer.reason}{detail}, and fail_on_degraded is set; a retry calls again"
    )
