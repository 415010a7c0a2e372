"""Waits in the triggerer until there are dead letters. As every trigger of this package it carries ids and numbers,
never raises before its event, and fires some seconds after its start at the earliest (:mod:`…triggers.ai_endpoint`).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_ai.triggers.ai_endpoint import SETTLE_SECONDS


class DeadLettersTrigger(BaseTrigger):
    """Fires once, with how many dead letters there are, by reason.

    :param since: epoch seconds: letters that were kept before do not count
    :param poke_interval: seconds between two looks
    """

    def __init__(
        self, *, transport_conn_id: str, store_conn_id: str | None, since: float, poke_interval: float
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.transport_conn_id = transport_conn_id
        self.store_conn_id = store_conn_id
        self.since = since
        self.poke_interval = poke_interval

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """What Airflow stores to start the trigger again elsewhere."""
        kwargs = {
            "transport_conn_id": self.transport_conn_id,
            "store_conn_id": self.store_conn_id,
            "since": self.since,
            "poke_interval": self.poke_interval,
        }
        return f"{type(self).__module__}.{type(self).__qualname__}", kwargs

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Look, wait, look again."""
        started, said = time.monotonic(), ""
        while True:
            try:
                found = await self._look()
                if found["kept"] or found["queued"]:
                    break
            except Exception as error:  # noqa: BLE001 - a trigger that raises before its first event fails the task
                if said != (said := type(error).__name__):
                    self.log.warning("Cannot look for dead letters (%s); looking again", said)
            await asyncio.sleep(self.poke_interval)
        await asyncio.sleep(max(0.0, started + SETTLE_SECONDS - time.monotonic()))
        yield TriggerEvent(found)  # type: ignore[no-untyped-call]

    async def _look(self) -> dict[str, Any]:
        from airflow_provider_ai.runtime.dead_letter_look import look_at_dead_letters
        from airflow_provider_ai.triggers.job_connections import job_settings

        settings = await job_settings(self.transport_conn_id, self.store_conn_id)
        return (await asyncio.to_thread(partial(look_at_dead_letters, settings, since=self.since))).to_dict()
