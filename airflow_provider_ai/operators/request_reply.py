"""The asynchronous pattern in Airflow: submit requests as jobs, wait without a worker slot, land the replies.

Invariants: whatever stops a task, the same run means the same jobs, so a retry, a clear or another scheduler goes on
with them and submits none twice; XCom holds a manifest, never a payload; requests are shown nowhere; a job that nobody
will answer ends the wait with its reason. Waiting in the triggerer and waiting here decide by the same function.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar

from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException, Context, XComArg

from airflow_provider_ai.core.config import InputSettings, is_number, require
from airflow_provider_ai.core.job_waiting import (
    JOBS_CANCELLED,
    JOBS_MISSING,
    UNKNOWN_SUBMISSION,
    OnFailedJobs,
    WaitPolicy,
    WaitState,
    WaitVerdict,
    decide,
    explain,
)
from airflow_provider_ai.core.jobs import JobCounts, submission_key
from airflow_provider_ai.core.manifest import DatasetFormat
from airflow_provider_ai.core.report import StopToken
from airflow_provider_ai.hooks.ai_jobs import DEFAULT_CONN_ID, AIJobsHook, load_replies
from airflow_provider_ai.hooks.audit import task_actor
from airflow_provider_ai.operators.attended import OnProgress, ProgressReporter, attend
from airflow_provider_ai.operators.hidden_fields import HiddenFieldsOperator, explained
from airflow_provider_ai.operators.job_requests import JobRequests, check_requests, is_dataset, listed
from airflow_provider_ai.operators.settings import WarehouseSink
from airflow_provider_ai.triggers.ai_jobs import AIJobsTrigger, verdict_of

if TYPE_CHECKING:
    import jinja2

    from airflow_provider_ai.core.config import SinkSettings
    from airflow_provider_ai.operators.job_work import JobDataset, JobWork
    from airflow_provider_ai.patterns.batch_inference import Provenance
    from airflow_provider_ai.runtime.job_service import JobSettings

__all__ = ["AISubmitAndWaitOperator", "SqsSubmitAndWaitOperator", "WarehouseSink", "land_submission", "load_replies"]

log = logging.getLogger(__name__)

T = TypeVar("T")
Records = Mapping[str, Any] | Sequence[Mapping[str, Any]]
Wait = Literal["poll", "webhook"]
Verb = Literal["resume", "resubmit_failed"]
VERBS: tuple[Verb, ...] = ("resume", "resubmit_failed")

STOP_WAIT_SECONDS = 3.0
"""Airflow's supervisor sends SIGKILL 5 s after SIGTERM; nothing is lost by it."""
REDRIVE = "redrive them (DAG dead_letter_redrive)"
LATE_SECONDS = 360.0
"""How much longer than to the jobs' deadline a task waits: for those that began in time, and for the last words of the
others. A worker's try takes 300 s at most unless it is told otherwise."""


