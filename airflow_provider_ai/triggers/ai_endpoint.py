"""Waits in the triggerer until a model endpoint is ready.

Invariants: the trigger carries the connection's id and numbers, never what the connection holds, because Airflow
stores and logs both kwargs and events. It never raises: whatever goes wrong counts as "not ready yet", and the sensor's
timeout ends the wait. The first event comes some seconds after the start: where the scheduler learns of the end of the
deferring process only after the event, it takes the task for killed and fails it (apache/airflow#67287, #72716).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_ai.hooks.ai_endpoint import AIEndpointHook

SETTLE_SECONDS = 10.0  # the end of a process may be seen a heartbeat interval (5 s) late, by the scheduler later still
CHECK_TIMEOUT_SECONDS = 10.0


class AIEndpointReadyTrigger(BaseTrigger):
    """Fires once, with ``{"ready": true}``, when the endpoint answers as ready.

    :param endpoint_conn_id: connection of type ``ai_endpoint``; read anew for every look, so it may be mended meanwhile
    :param poke_interval: seconds between two looks
    """

    def __init__(self, endpoint_conn_id: str, poke_interval: float) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.endpoint_conn_id = endpoint_conn_id
        self.poke_interval = poke_interval

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """What Airflow stores to start the trigger again elsewhere."""
        kwargs = {"endpoint_conn_id": self.endpoint_conn_id, "poke_interval": self.poke_interval}
        return f"{type(self).__module__}.{type(self).__qualname__}", kwargs

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Look, wait, look again."""
        started, seen = time.monotonic(), ""
        while True:
            ready, detail = await self._look()
            if detail != seen:
                seen = detail
                self.log.info("Endpoint of connection %s: %s", self.endpoint_conn_id, detail)
            if ready:
                break
            await asyncio.sleep(self.poke_interval)
        await asyncio.sleep(max(0.0, started + SETTLE_SECONDS - time.monotonic()))
        yield TriggerEvent({"ready": True})  # type: ignore[no-untyped-call]

    async def _look(self) -> tuple[bool, str]:
        from airflow_provider_ai.adapters.endpoints.readiness import acheck_ready

        try:
            endpoint = await AIEndpointHook(self.endpoint_conn_id).aget_conn()
            readiness = await acheck_ready(endpoint, timeout_seconds=CHECK_TIMEOUT_SECONDS)
        except Exception as error:  # noqa: BLE001 - a trigger that raises before its first event fails the task
            return False, f"cannot look ({type(error).__name__}); looking again"
        return readiness.ready, readiness.detail
