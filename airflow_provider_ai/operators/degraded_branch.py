"""A branch on whether an answer is degraded, so that nobody takes a fallback for the model's own word."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import BaseBranchOperator, Context, XComArg

from airflow_provider_ai.core import call_reasons
from airflow_provider_ai.core.config import require
from airflow_provider_ai.core.requests import reasons as request_reasons
from airflow_provider_ai.exceptions import SpecError
from airflow_provider_ai.operators.errors import airflow_error
from airflow_provider_ai.operators.hidden import Hidden

if TYPE_CHECKING:
    import jinja2

REASONS = frozenset(
    word
    for module in (call_reasons, request_reasons)
    for name, word in vars(module).items()
    if name.isupper() and isinstance(word, str)
)
_SHOWN = ("degraded", "reason", "source")


class GivenAnswer(Hidden):
    """The answer, or answers, that the branch looks at; an output is not shown a second time."""

    def described(self) -> Any:
        """What the answer says about itself, or where it comes from."""
        if isinstance(self.value, XComArg):
            return f"from {', '.join(operator.task_id for operator, _ in self.iter_references())}"
        if isinstance(self.value, str):
            return f"from {self.value}"
        shown = [{name: answer.get(name) for name in _SHOWN} for answer in self._answers()]
        return shown[0] if isinstance(self.value, Mapping) and shown else shown

    def is_degraded(self, reasons: frozenset[str] | None) -> bool:
        """Whether the answer, or one of several, is degraded, and for one of ``reasons``; SpecError if it is none."""
        answers = self._answers()
        if not answers or not all(isinstance(answer.get("degraded"), bool) for answer in answers):
            raise SpecError(
                "answer must be what AISyncCallOperator or @task.ai_call returned, got something else: "
                "check that the task ran and that its return value is in XCom"
            )
        return any(answer["degraded"] and (reasons is None or answer.get("reason") in reasons) for answer in answers)

    def _answers(self) -> list[Mapping[str, Any]]:
        value = self.value
        several = isinstance(value, Sequence) and not isinstance(value, str | bytes)
        return [answer if isinstance(answer, Mapping) else {} for answer in (value if several else [value])]


class AIDegradedBranchOperator(BaseBranchOperator):
    """Follows one path for degraded answers and another for good ones.

    :param answer: output of the call, or its task id; of a mapped call: one degraded answer makes all of them degraded
    :param follow_task_ids_if_degraded: task, or tasks, for a degraded answer, such as a review by a person
    :param follow_task_ids_if_good: task, or tasks, for the endpoint's own answer
    :param reasons: reasons that count as degraded (:mod:`airflow_provider_ai.core.call_reasons`); ``None`` for all
    """

    template_fields: Sequence[str] = ("answer",)
    ui_color = "#e3dcfa"

    def __init__(
        self,
        *,
        answer: XComArg | str,
        follow_task_ids_if_degraded: str | Iterable[str],
        follow_task_ids_if_good: str | Iterable[str],
        reasons: Iterable[str] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        is_reference = isinstance(answer, XComArg) or (isinstance(answer, str) and bool(answer))
        require(is_reference, "answer must be the output of a call, or its task id", type(answer).__name__)
        self.answer = GivenAnswer(answer)
        self.follow_task_ids_if_degraded = _ids("follow_task_ids_if_degraded", follow_task_ids_if_degraded)
        self.follow_task_ids_if_good = _ids("follow_task_ids_if_good", follow_task_ids_if_good)
        self.reasons = None if reasons is None else frozenset([reasons] if isinstance(reasons, str) else reasons)
        unknown = sorted((self.reasons or frozenset()) - REASONS)
        require(not unknown, f"reasons must be among {', '.join(sorted(REASONS))}", unknown)

    def render_template(
        self,
        content: Any,
        context: Context,
        jinja_env: jinja2.Environment | None = None,
        seen_oids: set[int] | None = None,
    ) -> Any:
        """Fetches the answer."""
        render = super().render_template
        if not isinstance(content, GivenAnswer):
            return render(content, context, jinja_env, seen_oids)
        if isinstance(content.value, str):
            return GivenAnswer(context["ti"].xcom_pull(task_ids=content.value))
        return content.rendered(lambda value: render(value, context, jinja_env))

    def choose_branch(self, context: Context) -> list[str]:
        """The tasks to follow."""
        try:
            degraded = self.answer.is_degraded(self.reasons)
        except SpecError as error:
            failure = airflow_error(error)
        else:
            return self.follow_task_ids_if_degraded if degraded else self.follow_task_ids_if_good
        raise failure


def _ids(name: str, value: str | Iterable[str]) -> list[str]:
    ids = [value] if isinstance(value, str) else list(value)
    require(bool(ids) and all(isinstance(task, str) and task for task in ids), f"{name} must name tasks", value)
    return ids
