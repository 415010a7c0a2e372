"""The code in docs/request-reply.md, as it stands there, and what the guide says of it."""

from __future__ import annotations

import inspect
import re
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

from airflow.sdk import DAG

from airflow_provider_ai.core.jobs import JobState
from airflow_provider_ai.operators import request_reply
from airflow_provider_ai.triggers.ai_endpoint import SETTLE_SECONDS
from tests.support.processes import REPOSITORY

GUIDE = (REPOSITORY / "docs" / "request-reply.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", GUIDE, flags=re.DOTALL)


def test_the_operator_is_one() -> None:
    """Every argument exists, and the DAG can be stored."""
    from airflow.serialization.serialized_objects import DagSerialization

    names: dict[str, Any] = {name: getattr(request_reply, name) for name in request_reply.__all__}
    with DAG("guide", schedule=None) as dag:
        exec(BLOCKS[0], {**names, "timedelta": timedelta})
    assert dag.task_ids == ["summarise"]
    assert DagSerialization.to_dict(dag)


def test_the_operator_of_the_readme_is_one() -> None:
    """As it stands there, imports included."""
    blocks = re.findall(r"```python\n(.*?)```", (REPOSITORY / "README.md").read_text(), flags=re.DOTALL)
    [code] = [block for block in blocks if "AISubmitAndWaitOperator" in block]
    with DAG("readme", schedule=None) as dag:
        exec(code, {"timedelta": timedelta})
    assert dag.task_ids == ["summarise"]


def test_replies_are_read_as_the_guide_reads_them() -> None:
    """Outputs of those that succeeded, reasons of the others."""
    used: list[Any] = []
    replies = [
        SimpleNamespace(position=0, state=JobState.SUCCEEDED, output={"a": 1}),
        SimpleNamespace(position=1, state=JobState.FAILED, reason="rejected"),
    ]
    names = {"load_replies": lambda _manifest, transport_conn_id: replies, "manifest": {}}
    exec(BLOCKS[1], {**names, "use": lambda *values: used.append(values)})
    assert used == [(0, {"a": 1}), (1, "rejected")]


def test_the_watcher_is_one() -> None:
    """Of an asset that a DAG can be scheduled on."""
    from airflow.sdk import Asset, AssetWatcher

    from airflow_provider_ai.triggers.job_replies import JobRepliesTrigger

    names = {"Asset": Asset, "AssetWatcher": AssetWatcher, "JobRepliesTrigger": JobRepliesTrigger}
    exec(BLOCKS[2], names)
    assert names["replies"].watchers[0].trigger  # type: ignore[attr-defined]


def test_every_argument_is_in_the_table() -> None:
    """And none that there is not."""
    table = GUIDE.partition("## Arguments")[2].partition("\n\n**Requests**")[0]
    told = set(
        re.findall(r"`(\w+)`", "".join(line.split("|")[1] for line in table.splitlines() if line.startswith("| `")))
    )
    given = inspect.signature(request_reply.AISubmitAndWaitOperator.__init__).parameters
    assert told | {"max_failed_fraction"} == set(given) - {"self", "kwargs"}


def test_the_numbers_of_the_guide() -> None:
    """Six minutes, ten seconds."""
    assert request_reply.LATE_SECONDS == 360
    assert SETTLE_SECONDS == 10
