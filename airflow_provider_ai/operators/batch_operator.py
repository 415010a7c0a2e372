"""What the four batch operators share: the settings of the batch, the attended call, the mapped errors.

Constants are checked when the DAG is parsed, rendered values when the task runs. Connections are resolved in the main
thread, before the call starts. The runtime and its libraries are imported when a task runs, never to parse a DAG.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from airflow.providers.common.compat.sdk import BaseOperator, Context

from airflow_provider_ai.core.config import CheckpointSettings, InputSettings, Limits, SinkSettings, require
from airflow_provider_ai.core.manifest import DatasetFormat
from airflow_provider_ai.core.phi_policy import Phi
from airflow_provider_ai.core.ports import Request
from airflow_provider_ai.core.report import StopToken
from airflow_provider_ai.core.requests.batchable import check_batch_request
from airflow_provider_ai.exceptions import SpecError
from airflow_provider_ai.hooks.ai_endpoint import AIEndpointHook
from airflow_provider_ai.hooks.audit import task_audit
from airflow_provider_ai.hooks.phi import DEFAULT_REDACTION_KEY_CONN_ID, package_wide, resolved_redaction
from airflow_provider_ai.hooks.storage import DEFAULT_AWS_CONN_ID, storage_options
from airflow_provider_ai.operators.attended import STOP_WAIT_SECONDS, OnProgress, ProgressReporter, attend
from airflow_provider_ai.operators.errors import airflow_error
from airflow_provider_ai.operators.phi_at_parse_time import refuse_unprotected
from airflow_provider_ai.operators.settings import WarehouseSink

if TYPE_CHECKING:
    import jinja2

    from airflow_provider_ai.runtime.batch_inference import BatchJob

T = TypeVar("T")


class BatchOperator(BaseOperator):
    """What the four operators share: the settings of the batch, the attended call, the errors.

    :param input: parquet, CSV or JSON Lines: file, folder or glob; local path or ``s3://``
    :param id_column: the column that names a record; unique and never null
    :param endpoint_conn_id: Airflow connection of type ``ai_endpoint``
    :param request: how records become calls: :class:`OpenInferenceRequest`, :class:`OpenAIChatRequest`, …
    :param checkpoint_uri: where plans and answers are kept; shared by all workers
    :param sink: the table to publish into
    :param limits: how hard to push and when to give up
    :param columns: columns to read besides the id; what the request needs when absent
    :param format: ``parquet``, ``csv`` or ``jsonl``; told from the file names when absent
    :param rows_per_partition: target rows of a mapped task
    :param max_partitions: most mapped tasks; partitions grow beyond the target to keep it
    :param checkpoint_interval_seconds: fsync (local) or PUT (S3) period
    :param aws_conn_id: Airflow connection for ``s3://`` URIs; not looked up for local paths
    :param redaction: column → rule: what is done to it before anything is sent (docs/minimum-necessary.md)
    :param redaction_key_conn_id: connection with the key of ``tokenise`` as its password

    For health data ``columns`` is mandatory: no other column is read, and none but these is sent.
    """

    template_fields: Sequence[str] = ("input", "endpoint_conn_id", "checkpoint_uri", "sink", "aws_conn_id")
    template_fields_renderers: ClassVar[dict[str, str]] = {"sink": "json"}
    ui_color = "#dcebfa"

    def __init__(
        self,
        *,
        input: str,
        id_column: str,
        endpoint_conn_id: str,
        request: Request,
        checkpoint_uri: str,
        sink: WarehouseSink | None = None,
        limits: Limits | None = None,
        columns: Sequence[str] | None = None,
        format: DatasetFormat | None = None,
        rows_per_partition: int = 100_000,
        max_partitions: int = 256,
        checkpoint_interval_seconds: float = 1.0,
        aws_conn_id: str | None = DEFAULT_AWS_CONN_ID,
        redaction: Mapping[str, Any] | None = None,
        redaction_key_conn_id: str = DEFAULT_REDACTION_KEY_CONN_ID,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.input = input
        self.id_column = id_column
        self.endpoint_conn_id = endpoint_conn_id
        self.request = request
        self.checkpoint_uri = checkpoint_uri
        self.sink = sink
        self.limits = Limits() if limits is None else limits
        self.columns = None if columns is None else tuple(columns)
        self.format: DatasetFormat | None = format
        self.rows_per_partition = rows_per_partition
        self.max_partitions = max_partitions
        self.checkpoint_interval_seconds = checkpoint_interval_seconds
        self.aws_conn_id = aws_conn_id
        self.redaction = redaction
        self.redaction_key_conn_id = redaction_key_conn_id
        self._stop: StopToken | None = None
        self._check()

    def _check(self) -> None:
        """Refuse at parse time what no rendering can put right."""
        require(isinstance(self.limits, Limits), "limits must be Limits(…)", self.limits)
        sink_ok = self.sink is None or isinstance(self.sink, WarehouseSink)
        require(sink_ok, "sink must be WarehouseSink(…)", self.sink)
        is_request = all(hasattr(self.request, name) for name in ("encode", "decode", "records_per_request"))
        require(is_request, "request must be a request such as OpenInferenceRequest(…)", type(self.request).__name__)
        check_batch_request(self.request)
        self._input_settings(self.input if isinstance(self.input, str) else "rendered later")
        self._checkpoint_settings(self.checkpoint_uri if isinstance(self.checkpoint_uri, str) else "rendered later")
        refuse_unprotected(
            endpoints={"endpoint": self.endpoint_conn_id},
            databases={"sink": None if self.sink is None else self.sink.conn_id},
            folders={"dataset": self.input, "checkpoint": self.checkpoint_uri},
            redaction=self.redaction,
            records=True,
            columns=self.columns,
            asked=tuple(self.request.columns or ()),
        )

    def _input_settings(self, uri: str) -> InputSettings:
        return InputSettings(
            uri=uri,
            id_column=self.id_column,
            columns=self.columns,
            format=self.format,
            rows_per_partition=self.rows_per_partition,
            max_partitions=self.max_partitions,
        )

    def _checkpoint_settings(self, uri: str) -> CheckpointSettings:
        return CheckpointSettings(uri=uri, interval_seconds=self.checkpoint_interval_seconds)

    def render_template(
        self,
        content: Any,
        context: Context,
        jinja_env: jinja2.Environment | None = None,
        seen_oids: set[int] | None = None,
    ) -> Any:
        """Also renders the fields of a sink, which is frozen and so cannot be rendered in place."""
        render = super().render_template
        if not isinstance(content, WarehouseSink):
            return render(content, context, jinja_env, seen_oids)
        return content.rendered(lambda value: render(value, context, jinja_env))

    def execute(self, context: Context) -> Any:
        """One phase of the batch. Raises AirflowFailException where a retry cannot help."""
        try:
            return self.run_phase(context)
        except Exception as error:  # noqa: BLE001 - mapped below, outside of the handler, so that no context sticks to it
            failure = airflow_error(error)
        raise failure

    @abstractmethod
    def run_phase(self, context: Context) -> Any:
        """What the operator is for; may raise any error of this package."""

    def on_kill(self) -> None:
        """Ask the running call to stop. Called in a signal handler of the main thread, so it must not wait."""
        self._stop_token().stop("by Airflow: cleared, marked or evicted")

    def _stop_token(self) -> StopToken:
        # Made late: operators are deep-copied, which a lock does not survive.
        if self._stop is None:
            self._stop = StopToken()
        return self._stop

    def job(self, context: Context, *, limits: Limits | None = None, with_sink: bool = False) -> BatchJob:
        """The batch with its connections resolved. Main thread only. The sink only where it is written or read.

        Every task says how the batch is audited: for health data none runs without.
        """
        from airflow_provider_ai.runtime.batch_inference import BatchJob

        endpoint = AIEndpointHook(self.endpoint_conn_id)
        return BatchJob(
            input=self._input_settings(self.input),
            endpoint=endpoint.get_conn(),
            request=self.request,
            limits=limits or self.limits,
            checkpoint=self._checkpoint_settings(self.checkpoint_uri),
            sink=self._sink_settings() if with_sink else None,
            storage=storage_options((self.input, self.checkpoint_uri), self.aws_conn_id),
            keys=endpoint.keys(),
            audit=task_audit(context),
            redaction=resolved_redaction(self.redaction, self.redaction_key_conn_id),
            phi=Phi(on=package_wide()),
        )

    def _sink_settings(self) -> SinkSettings:
        # SQLAlchemy is not needed to parse a DAG.
        from airflow_provider_ai.hooks.warehouse import sink_settings

        if self.sink is None:
            raise SpecError(f"task {self.task_id!r} needs a sink")
        return sink_settings(self.sink.conn_id, self.sink.table, self.sink.schema)

    def attend(
        self, context: Context, call: Callable[[OnProgress], T], *, stop_wait_seconds: float = STOP_WAIT_SECONDS
    ) -> T:
        """Run ``call`` in a worker thread; meanwhile show progress and react to being stopped."""
        reporter = ProgressReporter(context.get("task_state_store"))
        return attend(call, stop=self._stop_token(), reporter=reporter, stop_wait_seconds=stop_wait_seconds)