class AISubmitAndWaitOperator(HiddenFieldsOperator):
    """Submits requests as jobs, waits for their replies in the triggerer, and returns a manifest of them.

    :param requests: the inputs of one job (a mapping), a list of them, or a dataset: URI or absolute path of a file,
        folder or glob. Templates keep their types; what comes from other tasks is data and is not rendered
    :param transport_conn_id: connection of type ``ai_jobs`` (templated)
    :param id_column: of a dataset: the column that names a row; unique and never null
    :param columns: of a dataset: the columns to send besides the id; all of them when absent
    :param format: of a dataset; told from the file names when absent
    :param job_deadline: jobs that have not begun so long after the task submitted them do not begin any more
    :param wait: ``poll``: replies come over the result queue; ``webhook``: workers also deliver them to Airflow
    :param on_failed_jobs: ``fail``: none may end without a result; ``quarantine``: ``max_failed_fraction`` of them may
    :param sink: the table to land the replies in
    :param store_conn_id: connection of the store, if not the one that the transport's names (templated)
    :param group: tenant, for fair shares: FIFO message group or fair-queue group (templated)
    :param verb: what a retry or a clear does with jobs that ended without a result: ``resume``: leave them ended,
        ``resubmit_failed``: submit them once more (templated)
    :param generation: another one submits everything anew, the same one never does (templated)
    :param deferrable: wait in the triggerer; else in the worker slot
    :param embed_dispatcher: take replies from the result queue where the wait goes on; False where a dispatcher of your
        own does
    """

    template_fields: Sequence[str] = (
        "transport_conn_id",
        "store_conn_id",
        "requests",
        "group",
        "sink",
        "verb",
        "generation",
    )
    template_fields_renderers: ClassVar[dict[str, str]] = {"sink": "json"}
    ui_color = "#d9efe9"

    def __init__(
        self,
        *,
        requests: Records | XComArg | str,
        transport_conn_id: str = DEFAULT_CONN_ID,
        id_column: str | None = None,
        columns: Sequence[str] | None = None,
        format: DatasetFormat | None = None,
        job_deadline: timedelta | float = timedelta(hours=2),
        wait: Wait = "poll",
        on_failed_jobs: OnFailedJobs = "fail",
        max_failed_fraction: float = 0.01,
        sink: WarehouseSink | None = None,
        store_conn_id: str | None = None,
        group: str | None = None,
        verb: Verb | str = "resume",
        generation: int | str = 0,
        deferrable: bool = True,
        embed_dispatcher: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.requests = JobRequests(requests)
        self.transport_conn_id = transport_conn_id
        self.id_column = id_column
        self.columns = None if columns is None else tuple(columns)
        self.format: DatasetFormat | None = format
        self.job_deadline_seconds = _seconds(job_deadline)
        self.wait = wait
        self.policy = WaitPolicy(on_failed_jobs=on_failed_jobs, max_quarantined_fraction=max_failed_fraction)
        self.sink = sink
        self.store_conn_id = store_conn_id
        self.group = group
        self.verb = verb
        self.generation = generation
        self.deferrable = deferrable
        self.embed_dispatcher = embed_dispatcher
        self._stop: StopToken | None = None
        self._check(requests)

    def _check(self, requests: object) -> None:
        """Refuse at parse time what no rendering can put right."""
        check_requests(requests, self.id_column)
        require(self.wait in ("poll", "webhook"), "wait must be 'poll' or 'webhook'", self.wait)
        sink_ok = self.sink is None or isinstance(self.sink, WarehouseSink)
        require(sink_ok, "sink must be WarehouseSink(…)", self.sink)
        if "{" not in str(self.verb):
            require(self.verb in VERBS, f"verb must be one of {VERBS}", self.verb)

    def render_template(
        self,
        content: Any,
        context: Context,
        jinja_env: jinja2.Environment | None = None,
        seen_oids: set[int] | None = None,
    ) -> Any:
        """Also renders the fields of a sink."""
        render = super().render_template
        if isinstance(content, WarehouseSink):
            return content.rendered(lambda value: render(value, context, jinja_env))
        return render(content, context, jinja_env, seen_oids)

    # --- what Airflow calls

    def execute(self, context: Context) -> Any:
        """Submit what is not submitted yet, then wait: the manifest, when there is nothing to wait for any more."""
        return explained(lambda: self._submit_and_wait(context))

    def execute_complete(self, context: Context, event: dict[str, Any]) -> Any:
        """The wait is over: land the replies, or say why there are none."""
        return explained(lambda: self._end(verdict_of(event), context, self._work(context)))

    def on_kill(self) -> None:
        """Ask the running call to stop. Called in a signal handler of the main thread, so it must not wait."""
        self._stop_token().stop("by Airflow: cleared, marked or evicted")

    # ---

    def _submit_and_wait(self, context: Context) -> dict[str, Any]:
        from airflow_provider_ai.operators.job_work import CANCELLED, WITHOUT_RESULT

        work, requests = self._work(context), self._requests()
        again = WITHOUT_RESULT if self.verb == "resubmit_failed" else CANCELLED
        submitted = self._attended(context, lambda note: work.submit(requests, again, note))
        expected, now = submitted.expected, time.time()
        verdict = decide(submitted.counts, self.policy, now=now, deadline=None, expected=expected)
        if not verdict.over:
            log.info("Waiting for %s jobs of submission %s", f"{verdict.counts.pending:,}", work.key)
            deadline = max(now, submitted.expires_at or 0.0) + LATE_SECONDS
            verdict = self._waited(context, work, deadline, expected)
        return self._end(verdict, context, work)

    def _waited(self, context: Context, work: JobWork, deadline: float, expected: int) -> WaitVerdict:
        """How the wait ended; deferrable, it does not return but goes on in the triggerer."""
        policy, dispatch = self.policy, self.embed_dispatcher
        if not self.deferrable:
            return self._attended(
                context,
                lambda note: work.wait(policy, deadline=deadline, expected=expected, dispatch=dispatch, note=note),
            )
        self.defer(
            trigger=AIJobsTrigger(
                submission=work.key,
                transport_conn_id=self.transport_conn_id,
                store_conn_id=self.store_conn_id,
                on_failed_jobs=policy.on_failed_jobs,
                max_failed_fraction=policy.max_quarantined_fraction,
                deadline=deadline,
                expected=expected,
                embed_dispatcher=dispatch,
            ),
            method_name="execute_complete",
        )

    def _end(self, verdict: WaitVerdict, context: Context, work: JobWork) -> dict[str, Any]:
        """The manifest of jobs that have ended well; an error that says why, and what would help, otherwise."""
        if verdict.state is not WaitState.COMPLETE:
            raise self._failure(verdict, self._attended(context, lambda _: work.reasons()))
        manifest = self._attended(context, lambda _: work.manifest(verdict.counts))
        log.info("%s", explain(verdict))
        return {**manifest, "output": self._output(context, work, verdict.counts)}

    def _output(self, context: Context, work: JobWork, counts: JobCounts) -> dict[str, Any]:
        """Where the replies are: a table, or the store, which :func:`load_replies` reads."""
        if self.sink is None:
            return {"transport_conn_id": self.transport_conn_id, "submission": work.key}
        landed = {"rows": 0, "written": 0}
        if counts.jobs:
            sink, provenance = _sink_settings(self.sink), _provenance(context["ti"].run_id)
            landed = self._attended(context, lambda _: work.land(sink, provenance))
        log.info(
            "%s rows stand in %s, %s written now", f"{landed['rows']:,}", self.sink.table, f"{landed['written']:,}"
        )
        return {**self.sink.serialize(), **landed}

    def _failure(self, verdict: WaitVerdict, reasons: Mapping[str, int]) -> AirflowException:
        words = ", ".join(f"{reason}: {count:,}" for reason, count in reasons.items())
        text = f"{explain(verdict)}{f'. Reasons: {words}' if words else ''}"
        retry_helps = verdict.state is WaitState.TIMED_OUT or self.verb == "resubmit_failed"
        if retry_helps or verdict.reason in (JOBS_CANCELLED, UNKNOWN_SUBMISSION, JOBS_MISSING):
            return AirflowException(text)
        return AirflowFailException(
            f"{text}. In Airflow: redrive them (DAG dead_letter_redrive), then clear this task."
        )

    def _attended(self, context: Context, call: Callable[[OnProgress], T]) -> T:
        """Run ``call`` in a worker thread; the main thread attends to Airflow meanwhile."""
        reporter = ProgressReporter(context.get("task_state_store"))
        return attend(call, stop=self._stop_token(), reporter=reporter, stop_wait_seconds=STOP_WAIT_SECONDS)

    # --- what was asked for

    def _work(self, context: Context) -> JobWork:
        """The submission of this task, the same on every attempt, with its connections resolved. Main thread only."""
        from airflow_provider_ai.operators.job_work import JobWork
        from airflow_provider_ai.patterns.request_reply import Submission

        require(self.verb in VERBS, f"verb must be one of {VERBS}", self.verb)
        ti = context["ti"]
        submission = Submission(
            key=submission_key(ti.dag_id, self.task_id, ti.run_id, ti.map_index, str(self.generation)),
            expires_at=time.time() + self.job_deadline_seconds,
            group=self.group,
            webhook=self.wait == "webhook",
        )
        return JobWork(
            settings=self._settings(), submission=submission, stop=self._stop_token(), actor=task_actor(context)
        )

    def _settings(self) -> JobSettings:
        value = self.requests.value
        dataset = (value,) if is_dataset(value) else ()
        return AIJobsHook(self.transport_conn_id, self.store_conn_id).get_conn(uris=dataset)

    def _requests(self) -> list[Any] | JobDataset:
        from airflow_provider_ai.operators.job_work import JobDataset

        value = self.requests.value
        if not is_dataset(value):
            return listed(value)
        check_requests(value, self.id_column)
        settings = InputSettings(uri=value, id_column=str(self.id_column), columns=self.columns, format=self.format)
        return JobDataset(input=settings, columns=self.columns)

    def _stop_token(self) -> StopToken:
        # Made late: operators are deep-copied, which a lock does not survive.
        if self._stop is None:
            self._stop = StopToken()
        return self._stop


class SqsSubmitAndWaitOperator(AISubmitAndWaitOperator):
    """The same for a connection to SQS, standard or FIFO; it refuses any other."""

    def _settings(self) -> JobSettings:
        settings = super()._settings()
        kind = settings.transport.kind
        require(kind in ("sqs", "sqs-fifo"), f"the queues of {self.transport_conn_id!r} must be of kind sqs", kind)
        return settings


def land_submission(
    submission: str,
    sink: WarehouseSink,
    *,
    transport_conn_id: str = DEFAULT_CONN_ID,
    store_conn_id: str | None = None,
    run_id: str = "",
) -> dict[str, int]:
    """Bring a table to the replies of a submission that somebody else made: ``{"rows", "written"}``.

    For the tasks of a DAG that was told that they have arrived. Jobs that were redriven since are pending again: then
    nothing is landed, for the DAG is told once more when they have ended.

    :param run_id: ``_run_id`` of the rows
    """
    from airflow_provider_ai.operators.job_work import JobWork
    from airflow_provider_ai.patterns.request_reply import Submission

    def landed() -> dict[str, int]:
        settings = AIJobsHook(transport_conn_id, store_conn_id).get_conn()
        work = JobWork(settings=settings, submission=Submission(key=submission), stop=StopToken())
        if pending := work.counts().pending:
            log.info("%s jobs of submission %s are pending again; it is landed later", f"{pending:,}", submission)
            return {"rows": 0, "written": 0}
        return work.land(_sink_settings(sink), _provenance(run_id))

    done: dict[str, int] = explained(landed)
    return done


def _sink_settings(sink: WarehouseSink) -> SinkSettings:
    # SQLAlchemy is not needed to parse a DAG.
    from airflow_provider_ai.hooks.warehouse import sink_settings

    return sink_settings(sink.conn_id, sink.table, sink.schema)


def _provenance(run_id: str) -> Provenance:
    from airflow_provider_ai.patterns.batch_inference import Provenance

    return Provenance(run_id=run_id, model="", prompt_hash="", schema_version="")


def _seconds(deadline: timedelta | float) -> float:
    seconds = deadline.total_seconds() if isinstance(deadline, timedelta) else deadline
    require(is_number(seconds) and seconds > 0, "job_deadline must be a timedelta or seconds > 0", deadline)
    return float(seconds)
