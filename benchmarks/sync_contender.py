"""One operator executed once, in a process of its own, as a task would execute it: what `sync_comparison` starts.

    python -m benchmarks.sync_contender CONTENDER_JSON

Airflow's execution timeout is applied with Airflow's own class, in the main thread. A line `BEGUN` on stdout says that
the operator is being executed, and a line of JSON what the caller got, and when. Connections come from the environment,
as they may in production. Memory is limited, for there are servers whose answer has no end.
"""

from __future__ import annotations

import json
import logging
import resource
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any

PROMPT = "visit id=7: short of breath"
RECORD = {"id": 7, "age": 63}
FLOOR = {"priority": "routine"}
SPARE = "spare"  # the name of the model behind the fallback connection
LONGEST = 1000
MEMORY_BYTES = 4 * 1024**3
BEGUN = "BEGUN"

Execute = Callable[[], dict[str, Any]]
"""Executes, and says what the caller got."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Contender:
    """What to execute, and how.

    Args:
        operator: `http`, `llm` or `ours`.
        deadline_seconds: what its user wants.
        timeout: the model setting of LLMOperator: `timeout` or `request_timeout`.
        execution_timeout: whether Airflow is to stop it at the deadline.
    """

    operator: str
    deadline_seconds: float
    timeout: str = ""
    execution_timeout: bool = False

    def line(self) -> str:
        """As JSON, for the process that executes it."""
        return json.dumps(asdict(self))


def main() -> None:
    """Execute the contender on the command line."""
    contender = Contender(**json.loads(sys.argv[1]))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    execute = _OPERATORS[contender.operator](contender)
    limit = _airflow_timeout(contender)
    print(BEGUN, flush=True)
    began = time.monotonic()
    try:
        with limit:
            got = execute()
    except BaseException as error:  # noqa: BLE001 - AirflowTaskTimeout is none of the ordinary ones
        got = {"error": type(error).__name__}
    took = time.monotonic() - began
    logging.disable()
    print(json.dumps(got | {"seconds": took, "done": time.monotonic()}), flush=True)


def _airflow_timeout(contender: Contender) -> Any:
    from airflow.sdk.execution_time.timeout import timeout

    return timeout(contender.deadline_seconds) if contender.execution_timeout else nullcontext()


def _http(contender: Contender) -> Execute:
    from airflow.providers.http.operators.http import HttpOperator

    operator = HttpOperator(
        task_id="call",
        http_conn_id="model",
        endpoint="predict",
        data=json.dumps({"model": "m", "inputs": [RECORD]}),
        headers={"Content-Type": "application/json"},
        extra_options={"timeout": contender.deadline_seconds},
    )

    def execute() -> dict[str, Any]:
        return _judged(operator.execute({}))

    return execute


def _llm(contender: Contender) -> Execute:
    from airflow.providers.common.ai.operators.llm import LLMOperator

    operator = LLMOperator(
        task_id="call",
        prompt=PROMPT,
        llm_conn_id="model",
        fallback_conn_ids=["spare_model"],
        model_settings={contender.timeout: contender.deadline_seconds},
    )

    pushed = _Pushed()

    def execute() -> dict[str, Any]:
        got = _judged(str(operator.execute({"task_instance": pushed, "ti": pushed})))
        return {"fallback": "spare model"} if SPARE in pushed.values else got

    return execute


def _ours(contender: Contender) -> Execute:
    from airflow_provider_ai.core.fallback import Static
    from airflow_provider_ai.core.requests import JsonRequest
    from airflow_provider_ai.operators.sync_call import AISyncCallOperator

    operator = AISyncCallOperator(
        task_id="call",
        endpoint_conn_id="model",
        request=JsonRequest(inputs=RECORD),
        deadline=timedelta(seconds=contender.deadline_seconds),
        fallback=[Static(FLOOR)],
    )

    def execute() -> dict[str, Any]:
        answer = operator.execute({})
        if answer["degraded"]:
            assert answer["output"] == FLOOR
            return {"fallback": answer["reason"]}
        return _judged(json.dumps(answer["output"]))

    return execute


class _Pushed:
    """A task instance as far as LLMOperator needs one: it pushes the name of the model that answered."""

    def __init__(self) -> None:
        self.values: list[Any] = []

    def xcom_push(self, key: str, value: Any) -> None:
        self.values.append(value)


def _judged(text: str) -> dict[str, Any]:
    """Whether it is the model's answer, or something else that was taken for one."""
    return {"answer": '"label"' in text and len(text) < LONGEST, "bytes": len(text)}


_OPERATORS = {"http": _http, "llm": _llm, "ours": _ours}

if __name__ == "__main__":
    main()
