"""Fires when there are dead letters, so that a DAG can tell somebody, or redrive them once their cause is gone."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import BaseSensorOperator, Context, PokeReturnValue, conf

from airflow_provider_ai.core.config import require
from airflow_provider_ai.hooks.ai_jobs import DEFAULT_CONN_ID, AIJobsHook
from airflow_provider_ai.operators.hidden_fields import explained
from airflow_provider_ai.triggers.dead_letters import DeadLettersTrigger

if TYPE_CHECKING:
    from airflow_provider_ai.runtime.dead_letter_look import DeadLetterLook


class DeadLetterQueueSensor(BaseSensorOperator):
    """Succeeds when there are dead letters, and returns how many: ``{"kept", "queued", "reasons"}``.

    ``kept`` are those that a dispatcher has taken into the store, ``queued`` those still in the queue. It takes none.

    :param transport_conn_id: connection of type ``ai_jobs``
    :param store_conn_id: connection of the store, if not the one that the transport's names
    :param since: an ISO 8601 time with an offset: letters that were kept before it do not count (templated)
    :param deferrable: wait in the triggerer instead of holding a worker slot
    :param poke_interval: seconds between two looks
    :param timeout: seconds until the sensor gives up
    """

    template_fields: Sequence[str] = ("transport_conn_id", "store_conn_id", "since")
    ui_color = "#f6d8d8"

    def __init__(
        self,
        *,
        transport_conn_id: str = DEFAULT_CONN_ID,
        store_conn_id: str | None = None,
        since: str | None = None,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        poke_interval: timedelta | float = 60,
        **kwargs: Any,
    ) -> None:
        super().__init__(poke_interval=poke_interval, **kwargs)
        self.transport_conn_id = transport_conn_id
        self.store_conn_id = store_conn_id
        self.since = since
        self.deferrable = deferrable
        require(self.poke_interval > 0, "poke_interval must be > 0 (seconds)", self.poke_interval)

    def poke(self, context: Context) -> PokeReturnValue:
        """One look."""
        found: DeadLetterLook = explained(self._look)
        self.log.info("Dead letters: %s kept, about %s queued %s", found.kept, found.queued, found.reasons or "")
        return PokeReturnValue(is_done=found.any, xcom_value=found.to_dict())

    def execute(self, context: Context) -> Any:
        """Wait in the triggerer when deferrable and there are none yet, here otherwise."""
        if not self.deferrable:
            return super().execute(context)
        found = self.poke(context)
        if found:
            return found.xcom_value
        self.defer(
            trigger=DeadLettersTrigger(
                transport_conn_id=self.transport_conn_id,
                store_conn_id=self.store_conn_id,
                since=self._since(),
                poke_interval=self.poke_interval,
            ),
            method_name="execute_complete",
            timeout=timedelta(seconds=self.timeout),
        )

    def execute_complete(self, context: Context, event: dict[str, Any]) -> dict[str, Any]:
        """The trigger fires only when there are some."""
        self.log.info("Dead letters: %s", event)
        return event

    def _look(self) -> DeadLetterLook:
        from airflow_provider_ai.runtime.dead_letter_look import look_at_dead_letters

        settings = AIJobsHook(self.transport_conn_id, self.store_conn_id).get_conn()
        return look_at_dead_letters(settings, since=self._since())

    def _since(self) -> float:
        if not self.since:
            return 0.0
        try:
            moment = datetime.fromisoformat(self.since)
        except ValueError:
            moment = datetime.min  # noqa: DTZ901 - refused below
        require(moment.tzinfo is not None, "since must be an ISO 8601 time with an offset", self.since)
        return moment.timestamp()
