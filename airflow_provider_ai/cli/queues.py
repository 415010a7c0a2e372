"""``airflow-ai queues create``: the planned queues made, or printed as a template."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from airflow_provider_ai.adapters.queues.provisioning import create_queues
from airflow_provider_ai.cli.connections import transport_of
from airflow_provider_ai.cli.endings import COMPLETE, Endings, attempt
from airflow_provider_ai.cli.job_spec import load_job_spec
from airflow_provider_ai.cli.progress import logging_to
from airflow_provider_ai.core import queue_templates
from airflow_provider_ai.core.job_settings import DispatcherSettings, WorkerSettings
from airflow_provider_ai.core.queue_plan import QueueState, plan_queues
from airflow_provider_ai.core.transport_settings import TransportSettings
from airflow_provider_ai.exceptions import SpecError

if TYPE_CHECKING:
    from airflow_provider_ai.core.queue_plan import QueuePlan

DIFFERS = 3
_ENDINGS = Endings(
    advice=((SpecError, "correct it, then run again; nothing was made"),),
    otherwise="then run again: queues that were made are there already",
)


def create(arguments: argparse.Namespace) -> int:
    """``queues create``; the exit code."""

    def work() -> str | Sequence[QueueState]:
        transport, worker, dispatcher = _deployment(arguments)
        plans = _plans(transport, worker, dispatcher)
        if arguments.template is not None:
            template: str = getattr(queue_templates, arguments.template)(plans, transport)
            return template
        return create_queues(plans, transport)

    with logging_to(sys.stderr, arguments.log_level):
        made, code = attempt(work, _ENDINGS, debug=arguments.log_level == "debug")
    if made is None:
        return code
    if isinstance(made, str):
        sys.stdout.write(made)
        return COMPLETE
    print(json.dumps({"queues": [asdict(state) for state in made]}), flush=True)
    return _end(made)


def _deployment(arguments: argparse.Namespace) -> tuple[TransportSettings, WorkerSettings, DispatcherSettings]:
    """Of a spec, or of an Airflow connection, which says nothing of workers and dispatchers: those are the defaults."""
    if arguments.conn is not None:
        return transport_of(arguments.conn), WorkerSettings(), DispatcherSettings()
    spec = load_job_spec(arguments.spec, need_secrets=False)
    return spec.transport, spec.worker, spec.dispatcher


def _plans(transport: TransportSettings, worker: WorkerSettings, dispatcher: DispatcherSettings) -> Sequence[QueuePlan]:
    try:
        return plan_queues(
            transport,
            visibility_seconds=worker.visibility_timeout_seconds,
            reply_visibility_seconds=dispatcher.visibility_timeout_seconds,
            max_attempts=worker.max_attempts,
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
