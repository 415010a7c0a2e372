"""Has the jobs of dead letters done once more: what ``airflow-ai dlq redrive`` does, for the people who run DAGs.

Ids, counts and reasons come out of it, never a payload.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import BaseOperator, Context

from airflow_provider_ai.core.config import require
from airflow_provider_ai.hooks.ai_jobs import DEFAULT_CONN_ID, AIJobsHook
from airflow_provider_ai.hooks.audit import task_actor
from airflow_provider_ai.operators.hidden_fields import explained

if TYPE_CHECKING:
    from airflow_provider_ai.core.job_ports import DeadLetter

log = logging.getLogger(__name__)


class AIRedriveOperator(BaseOperator):
    """Submits the jobs of dead letters anew, as the next generation, and returns how many.

    A job that is answered or pending by now is left alone. Tasks that wait for the jobs are to be cleared afterwards:
    they go on with the new generation.

    :param transport_conn_id: connection of type ``ai_jobs`` (templated)
    :param store_conn_id: connection of the store, if not the one that the transport's names (templated)
    :param reason: only the letters with this reason; all of them when absent or empty (templated)
    :param job_ids: only those of these jobs (templated)
    """

    template_fields: Sequence[str] = ("transport_conn_id", "store_conn_id", "reason", "job_ids")
    ui_color = "#f6d8d8"

    def __init__(
        self,
        *,
        transport_conn_id: str = DEFAULT_CONN_ID,
        store_conn_id: str | None = None,
        reason: str | None = None,
        job_ids: Sequence[str] | str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.transport_conn_id = transport_conn_id
        self.store_conn_id = store_conn_id
        self.reason = reason
        self.job_ids = job_ids

    def execute(self, context: Context) -> dict[str, int]:
        """``{"letters", "jobs", "sent", "skipped"}``; see :class:`Redriven`."""
        done: dict[str, int] = explained(lambda: self._redrive(context))
        return done

    def _redrive(self, context: Context) -> dict[str, int]:
        from airflow_provider_ai.core.job_settings import DispatcherSettings
        from airflow_provider_ai.runtime.dead_letters import open_dead_letter_desk

        ids = self._ids()
        settings = AIJobsHook(self.transport_conn_id, self.store_conn_id).get_conn()

        def chosen(letter: DeadLetter) -> bool:
            return (ids is None or letter.job_id in ids) and (not self.reason or letter.reason == self.reason)

        audit = None
        if settings.audit is not None:
            audit = settings.audited_by(task_actor(context, "operator"), role="operator")
        with open_dead_letter_desk(
            settings.transport, settings.store, DispatcherSettings(), settings.keys, audit=audit
        ) as desk:
            log.info("%s dead letters were taken out of their queue", f"{desk.take_all():,}")
            done = asdict(desk.redrive(chosen))
        log.info("%s jobs are submitted anew; %s letters stay", f"{done['jobs']:,}", f"{done['skipped']:,}")
        return done

    def _ids(self) -> frozenset[str] | None:
        given = self.job_ids
        if given is None or given in ("", "None"):
            return None
        is_list = isinstance(given, Sequence) and not isinstance(given, str)
        require(is_list, "job_ids must be a list of ids", type(given).__name__)
        return frozenset(map(str, given))
