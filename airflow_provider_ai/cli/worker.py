"""``airflow-ai worker``: a spec in, work until SIGTERM, an exit code out. Logs go to stderr."""

from __future__ import annotations

import argparse
import logging
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from airflow_provider_ai.cli.audit_spec import audited
from airflow_provider_ai.cli.endings import Endings, attempt
from airflow_provider_ai.cli.progress import logging_to
from airflow_provider_ai.cli.user_modules import look_beside
from airflow_provider_ai.exceptions import SpecError, StoreSchemaError

if TYPE_CHECKING:
    from airflow_provider_ai.core.job_settings import DispatcherSettings, WorkerSettings

S = TypeVar("S", bound="WorkerSettings | DispatcherSettings")
ENDINGS = Endings(
    advice=(
        (SpecError, "correct it, then start again; no job was touched"),
        (StoreSchemaError, "then start again; no job was touched"),
    ),
    otherwise="start it again: what was in flight comes again by itself",
)
log = logging.getLogger(__name__)


def run(arguments: argparse.Namespace, runtime: Any) -> int:
    """``worker``; the exit code. ``runtime``: carries it out, as ``run_worker`` does; None for the real one."""

    def work() -> object:
        from airflow_provider_ai.cli.job_spec import load_job_spec

        spec = load_job_spec(arguments.spec)
        for key in spec.unused:
            log.warning("%r in [endpoint] is not used by this protocol", key)
        look_beside(arguments.spec)
        from airflow_provider_ai.runtime.worker import WorkerJob, run_worker

        job = WorkerJob(
            transport=spec.transport,
            store=spec.store,
            worker=with_health_port(spec.worker, arguments.health_port),
            claim_check=spec.claim_check,
            storage=spec.storage,
            keys=spec.keys,
            handler=spec.handler,
            endpoint=spec.endpoint,
            request=spec.request,
            webhook=spec.webhook,
            **audited(spec.audit, "worker"),
        )
        return (run_worker if runtime is None else runtime)(job)

    with logging_to(sys.stderr, arguments.log_level):
        _, code = attempt(work, ENDINGS, debug=arguments.log_level == "debug")
    return code


def with_health_port(settings: S, port: int | None) -> S:
    """Settings of a service, with the port of the command line where there is one."""
    return settings if port is None else replace(settings, health_port=port)
