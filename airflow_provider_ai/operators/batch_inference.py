"""The batch pattern in Airflow: plan → infer (mapped) → publish → reconcile, and the task group that wires them.

Thin on purpose: an operator resolves connections in the main thread, makes one runtime call and maps its errors.
Invariants: XCom carries references and counts only; a mapped task works on the pass its reference names, so retries and
clears resume; whatever stops a task, what was paid for is in the checkpoints before the process ends.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import timedelta
from typing import Any, ClassVar, cast

from airflow.providers.common.compat.sdk import Context, TaskGroup, XComArg

from airflow_provider_ai.core.config import VERBS, Limits, Verb, require
from airflow_provider_ai.core.identity import digest
from airflow_provider_ai.core.ports import Request
from airflow_provider_ai.core.report import BatchReport, PartitionReport, PlanReference, Progress, PublishReport
from airflow_provider_ai.core.requests import (
    JsonRequest,
    OpenAIChatRequest,
    OpenAIEmbeddingsRequest,
    OpenInferenceRequest,
)
from airflow_provider_ai.exceptions import SpecError
from airflow_provider_ai.operators.attended import OnProgress
from airflow_provider_ai.operators.batch_operator import BatchOperator
from airflow_provider_ai.operators.labels import partition_labels
from airflow_provider_ai.operators.settings import (
    RUN_DATE,
    VERB_TEMPLATE,
    WarehouseSink,
    date_param,
    shared_limits,
    verb_param,
)

__all__ = [
    "RUN_DATE",
    "AIBatchInferenceOperator",
    "AIPlanPartitionsOperator",
    "AIPublishOperator",
    "AIReconcileOperator",
    "JsonRequest",
    "Limits",
    "OpenAIChatRequest",
    "OpenAIEmbeddingsRequest",
    "OpenInferenceRequest",
    "WarehouseSink",
    "batch_inference",
    "date_param",
    "verb_param",
]

log = logging.getLogger(__name__)

PLAN_KEY = "plan"  # XCom key of the plan's reference
MAP_INDEX_TEMPLATE = "{{ task.partition['label'] }}"

# A batch without retries loses its resume: these hold unless the DAG, the enclosing group or the caller says otherwise.
RETRY_DEFAULTS: Mapping[str, Any] = {
    "retries": 2,
    "retry_delay": timedelta(seconds=30),
    "retry_exponential_backoff": True,
    "max_retry_delay": timedelta(minutes=10),
}


class AIPlanPartitionsOperator(BatchOperator):
    """Splits the input into partitions, once per run, and returns one small reference per partition to map over.

    Each is ``{"plan": …, "partition": index, "label": text}``. XCom ``plan`` holds the plan's reference alone.

    :param verb: ``resume``, ``retry_failed`` or ``recompute``; which earlier answers count
    """

    template_fields: Sequence[str] = (*BatchOperator.template_fields, "verb")

    def __init__(self, *, verb: str = VERB_TEMPLATE, **kwargs: Any) -> None:
        self.verb = verb
        super().__init__(**kwargs)
        if isinstance(verb, str) and "{" not in verb:
            self._verb()

    def _verb(self) -> Verb:
        require(self.verb in VERBS, f"verb must be one of {VERBS}", self.verb)
        return cast(Verb, self.verb)

    def run_phase(self, context: Context) -> list[dict[str, Any]]:
        """The references to map over."""
        from airflow_provider_ai.runtime.batch_inference import plan_batch
        from airflow_provider_ai.runtime.job import load_manifest, open_plans

        verb, job = self._verb(), self.job(context)
        ti = context["ti"]
        run_key = digest("run", ti.dag_id, ti.run_id, self.task_id)

        def call(note: OnProgress) -> tuple[PlanReference, Sequence[str]]:
            plan = plan_batch(job, verb=verb, run_key=run_key, on_progress=note)
            return plan, partition_labels(load_manifest(open_plans(job), plan))

        # Planning writes nothing until it is complete: there is nothing to flush.
        plan, labels = self.attend(context, call, stop_wait_seconds=0)
        reference = plan.to_dict()
        log.info(
            "%s: %s rows in %s partitions (epoch %s, round %s) under %s",
            *(verb, f"{plan.rows:,}", f"{plan.partitions:,}", plan.epoch, plan.round, plan.directory),
        )
        ti.xcom_push(key=PLAN_KEY, value=reference)
        return [{"plan": reference, "partition": index, "label": label} for index, label in enumerate(labels)]


class AIBatchInferenceOperator(BatchOperator):
    """Calls the model for one partition; use ``.partial(…).expand(partition=plan.output)``.

    With ``max_active_tis_per_dagrun`` set, ``limits`` hold for the run as a whole: each task takes its share. Without
    it they hold for each task.

    :param partition: one reference of :class:`AIPlanPartitionsOperator`
    """

    template_fields: Sequence[str] = (*BatchOperator.template_fields, "partition")
    template_fields_renderers: ClassVar[dict[str, str]] = {
        **BatchOperator.template_fields_renderers,
        "partition": "json",
    }
    ui_color = "#cfe8d5"

    def __init__(self, *, partition: Mapping[str, Any], **kwargs: Any) -> None:
        self.partition = partition
        super().__init__(**kwargs)

    def run_phase(self, context: Context) -> dict[str, Any]:
        """Counts of the partition."""
        from airflow_provider_ai.runtime.batch_inference import infer_partition

        plan, index = plan_reference(self.partition), int(self.partition["partition"])
        side_by_side = min(self.max_active_tis_per_dagrun or 1, plan.partitions)
        job = self.job(context, limits=shared_limits(self.limits, tasks=side_by_side))
        log.info("Partition %s of %s: %s", index + 1, plan.partitions, self.partition.get("label", ""))

        def call(note: OnProgress) -> PartitionReport:
            report = infer_partition(job, plan, index, on_progress=note, stop=self._stop_token())
            note(_at_the_end(report))
            return report

        report = self.attend(context, call)
        log.info(
            "%s of %s records succeeded, %s quarantined; %s found in the checkpoints, %s requests made in %.1f s",
            *(f"{report.succeeded:,}", f"{report.rows:,}", f"{report.quarantined:,}"),
            *(f"{report.reused:,}", f"{report.requests:,}", report.seconds),
        )
        return asdict(report)


class _AfterInference(BatchOperator):
    """Works on the plan as a whole, with the warehouse.

    :param plan: what :class:`AIPlanPartitionsOperator` returned, or its XCom ``plan``
    """

    template_fields: Sequence[str] = (*BatchOperator.template_fields, "plan")
    template_fields_renderers: ClassVar[dict[str, str]] = {"sink": "json", "plan": "json"}
    ui_color = "#f7e6c4"

    def __init__(self, *, plan: Mapping[str, Any] | Sequence[Mapping[str, Any]] | XComArg, **kwargs: Any) -> None:
        self.plan = plan
        super().__init__(**kwargs)
        if self.sink is None:
            raise SpecError(f"task {self.task_id!r} needs a sink: WarehouseSink(conn_id=…, table=…)")


class AIPublishOperator(_AfterInference):
    """Publishes the answers into the warehouse, partition by partition, each in one transaction. Calls no model."""

    def run_phase(self, context: Context) -> dict[str, Any]:
        """Counts of the rows in the table."""
        from airflow_provider_ai.runtime.batch_inference import publish_batch

        plan, run_id = plan_reference(self.plan), context["ti"].run_id
        job = self.job(context, with_sink=True)

        def call(note: OnProgress) -> PublishReport:
            return publish_batch(job, plan, run_id=run_id, on_progress=note, stop=self._stop_token())

        report = self.attend(context, call)
        log.info("%s rows stand in the table, %s written now", f"{report.published:,}", f"{report.written:,}")
        return asdict(report)


class AIReconcileOperator(_AfterInference):
    """Checks that ``succeeded + quarantined + pending = input`` holds everywhere and that the table agrees."""

    def run_phase(self, context: Context) -> dict[str, Any]:
        """Counts of the whole run."""
        from airflow_provider_ai.runtime.batch_inference import reconcile_batch

        plan, job = plan_reference(self.plan), self.job(context, with_sink=True)

        def call(_note: OnProgress) -> BatchReport:
            return reconcile_batch(job, plan)

        report = self.attend(context, call, stop_wait_seconds=0)
        log.info(
            "It adds up: %s records = %s succeeded + %s quarantined; %s rows in the table",
            *(f"{count:,}" for count in (report.records, report.succeeded, report.quarantined, report.published)),
        )
        return asdict(report)


def _at_the_end(report: PartitionReport) -> Progress:
    """The last word on a partition, also where it was over before there was any progress to tell."""
    fresh = report.rows - report.reused
    return Progress(
        phase="infer",
        done=report.succeeded + report.quarantined,
        quarantined=report.quarantined,
        total=report.rows,
        records_per_second=fresh / report.seconds if report.seconds > 0 else 0.0,
        eta_seconds=0.0,
        prompt_tokens=report.prompt_tokens,
        completion_tokens=report.completion_tokens,
        cost_usd=report.cost_usd,
    )


def plan_reference(value: Any) -> PlanReference:
    """The plan meant by an XCom of the plan task: the reference itself, one partition, or the list of them."""
    if isinstance(value, Mapping):
        value = value.get("plan", value)
    elif isinstance(value, Sequence) and not isinstance(value, str) and value:
        value = value[0]["plan"]
    try:
        return PlanReference.from_dict(value)
    except TypeError:
        raise SpecError("plan must be the output of AIPlanPartitionsOperator; clear the plan task") from None


def batch_inference(
    *,
    group_id: str = "batch_inference",
    input: str,
    id_column: str,
    endpoint_conn_id: str,
    request: Request,
    sink: WarehouseSink,
    checkpoint_uri: str,
    limits: Limits | None = None,
    verb: str = VERB_TEMPLATE,
    max_active_tis_per_dagrun: int = 4,
    default_args: Mapping[str, Any] | None = None,
    **settings: Any,
) -> TaskGroup:
    """The whole pattern as a task group: ``plan → infer (one mapped task per partition) → publish → reconcile``.

    :param group_id: of the group; the tasks are ``{group_id}.plan`` and so on
    :param limits: for the run as a whole; partitions that run side by side share them
    :param verb: constant or template; reads the DAG param ``ai_verb`` (see :func:`verb_param`) unless given
    :param max_active_tis_per_dagrun: partitions inferred side by side
    :param default_args: of the four tasks (pool, queue, retries, …); retries default to 2
    :param settings: further arguments of :class:`BatchOperator` (columns, format, rows_per_partition, max_partitions,
        checkpoint_interval_seconds, aws_conn_id); the others are described there
    """
    side_by_side_ok = isinstance(max_active_tis_per_dagrun, int) and max_active_tis_per_dagrun >= 1
    require(side_by_side_ok, "max_active_tis_per_dagrun must be an integer ≥ 1", max_active_tis_per_dagrun)
    common = dict(
        input=input,
        id_column=id_column,
        endpoint_conn_id=endpoint_conn_id,
        request=request,
        sink=sink,
        checkpoint_uri=checkpoint_uri,
        limits=limits,
        **settings,
    )
    with TaskGroup(group_id=group_id, tooltip="AI batch inference: plan, infer, publish, reconcile") as group:
        group.default_args = {**RETRY_DEFAULTS, **_outer_defaults(group), **(default_args or {})}
        plan = AIPlanPartitionsOperator(task_id="plan", verb=verb, **common)
        infer = AIBatchInferenceOperator.partial(
            task_id="infer",
            map_index_template=MAP_INDEX_TEMPLATE,
            max_active_tis_per_dagrun=max_active_tis_per_dagrun,
            **common,
        ).expand(partition=plan.output)
        reference = XComArg(plan, PLAN_KEY)
        publish = AIPublishOperator(task_id="publish", plan=reference, **common)
        reconcile = AIReconcileOperator(task_id="reconcile", plan=reference, **common)
        infer >> publish >> reconcile
    return group


def _outer_defaults(group: TaskGroup) -> dict[str, Any]:
    """Default arguments that hold around the group: the DAG's, then those of enclosing groups."""
    return {**(group.dag.default_args or {}), **group.default_args}
