"""``airflow-ai batch run`` and ``airflow-ai batch status``: a spec file in, one JSON line and an exit code out.

The runtime does the work; it is imported only after the spec has been found right. stdout carries results, stderr
everything meant for people. A message never quotes data: what the runtime raises on purpose carries none, and of what
it did not foresee only the class is shown.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any, Protocol

from airflow_provider_ai.cli.audit_spec import audited
from airflow_provider_ai.cli.endings import BAD_SPEC, COMPLETE, Endings, attempt
from airflow_provider_ai.cli.progress import OnProgress, logging_to, shown_on
from airflow_provider_ai.cli.stopping import stopped_by_signals
from airflow_provider_ai.core.report import BatchReport, BatchStatus, StopToken
from airflow_provider_ai.exceptions import (
    CorruptCheckpointError,
    EncryptionError,
    EndpointUnavailableError,
    InputChangedError,
    InputError,
    KeyAccessError,
    KeyUnavailableError,
    QuarantineThresholdError,
    ReconciliationError,
    SinkError,
    SinkUnavailableError,
    SpecError,
)

THRESHOLD = 3
log = logging.getLogger(__name__)

_RESUME = "run the same command again to resume: finished records are not called again"
_ENDINGS = Endings(
    advice=(
        (SpecError, "correct the spec; a plain retry cannot help"),
        (InputChangedError, "restore the input as it was planned, or run with --recompute to plan and call it anew"),
        (InputError, "correct the input, then run again"),
        (CorruptCheckpointError, "do what the message says, then run again"),
        (KeyUnavailableError, f"see that the key service answers, then {_RESUME}"),
        (KeyAccessError, f"do what the message says, then {_RESUME}"),
        (EncryptionError, "do what the message says, then run again"),
        (EndpointUnavailableError, f"see that the endpoint answers, then {_RESUME}"),
        (
            QuarantineThresholdError,
            "`airflow-ai batch status` shows the reasons; once they are gone, run with --retry-failed",
        ),
        (SinkUnavailableError, "see that the warehouse is up, then run again: it publishes without calling the model"),
        (SinkError, "correct the table or the rights on it, then run again: it publishes without calling the model"),
        (ReconciliationError, "run again; if the counts still differ, --recompute starts over"),
    ),
    otherwise=_RESUME,
    codes=((SpecError, BAD_SPEC), (QuarantineThresholdError, THRESHOLD)),
)


class BatchRuntime(Protocol):
    """What this command needs of ``airflow_provider_ai.runtime.batch_inference``."""

    @property
    def BatchJob(self) -> Callable[..., Any]:
        """Makes a job from the parts of a spec."""
        ...

    def run_batch(self, job: Any, *, verb: Any, on_progress: OnProgress, stop: StopToken) -> BatchReport:
        """Carry it out. An AIProviderError has the counts so far in its ``report``."""
        ...

    def batch_status(self, job: Any) -> BatchStatus:
        """See how far it is."""
        ...


def run(arguments: argparse.Namespace, runtime: BatchRuntime | None) -> int:
    """``batch run``; the exit code."""
    level = "warning" if arguments.quiet and arguments.log_level == "info" else arguments.log_level
    stop = StopToken()

    def work() -> BatchReport:
        job, chosen = _job(arguments.spec, runtime, need_api_key=True)
        with shown_on(sys.stderr, quiet=arguments.quiet) as on_progress:
            return chosen.run_batch(job, verb=arguments.verb, on_progress=on_progress, stop=stop)

    with stopped_by_signals(stop), logging_to(sys.stderr, level):
        report, code = attempt(work, _ENDINGS, debug=level == "debug")
    if report is not None and code != BAD_SPEC:
        print(json.dumps({**asdict(report), "seconds": round(report.seconds, 3)}), flush=True)
    return code


def status(arguments: argparse.Namespace, runtime: BatchRuntime | None) -> int:
    """``batch status``; the exit code."""

    def work() -> BatchStatus:
        job, chosen = _job(arguments.spec, runtime, need_api_key=False)
        return chosen.batch_status(job)

    with logging_to(sys.stderr, arguments.log_level):
        found, code = attempt(work, _ENDINGS, debug=arguments.log_level == "debug")
    if found is not None and code == COMPLETE:
        print(json.dumps(_as_json(found)) if arguments.json else "\n".join(_as_text(found)), flush=True)
    return code


def _job(path: str, runtime: BatchRuntime | None, *, need_api_key: bool) -> tuple[Any, BatchRuntime]:
    from airflow_provider_ai.cli.spec import load_batch_spec

    spec = load_batch_spec(path, need_api_key=need_api_key)
    for key in spec.unused:
        log.warning("%r in [endpoint] is not used by protocol %r", key, spec.endpoint.protocol)
    if runtime is None:
        from airflow_provider_ai.runtime import batch_inference

        runtime = batch_inference
    job = runtime.BatchJob(
        input=spec.input,
        endpoint=spec.endpoint,
        request=spec.request,
        limits=spec.limits,
        checkpoint=spec.checkpoint,
        sink=spec.sink,
        storage=spec.storage,
        keys=spec.keys,
        **audited(spec.audit, "submitter"),
    )
    return job, runtime


# --- status


def _as_json(found: BatchStatus) -> dict[str, Any]:
    return {
        "plan": found.plan,
        "input_changed": found.input_changed,
        "records": found.records,
        "would_call": found.would_call,
        "warehouse": found.warehouse,
        "partitions": [{**asdict(part), "pending": part.pending} for part in found.partitions],
        "quarantine": [asdict(reason) for reason in found.quarantine],
    }


def _as_text(found: BatchStatus) -> Iterator[str]:
    yield f"plan: {found.plan}" + (", but the input has changed since" if found.input_changed else "")
    yield f"records: {found.records:,}; a resume would call {found.would_call:,}"
    if found.warehouse is not None:
        yield f"publications are unknown: {found.warehouse}"
    if found.partitions:
        yield ""
        yield f"{'rows':>12} {'succeeded':>12} {'quarantined':>12} {'pending':>12}  published  partition"
    for part in found.partitions:
        counts = " ".join(f"{count:>12,}" for count in (part.rows, part.succeeded, part.quarantined, part.pending))
        yield f"{counts}  {'yes' if part.published else 'no':<9}  {part.label}"
    if found.quarantine:
        yield ""
        yield f"{'quarantined':>12}  {'status':<6}  reason"
    for reason in found.quarantine:
        yield f"{reason.count:>12,}  {'-' if reason.status is None else reason.status:<6}  {reason.error_class}"
