"""``airflow-ai jobs``: requests in, jobs, replies out, and one JSON line of counts at the end.

stdout carries results, stderr everything meant for people. A message never quotes a request or a reply.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_provider_ai.cli.audit_spec import audited
from airflow_provider_ai.cli.endings import BAD_SPEC, COMPLETE, FAILED, Endings, attempt
from airflow_provider_ai.cli.progress import logging_to, shown_on
from airflow_provider_ai.cli.stopping import stopped_by_signals
from airflow_provider_ai.core.job_waiting import (
    UNKNOWN_SUBMISSION,
    WaitPolicy,
    WaitState,
    WaitVerdict,
    explain,
    without_result,
)
from airflow_provider_ai.core.jobs import JobCounts, submission_key
from airflow_provider_ai.core.report import Progress, StopToken
from airflow_provider_ai.exceptions import (
    EmptyDatasetError,
    InputError,
    JobMismatchError,
    SpecError,
    StoreSchemaError,
)

if TYPE_CHECKING:
    from airflow_provider_ai.cli.job_spec import JobSpec
    from airflow_provider_ai.runtime.request_reply import JobClient

THRESHOLD = 3
_AGAIN = "run the same command again: it goes on with the same jobs"
_ENDINGS = Endings(
    advice=(
        (SpecError, "correct it, then run again"),
        (
            JobMismatchError,
            "under one KEY the requests stay as they are: submit changed ones under another KEY, or restore them",
        ),
        (InputError, "correct the input, then run again"),
        (StoreSchemaError, "then run again"),
    ),
    otherwise=_AGAIN,
    codes=((SpecError, BAD_SPEC), (InputError, BAD_SPEC), (JobMismatchError, BAD_SPEC)),
)
_SOON_SECONDS = 1.0
log = logging.getLogger(__name__)


def submit(arguments: argparse.Namespace, runtime: Any) -> int:
    """``jobs submit``; the exit code. ``runtime``: opens a client, as ``open_job_client`` does; None for that one."""

    def work(stop: StopToken) -> JobCounts:
        from airflow_provider_ai.adapters.json_lines import json_lines
        from airflow_provider_ai.patterns.request_reply import Submission

        spec = _load(arguments.spec)
        with json_lines(arguments.input) as requests:
            total = sum(1 for _ in requests)
            if not total:
                raise EmptyDatasetError(f"{requests.name}: there is no request in it")
            key = _key(arguments)
            expires_at = None if arguments.deadline is None else time.time() + arguments.deadline
            submission = Submission(key=key, expires_at=expires_at, group=arguments.group)
            with _client(spec, runtime) as client, shown_on(sys.stderr, quiet=arguments.quiet) as show:
                told = _Told(total, show, ids=not arguments.quiet)
                done = client.submit(submission, requests, on_submitted=told, stop=stop)
                log.info("submission %s: %d jobs, %d messages sent", key, done.jobs, done.sent)
                return client.counts(key)

    counts, code = _carried_out(work, arguments)
    if counts is not None:
        _print_counts(counts)
    return code


def wait(arguments: argparse.Namespace, runtime: Any) -> int:
    """``jobs wait``; the exit code."""

    def work(stop: StopToken) -> WaitVerdict:
        spec, key = _load(arguments.spec), _key(arguments)
        output = None if arguments.output is None else _writable(Path(arguments.output))
        fraction = arguments.max_failed_fraction
        policy = WaitPolicy(on_failed_jobs="quarantine", max_quarantined_fraction=fraction, fail_fast=False)
        deadline = time.time() + arguments.timeout
        with (
            _client(spec, runtime) as client,
            _dispatcher(spec, arguments),
            shown_on(sys.stderr, quiet=arguments.quiet) as show,
        ):
            verdict = client.wait(key, policy, deadline=deadline, on_look=_shown(show), stop=stop)
            if output is not None and verdict.counts.jobs and not verdict.counts.pending:
                _write(output, client, key)
        return verdict

    verdict, code = _carried_out(work, arguments)
    return code if verdict is None else _end(verdict)


def status(arguments: argparse.Namespace, runtime: Any) -> int:
    """``jobs status``; the exit code."""

    def work(stop: StopToken) -> tuple[JobCounts, dict[str, int]]:
        with _client(_load(arguments.spec), runtime) as client:
            key = _key(arguments)
            return client.counts(key), client.reasons(key) if arguments.reasons else {}

    found, code = _carried_out(work, arguments)
    if found is None:
        return code
    counts, reasons = found
    for reason, jobs in reasons.items():
        print(json.dumps({"reason": reason, "jobs": jobs}))
    return _known(counts)


def cancel(arguments: argparse.Namespace, runtime: Any) -> int:
    """``jobs cancel``; the exit code."""

    def work(stop: StopToken) -> JobCounts:
        with _client(_load(arguments.spec), runtime) as client:
            key = _key(arguments)
            log.info("%d jobs cancelled", client.cancel(key))
            return client.counts(key)

    counts, code = _carried_out(work, arguments)
    return code if counts is None else _known(counts)


# --- what the commands share


def _carried_out(work: Callable[[StopToken], Any], arguments: argparse.Namespace) -> tuple[Any, int]:
    stop = StopToken()
    quiet = getattr(arguments, "quiet", False)
    level = "warning" if quiet and arguments.log_level == "info" else arguments.log_level
    with stopped_by_signals(stop), logging_to(sys.stderr, level):
        return attempt(lambda: work(stop), _ENDINGS, debug=level == "debug")


def _load(path: str) -> JobSpec:
    from airflow_provider_ai.cli.job_spec import load_job_spec

    return load_job_spec(path, need_secrets=False)


def _client(spec: JobSpec, runtime: Any) -> JobClient:
    from airflow_provider_ai.runtime.request_reply import open_job_client

    make = open_job_client if runtime is None else runtime
    client: JobClient = make(
        transport=spec.transport,
        store=spec.store,
        claim_check=spec.claim_check,
        storage=spec.storage,
        keys=spec.keys,
        **audited(spec.audit, "submitter"),
    )
    return client


def _dispatcher(spec: JobSpec, arguments: argparse.Namespace) -> AbstractContextManager[object]:
    """One of our own; it looks often, so that it also ends soon."""
    if arguments.no_dispatcher:
        return nullcontext()
    from dataclasses import replace

    from airflow_provider_ai.runtime.dispatcher import DispatcherJob, dispatching

    settings = replace(spec.dispatcher, poll_seconds=min(_SOON_SECONDS, spec.dispatcher.poll_seconds))
    return dispatching(
        DispatcherJob(
            transport=spec.transport,
            store=spec.store,
            dispatcher=settings,
            claim_check=spec.claim_check,
            storage=spec.storage,
            keys=spec.keys,
            **audited(spec.audit, "dispatcher"),
        )
    )


def _key(arguments: argparse.Namespace) -> str:
    return submission_key("jobs", arguments.key)


class _Told:
    """Prints the ids of jobs that are submitted, and shows how far it is."""

    def __init__(self, total: int, show: Callable[[Progress], None], *, ids: bool) -> None:
        self._total = total
        self._show = show
        self._ids = ids
        self._done = 0

    def __call__(self, ids: Sequence[str]) -> None:
        if self._ids:
            print("\n".join(ids))
        self._done += len(ids)
        self._show(Progress(phase="submit", done=self._done, quarantined=0, total=self._total))


def _shown(show: Callable[[Progress], None]) -> Callable[[JobCounts], None]:
    def look(counts: JobCounts) -> None:
        ended = counts.jobs - counts.pending
        show(Progress(phase="wait", done=ended, quarantined=without_result(counts), total=counts.jobs))

    return look


def _writable(output: Path) -> Path:
    """Found out now, and not after hours of waiting."""
    if output.is_dir() or not output.parent.is_dir():
        raise SpecError(f"--output {output}: must be a file in a folder that is there")
    return output


def _write(output: Path, client: JobClient, key: str) -> None:
    from airflow_provider_ai.adapters.json_lines import write_json_lines

    lines = write_json_lines(output, (reply.to_dict() for reply in client.replies(key)))
    log.info("%s: %d replies", output, lines)


def _end(verdict: WaitVerdict) -> int:
    """Say how a wait ended; the exit code."""
    if verdict.state is not WaitState.COMPLETE:
        print(f"error: {explain(verdict)}", file=sys.stderr, flush=True)
    _print_counts(verdict.counts)
    if verdict.reason == UNKNOWN_SUBMISSION:
        return BAD_SPEC
    return {WaitState.COMPLETE: COMPLETE, WaitState.FAILED: THRESHOLD}.get(verdict.state, FAILED)


def _known(counts: JobCounts) -> int:
    if not counts.jobs:
        print("error: nothing was submitted under this key to this store", file=sys.stderr, flush=True)
    _print_counts(counts)
    return COMPLETE if counts.jobs else BAD_SPEC


def _print_counts(counts: JobCounts) -> None:
    line = {name: getattr(counts, name) for name in ("jobs", "completed", "failed", "expired", "pending")}
    if counts.cancelled:
        line["cancelled"] = counts.cancelled
    print(json.dumps(line), flush=True)
