"""The branch on degraded answers."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from airflow.sdk import DAG, task
from airflow.sdk.exceptions import AirflowFailException

from airflow_provider_ai.exceptions import SpecError
from airflow_provider_ai.operators.degraded_branch import REASONS, AIDegradedBranchOperator

CANARY = "PHI-0b1e77"
PATHS = {"follow_task_ids_if_degraded": "review", "follow_task_ids_if_good": "use"}


def answer_of(degraded: bool, reason: str | None = None) -> dict[str, Any]:
    return {"output": CANARY, "degraded": degraded, "reason": reason, "source": "static" if degraded else "primary"}


@pytest.mark.parametrize("by_task_id", [False, True])
@pytest.mark.parametrize(
    ("answer", "reasons", "taken"),
    [
        (answer_of(False), None, "use"),
        (answer_of(True, "timeout"), None, "review"),
        (answer_of(True, "timeout"), ["timeout", "connect"], "review"),
        (answer_of(True, "timeout"), ["connect"], "use"),
        ([answer_of(False), answer_of(True, "timeout")], None, "review"),
        ([answer_of(False), answer_of(False)], None, "use"),
    ],
)
def test_the_answer_decides_the_path(
    answer: Any, reasons: list[str] | None, taken: str, by_task_id: bool, run_dag: Callable[..., Any]
) -> None:
    """One path runs, the other is skipped."""
    with DAG("branching", schedule=None) as dag:

        @task
        def call() -> Any:
            return answer

        @task
        def use() -> None:
            pass

        @task
        def review() -> None:
            pass

        asked = call()
        branch = AIDegradedBranchOperator(
            task_id="is_degraded", answer="call" if by_task_id else asked, reasons=reasons, **PATHS
        )
        asked >> branch >> [use(), review()]
    states = {ti.task_id: ti.state for ti in run_dag(dag).get_task_instances()}
    assert states["is_degraded"] == "success"
    other = {"use": "review", "review": "use"}[taken]
    assert (states[taken], states[other]) == ("success", "skipped")


def test_the_answer_is_upstream() -> None:
    """Without an arrow of its own."""
    with DAG("branch_upstream", schedule=None):

        @task
        def call() -> Any:
            return None

        branch = AIDegradedBranchOperator(task_id="is_degraded", answer=call(), **PATHS)
    assert branch.upstream_task_ids == {"call"}


def chosen(value: Any, **settings: Any) -> Any:
    from airflow_provider_ai.operators.degraded_branch import GivenAnswer

    branch = AIDegradedBranchOperator(task_id="is_degraded", answer="call", **{**PATHS, **settings})
    branch.answer = GivenAnswer(value)
    return branch.choose_branch({})  # type: ignore[typeddict-item]


@pytest.mark.parametrize("value", [None, {}, [], "text", {"degraded": "no"}, [{"degraded": False}, None], 7])
def test_what_is_no_answer_fails_for_good(value: Any) -> None:
    """Rather than taking one of the paths."""
    with pytest.raises(AirflowFailException, match="answer must be what AISyncCallOperator"):
        chosen(value)


def test_rendered_fields_show_what_the_answer_says_about_itself() -> None:
    """The output stays in XCom."""
    from airflow.sdk.execution_time.task_runner import _serialize_rendered_fields

    from airflow_provider_ai.operators.degraded_branch import GivenAnswer

    branch = AIDegradedBranchOperator(task_id="is_degraded", answer="call", **PATHS)
    assert _serialize_rendered_fields(branch) == {"answer": "from call"}
    branch.answer = GivenAnswer(answer_of(True, "timeout"))
    shown = _serialize_rendered_fields(branch)
    assert shown == {"answer": {"degraded": True, "reason": "timeout", "source": "static"}}
    assert CANARY not in json.dumps(shown)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"answer": None}, "answer must be the output of a call"),
        ({"answer": {"degraded": True}}, "answer must be the output of a call"),
        ({"follow_task_ids_if_good": []}, "follow_task_ids_if_good must name tasks"),
        ({"follow_task_ids_if_degraded": ""}, "follow_task_ids_if_degraded must name tasks"),
        ({"reasons": ["time out"]}, "reasons must be among"),  # it would never match, and the answer would pass as good
    ],
)
def test_mistakes_are_refused_when_the_dag_is_parsed(settings: dict[str, Any], words: str) -> None:
    """A branch that takes the wrong path is worse than a DAG that does not import."""
    with pytest.raises(SpecError, match=words):
        AIDegradedBranchOperator(**{"task_id": "is_degraded", "answer": "call", **PATHS, **settings})


def test_reasons_are_the_words_of_an_answer() -> None:
    """Those for a call and those for a request."""
    assert {"timeout", "connect", "breaker_open", "schema_mismatch", "not_records"} <= REASONS
