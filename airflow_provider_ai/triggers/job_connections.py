"""The connections of jobs, looked up once for all triggers of a triggerer that name them.

A look-up asks Airflow's supervisor, some tens of milliseconds for each connection, and a thousand waiting tasks would
ask a thousand times. What was found is used for a minute, so that a corrected connection is seen soon.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from asgiref.sync import sync_to_async

from airflow_provider_ai.hooks.ai_jobs import AIJobsHook

if TYPE_CHECKING:
    # Imported by the hook, in a thread: what settings are made of would hold up the triggerer's event loop.
    from airflow_provider_ai.runtime.job_service import JobSettings

KEPT_SECONDS = 60.0
_Key = tuple[str, str | None]
_Found = tuple[float, "asyncio.Task[JobSettings]"]
_found: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[_Key, _Found]] = WeakKeyDictionary()


async def job_settings(transport_conn_id: str, store_conn_id: str | None) -> JobSettings:
    """The settings behind the connections. May raise whatever looking up a connection raises."""
    known = _found.setdefault(asyncio.get_running_loop(), {})
    key = (transport_conn_id, store_conn_id)
    looked_at, looking = known.get(key, (0.0, None))
    if looking is None or _outdated(looked_at, looking):
        look = sync_to_async(AIJobsHook(transport_conn_id, store_conn_id).get_conn)
        looking = asyncio.get_running_loop().create_task(_awaited(look))
        known[key] = (time.monotonic(), looking)
    return await asyncio.shield(looking)  # others wait for it as well


async def _awaited(look: object) -> JobSettings:
    return await look()  # type: ignore[operator,no-any-return]


def _outdated(looked_at: float, looking: asyncio.Task[JobSettings]) -> bool:
    if not looking.done():
        return False
    failed = looking.cancelled() or looking.exception() is not None
    return failed or time.monotonic() - looked_at > KEPT_SECONDS
