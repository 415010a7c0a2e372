"""``airflow-ai dispatcher``: a spec in, work until SIGTERM, an exit code out. Logs go to stderr."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from airflow_provider_ai.cli.audit_spec import audited
from airflow_provider_ai.cli.endings import attempt
from airflow_provider_ai.cli.progress import logging_to
from airflow_provider_ai.cli.stopping import stopped_by_signals
from airflow_provider_ai.cli.worker import ENDINGS, with_health_port
from airflow_provider_ai.core.report import StopToken


def run(arguments: argparse.Namespace, runtime: Any) -> int:
    """``dispatcher``; the exit code. ``runtime``: carries it out, as ``run_dispatcher`` does; None for the real one."""

    def work() -> object:
        from airflow_provider_ai.cli.job_spec import load_job_spec

        spec = load_job_spec(arguments.spec, need_secrets=False)
        from airflow_provider_ai.runtime.dispatcher import DispatcherJob, run_dispatcher

        job = DispatcherJob(
            transport=spec.transport,
            store=spec.store,
            dispatcher=with_health_port(spec.dispatcher, arguments.health_port),
            claim_check=spec.claim_check,
            storage=spec.storage,
            keys=spec.keys,
            **audited(spec.audit, "dispatcher"),
        )
        return (run_dispatcher if runtime is None else runtime)(job, stop=stop)

    stop = StopToken()
    with stopped_by_signals(stop), logging_to(sys.stderr, arguments.log_level):
        _, code = attempt(work, ENDINGS, debug=arguments.log_level == "debug")
    return code
