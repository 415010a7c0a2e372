"""Waits for jobs that somebody else has submitted: another task, another DAG, ``airflow-ai jobs submit``."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from airflow.providers.common.compat.sdk import AirflowFailException, BaseSensorOperator, Context, conf

from airflow_provider_ai.core.config import require
from airflow_provider_ai.core.job_waiting import OnFailedJobs, WaitPolicy, WaitState, WaitVerdict, decide, explain
from airflow_provider_ai.hooks.ai_jobs import DEFAULT_CONN_ID, AIJobsHook
from airflow_provider_ai.operators.hidden_fields import explained
from airflow_provider_ai.triggers.ai_jobs import AIJobsTrigger, AIJobTrigger, verdict_of


class AIJobSensor(BaseSensorOperator):
    """Succeeds when a job, or all jobs of a submission, have ended with a result; fails when they have ended without.

    It looks at the store alone and takes nothing away, so any number of tasks may wait for the same jobs.

    :param job_id: of one job; or
    :param submission: of all jobs of one: what the operator's manifest, or ``airflow-ai jobs submit``, says
    :param transport_conn_id: connection of type ``ai_jobs``
    :param store_conn_id: connection of the store, if not the one that the transport's names
    :param on_failed_jobs: ``fail``: none may end without a result; ``quarantine``: ``max_failed_fraction`` of them may
    :param deferrable: wait in the triggerer instead of holding a worker slot
    :param embed_dispatcher: deferrable: take replies from the result queue meanwhile
    :param timeout: seconds until the sensor gives up
    """

    template_fields: Sequence[str] = ("job_id", "submission", "transport_conn_id", "store_conn_id")
    ui_color = "#d9efe9"

    def __init__(
        self,
        *,
        job_id: str | None = None,
        submission: str | None = None,
        transport_conn_id: str = DEFAULT_CONN_ID,
        store_conn_id: str | None = None,
        on_failed_jobs: OnFailedJobs = "fail",
        max_failed_fraction: float = 0.01,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        embed_dispatcher: bool = True,
        poke_interval: timedelta | float = 15,
        **kwargs: Any,
    ) -> None:
        super().__init__(poke_interval=poke_interval, **kwargs)
        self.job_id = job_id
        self.submission = submission
        self.transport_conn_id = transport_conn_id
        self.store_conn_id = store_conn_id
        self.policy = WaitPolicy(on_failed_jobs=on_failed_jobs, max_quarantined_fraction=max_failed_fraction)
        self.deferrable = deferrable
        self.embed_dispatcher = embed_dispatcher
        require((job_id is None) != (submission is None), "either job_id or submission must be given", "both or none")

    def poke(self, context: Context) -> bool:
        """One look. AirflowFailException when no waiting can help."""
        return bool(explained(self._poke))

    def execute(self, context: Context) -> Any:
        """Wait in the triggerer when deferrable and not over yet, here otherwise."""
        if not self.deferrable:
            return super().execute(context)
        if not self.poke(context):
            self.defer(trigger=self._trigger(), method_name="execute_complete", timeout=timedelta(seconds=self.timeout))
        return None

    def execute_complete(self, context: Context, event: dict[str, Any]) -> None:
        """The wait is over."""
        explained(lambda: self._succeeded(verdict_of(event)))

    def _poke(self) -> bool:
        from airflow_provider_ai.runtime.job_service import open_jobs, open_single_jobs

        name, store = self._name(), AIJobsHook(self.transport_conn_id, self.store_conn_id).get_conn().store
        with open_jobs(store) if self.job_id is None else open_single_jobs(store) as counting:
            counts = counting.counts([name]).get(name)
        return self._succeeded(decide(counts, self.policy, now=time.time(), deadline=None))

    def _succeeded(self, verdict: WaitVerdict) -> bool:
        self.log.info("%s", explain(verdict))
        if verdict.state is WaitState.FAILED:
            raise AirflowFailException(explain(verdict))
        return verdict.state is WaitState.COMPLETE

    def _name(self) -> str:
        name = self.submission if self.job_id is None else self.job_id
        require(isinstance(name, str) and bool(name), "job_id or submission must be an id after rendering", type(name))
        return str(name)

    def _trigger(self) -> AIJobsTrigger:
        kind = AIJobsTrigger if self.job_id is None else AIJobTrigger
        return kind(
            submission=self._name(),
            transport_conn_id=self.transport_conn_id,
            store_conn_id=self.store_conn_id,
            on_failed_jobs=self.policy.on_failed_jobs,
            max_failed_fraction=self.policy.max_quarantined_fraction,
            deadline=None,
            expected=None,
            embed_dispatcher=self.embed_dispatcher,
            cancel_on_kill=False,
        )
