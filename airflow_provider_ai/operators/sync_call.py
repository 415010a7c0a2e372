"""The synchronous pattern in Airflow: one call, one hard deadline, and an answer whatever the endpoint does.

Invariants: XCom holds the answer and what it is (the endpoint's own, or a fallback and why); inputs are shown nowhere;
a degraded answer is no failure of the task, unless its author says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import is_dataclass, replace
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import Context, XComArg

from airflow_provider_ai.core.call_settings import BreakerSettings
from airflow_provider_ai.core.config import require
from airflow_provider_ai.core.fallback import Callable, Endpoint, LastGood, Static
from airflow_provider_ai.core.ports import Request
from airflow_provider_ai.core.requests import (
    JsonRequest,
    OpenAIChatRequest,
    OpenAIEmbeddingsRequest,
    OpenInferenceRequest,
)
from airflow_provider_ai.exceptions import SpecError
from airflow_provider_ai.hooks.claim_check import load_output
from airflow_provider_ai.operators.call_operator import CallOperator, check_call_arguments
from airflow_provider_ai.operators.degraded_branch import AIDegradedBranchOperator
from airflow_provider_ai.operators.hidden import Inputs
from airflow_provider_ai.operators.phi_at_parse_time import mapped_ways, ways_through_airflow

if TYPE_CHECKING:
    from airflow_provider_ai.core.answer import Answer

__all__ = [
    "AIDegradedBranchOperator",
    "AISyncCallOperator",
    "BreakerSettings",
    "Callable",
    "Endpoint",
    "JsonRequest",
    "LastGood",
    "OpenAIChatRequest",
    "OpenAIEmbeddingsRequest",
    "OpenInferenceRequest",
    "Static",
    "load_output",
]

Records = Mapping[str, Any] | Sequence[Mapping[str, Any]]


class AISyncCallOperator(CallOperator):
    """Asks an endpoint and returns the answer, degraded or not, within the deadline.

    :param request: how inputs become a call, with its ``inputs``: values, templates (which keep their types: ``{{
        params.age }}`` stays a number) and outputs of other tasks
    :param inputs: instead of the request's own; for mapped tasks: ``.partial(…).expand(inputs=load_patients())``
    """

    template_fields: Sequence[str] = (*CallOperator.template_fields, "inputs")

    def __init__(self, *, request: Request, inputs: Records | XComArg | str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        require(is_request(request), "request must be a request such as OpenInferenceRequest(…)", _kind(request))
        given = request.inputs if inputs is None else inputs
        if given is None:
            raise SpecError(f"task {self.task_id!r} has nothing to ask: give the request inputs=…")
        self.inputs = Inputs(given, origin=request if inputs is None else inputs)
        self.request = without_inputs(request)
        self._ways = ways_through_airflow(given)
        self._check_phi(self.request, self.inputs)

    @classmethod
    def partial(cls, **kwargs: Any) -> Any:
        """As Airflow's own, and refuses known mistakes when the DAG is parsed."""
        check_call_arguments(kwargs)
        return super().partial(**kwargs)

    def ways_of_inputs(self) -> Sequence[str]:
        """As they were written, and not as they are rendered."""
        return [*self._ways, *mapped_ways(self, "inputs")]

    def answer(self, context: Context) -> Answer:
        """Ask with the rendered inputs."""
        return self.call(self.request, self.inputs.value, context)


def is_request(value: object) -> bool:
    """Whether a value is one of the request classes, or looks like one."""
    return all(hasattr(value, name) for name in ("encode", "decode", "protocol", "inputs"))


def without_inputs(request: Any) -> Any:
    """The request alone, so that its inputs are in one place only."""
    return replace(request, inputs=None) if is_dataclass(request) and not isinstance(request, type) else request


def _kind(value: object) -> str:
    return type(value).__name__
