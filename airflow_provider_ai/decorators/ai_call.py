"""``@task.ai_call``: a function returns the request, and the task asks it.

The function runs in the main thread before the deadline begins; it may read the record from wherever it lies, so that
nothing about a person has to pass through Airflow. Its arguments are hidden as inputs are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.providers.common.compat.sdk import (
    Context,
    DecoratedOperator,
    TaskDecorator,
    context_merge,
    determine_kwargs,
    task_decorator_factory,
)

from airflow_provider_ai.core.config import require
from airflow_provider_ai.exceptions import SpecError
from airflow_provider_ai.operators.call_operator import CallOperator, check_call_arguments
from airflow_provider_ai.operators.hidden import Arguments
from airflow_provider_ai.operators.sync_call import is_request, without_inputs

if TYPE_CHECKING:
    from airflow_provider_ai.core.answer import Answer


class AICallDecoratedOperator(DecoratedOperator, CallOperator):
    """The operator behind ``@task.ai_call``."""

    template_fields: Sequence[str] = (*DecoratedOperator.template_fields, *CallOperator.template_fields)
    template_fields_renderers: ClassVar[dict[str, str]] = {"op_args": "json", "op_kwargs": "json"}
    custom_operator_name = "@task.ai_call"

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.op_args: Any = Arguments(list(self.op_args))
        self.op_kwargs: Any = Arguments(dict(self.op_kwargs))
        require(not self.is_async, "the function of @task.ai_call must not be async", self.task_id)

    def execute(self, context: Context) -> Any:
        """The answer as plain JSON."""
        return CallOperator.execute(self, context)

    def answer(self, context: Context) -> Answer:
        """Call the function, and ask what it returned."""
        request = self._request(context)
        return self.call(without_inputs(request), request.inputs, context)

    def _request(self, context: Context) -> Any:
        given = context.copy()
        context_merge(given, self.op_kwargs.value)
        args = self.op_args.value
        request = self.python_callable(*args, **determine_kwargs(self.python_callable, args, given))
        what = f"{self.python_callable.__name__} must return a request such as OpenInferenceRequest(inputs=…)"
        require(is_request(request), what, type(request).__name__)
        if request.inputs is None:
            raise SpecError(f"{what}, got a {type(request).__name__} without inputs")
        return request


def ai_call_task(
    python_callable: Callable[..., Any] | None = None, multiple_outputs: bool | None = None, **kwargs: Any
) -> TaskDecorator:
    """Make a function that returns a request (with ``inputs``) a task that asks it and returns the answer.

    :param kwargs: arguments of :class:`airflow_provider_ai.operators.sync_call.AISyncCallOperator`, ``request`` and
        ``inputs`` excepted
    """
    check_call_arguments(kwargs)
    return task_decorator_factory(
        python_callable=python_callable,
        multiple_outputs=multiple_outputs,
        decorated_operator_class=AICallDecoratedOperator,
        **kwargs,
    )
