"""Waits until a model endpoint is ready, so that the batch behind it burns no retries on a server that still starts."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from airflow.providers.common.compat.sdk import BaseSensorOperator, Context, conf

from airflow_provider_ai.core.config import EndpointSettings, require
from airflow_provider_ai.hooks.ai_endpoint import AIEndpointHook
from airflow_provider_ai.operators.errors import airflow_error
from airflow_provider_ai.triggers.ai_endpoint import CHECK_TIMEOUT_SECONDS, AIEndpointReadyTrigger


class AIEndpointReadySensor(BaseSensorOperator):
    """Succeeds when the endpoint of a connection answers as ready.

    A connection that cannot be right fails at once; everything else is waited for, up to ``timeout``.

    :param endpoint_conn_id: Airflow connection of type ``ai_endpoint``
    :param deferrable: wait in the triggerer instead of holding a worker slot
    :param poke_interval: seconds between two looks
    :param timeout: seconds until the sensor gives up
    """

    template_fields: Sequence[str] = ("endpoint_conn_id",)

    def __init__(
        self,
        *,
        endpoint_conn_id: str,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        poke_interval: timedelta | float = 15,
        **kwargs: Any,
    ) -> None:
        super().__init__(poke_interval=poke_interval, **kwargs)
        self.endpoint_conn_id = endpoint_conn_id
        self.deferrable = deferrable
        require(self.poke_interval > 0, "poke_interval must be > 0 (seconds)", self.poke_interval)

    def poke(self, context: Context) -> bool:
        """One look."""
        return self._ready()

    def execute(self, context: Context) -> Any:
        """Wait in the triggerer when deferrable and not ready yet, here otherwise."""
        if not self.deferrable:
            return super().execute(context)
        if not self._ready():
            self.defer(
                trigger=AIEndpointReadyTrigger(self.endpoint_conn_id, self.poke_interval),
                method_name="execute_complete",
                timeout=timedelta(seconds=self.timeout),
            )
        return None

    def execute_complete(self, context: Context, event: dict[str, Any] | None = None) -> None:
        """The trigger fires only when the endpoint is ready."""
        self.log.info("The endpoint of connection %s is ready", self.endpoint_conn_id)

    def _ready(self) -> bool:
        from airflow_provider_ai.adapters.endpoints.readiness import check_ready

        readiness = check_ready(self._endpoint(), timeout_seconds=CHECK_TIMEOUT_SECONDS)
        self.log.info("Endpoint of connection %s: %s", self.endpoint_conn_id, readiness.detail)
        return readiness.ready

    def _endpoint(self) -> EndpointSettings:
        try:
            return AIEndpointHook(self.endpoint_conn_id).get_conn()
        except Exception as error:  # noqa: BLE001 - mapped below, outside of the handler, so that no context sticks to it
            failure = airflow_error(error)
        raise failure
