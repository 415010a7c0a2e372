"""The code in docs/sync-call.md, run as it stands there."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

from airflow.sdk import DAG, task

from airflow_provider_ai.core.call_settings import CallSettings
from airflow_provider_ai.core.config import EndpointSettings
from airflow_provider_ai.core.fallback import cutoffs, reserves
from airflow_provider_ai.core.requests import JsonRequest
from airflow_provider_ai.operators import sync_call
from tests.support.processes import REPOSITORY

GUIDE = (REPOSITORY / "docs" / "sync-call.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", GUIDE, flags=re.DOTALL)


def test_the_examples_of_a_dag_are_one() -> None:
    """A call, a branch on its answer, and a decorated function."""
    call, branch, decorated, _ = BLOCKS
    names: dict[str, Any] = {name: getattr(sync_call, name) for name in sync_call.__all__}
    names |= {"timedelta": timedelta, "task": task}
    with DAG("guide", schedule=None, params={"age": 1, "pulse": 2, "reference": "r"}) as dag:
        exec(f"call = {call}", names)
        exec(branch, names)
        exec(decorated, names)
    assert dag.get_task("is_degraded").upstream_task_ids == {"triage"}
    assert set(dag.task_ids) == {"triage", "is_degraded", "triage__1"}


def test_the_example_of_a_web_service_needs_only_a_server() -> None:
    """Every argument is one that exists."""
    made: list[dict[str, Any]] = []

    class Caller:
        def __init__(self, **arguments: Any) -> None:
            made.append(arguments)

        def call(self, inputs: Any) -> Any:
            return inputs

    names = {"SyncCaller": Caller, "EndpointSettings": EndpointSettings, "JsonRequest": JsonRequest}
    names |= {"CallSettings": CallSettings, "LastGood": sync_call.LastGood, "Static": sync_call.Static}  # type: ignore[dict-item]
    exec(BLOCKS[-1], {**names, "timedelta": timedelta})
    assert set(made[0]) == {"endpoint", "request", "fallback", "settings", "store"}


def test_the_deadline_is_split_as_the_guide_says() -> None:
    """Of three seconds."""
    chain = [sync_call.LastGood(max_age=1), sync_call.Endpoint("small_model"), sync_call.Static(None)]
    promises = reserves(chain, deadline_seconds=3.0, store_timeout_seconds=CallSettings().store_seconds)
    ends = cutoffs(3.0, promises)
    assert (round(ends[0], 2), round(promises[0], 2), round(promises[1], 2)) == (1.82, 0.25, 0.9)
    assert "leaves the endpoint 1.82 s, the store 0.25 s and the small model 0.9 s" in GUIDE
