"""``airflow-ai queues create``: the planned queues made, or printed as a template."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from airflow_provider_ai.adapters.queues.provisioning import create_queues
from airflow_provider_ai.cli.endings import COMPLETE, Endings, attempt
from airflow_provider_ai.cli.job_spec import load_job_spec
from airflow_provider_ai.cli.progress import logging_to
from airflow_provider_ai.core import queue_templates
from airflow_provider_ai.core.queue_plan import QueueState, plan_queues
from airflow_provider_ai.exceptions import SpecError

if TYPE_CHECKING:
    from airflow_provider_ai.cli.job_spec import JobSpec
    from airflow_provider_ai.core.queue_plan import QueuePlan

DIFFERS = 3
_ENDINGS = Endings(
    advice=((SpecError, "correct it, then run again; nothing was made"),),
    otherwise="then run again: queues that were made are there already",
)


def create(arguments: argparse.Namespace) -> int:
    """``queues create``; the exit code."""

    def work() -> str | Sequence[QueueState]:
        spec = load_job_spec(arguments.spec, need_secrets=False)
        plans = _plans(spec)
        if arguments.template is not None:
            template: str = getattr(queue_templates, arguments.template)(plans, spec.transport)
            return template
        return create_queues(plans, spec.transport)

    with logging_to(sys.stderr, arguments.log_level):
        made, code = attempt(work, _ENDINGS, debug=arguments.log_level == "debug")
    if made is None:
        return code
    if isinstance(made, str):
        sys.stdout.write(made)
        return COMPLETE
    print(json.dumps({"queues": [asdict(state) for state in made]}), flush=True)
    return _end(made)


def _plans(spec: JobSpec) -> Sequence[QueuePlan]:
    try:
        return plan_queues(
            spec.transport,
            visibility_seconds=spec.worker.visibility_timeout_seconds,
            reply_visibility_seconds=spec.dispatcher.visibility_timeout_seconds,
            max_attempts=spec.worker.max_attempts,
        )
    except SpecError as error:
        raise SpecError(f"[transport] {error}") from None


def _end(states: Sequence[QueueState]) -> int:
    different = [state for state in states if state.differences]
    for state in different:
        for name, (found, wanted) in state.differences.items():
            print(f"{state.name}: {name} is {found}, and should be {wanted}", file=sys.stderr)
    if different:
        print("change them where these queues are managed, or let the spec say what they are", file=sys.stderr)
    return DIFFERS if different else COMPLETE
