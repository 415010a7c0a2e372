"""Tells Airflow that submissions have been answered, for an AssetWatcher: whoever submitted them, wherever.

Events say which submissions, never what was answered, and are a reason to look: it begins anew, some minutes back, when
a triggerer is restarted, so a DAG that they start must bear to be told twice. All that ended between two looks is one
event: a burst of events of one asset starts one run, with the first of them.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import BaseEventTrigger, TriggerEvent

if TYPE_CHECKING:
    from airflow_provider_ai.core.job_ports import Ended

OVERLAP_SECONDS = 60.0
"""A look goes back so much further than the last one: what was committed late is not missed."""
_MOST_TOLD = 200


class JobRepliesTrigger(BaseEventTrigger):
    """Fires whenever submissions have ended: ``{"submissions": [{"submission", "counts"}, …]}``, 200 of them at most.

    :param transport_conn_id: connection of type ``ai_jobs``, ``store_conn_id`` the store's, if not the one it names
    :param poke_interval: seconds between two looks
    :param look_back: seconds before its start of which it also tells
    :param embed_dispatcher: take replies from the result queue meanwhile
    """

    def __init__(
        self,
        transport_conn_id: str = "ai_jobs",
        store_conn_id: str | None = None,
        poke_interval: float = 30.0,
        look_back: float = 600.0,
        embed_dispatcher: bool = True,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.transport_conn_id = transport_conn_id
        self.store_conn_id = store_conn_id
        self.poke_interval = poke_interval
        self.look_back = look_back
        self.embed_dispatcher = embed_dispatcher

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """What Airflow stores to start the trigger again elsewhere."""
        kwargs = {
            "transport_conn_id": self.transport_conn_id,
            "store_conn_id": self.store_conn_id,
            "poke_interval": self.poke_interval,
            "look_back": self.look_back,
            "embed_dispatcher": self.embed_dispatcher,
        }
        return f"{type(self).__module__}.{type(self).__qualname__}", kwargs

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Look, tell, wait, look again: it has no end."""
        since, told, said = time.time() - self.look_back, dict[str, float](), ""
        async with AsyncExitStack() as stack:
            while True:
                try:
                    ended = await self._look(stack, since)
                except Exception as error:  # noqa: BLE001 - a watcher that raises watches no more
                    if said != (said := type(error).__name__):
                        self.log.warning("Cannot look for replies (%s); looking again", said)
                else:
                    new = _oldest({name: each for name, each in ended.items() if told.get(name) != each.at})
                    if new:
                        yield TriggerEvent(_event(new))  # type: ignore[no-untyped-call]
                    told = {name: at for name, at in told.items() if name in ended} | {n: e.at for n, e in new.items()}
                    since = max([since, *(at - OVERLAP_SECONDS for at in told.values())])
                await asyncio.sleep(self.poke_interval)

    async def _look(self, stack: AsyncExitStack, since: float) -> Mapping[str, Ended]:
        from airflow_provider_ai.triggers.job_connections import job_settings

        settings = await job_settings(self.transport_conn_id, self.store_conn_id)
        # In a thread the hook has imported most of what these import: an event loop must not wait for files.
        from airflow_provider_ai.runtime.embedded_dispatcher import embedded_dispatcher
        from airflow_provider_ai.runtime.job_service import ended_submissions

        if self.embed_dispatcher:
            await stack.aclose()  # settings may be others by now; a dispatcher lingers between two looks
            stack.enter_context(embedded_dispatcher(settings))
        return await asyncio.to_thread(partial(ended_submissions, settings, since=since))


def _event(ended: Mapping[str, Ended]) -> dict[str, Any]:
    return {"submissions": [{"submission": name, "counts": asdict(each.counts)} for name, each in ended.items()]}


def _oldest(ended: Mapping[str, Ended]) -> dict[str, Ended]:
    """As many as one event tells of; the next look finds the others."""
    return dict(sorted(ended.items(), key=lambda item: item[1].at)[:_MOST_TOLD])
