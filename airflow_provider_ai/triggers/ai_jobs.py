"""Waits in the triggerer until the jobs of a submission have ended. All waits of a process are one look at the store.

Invariants:
- Kwargs and events hold ids, numbers and words: Airflow stores and logs both.
- It waits on the store alone and takes nothing from a queue, so a triggerer that is killed loses nothing: another one
  looks again.
- It never raises before its event. Whatever goes wrong, it looks again; the deadline ends the wait, also when nothing
  could be looked at. The first event comes some seconds after the start (see :mod:`…triggers.ai_endpoint`).
- Blocking calls are made in threads.

Only a person ends jobs that have not begun: by marking the task, not by clearing it (the cleared task goes on with
them), and no triggerer that stops.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Hashable
from contextlib import AbstractContextManager, AsyncExitStack
from dataclasses import asdict
from functools import partial
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent
from asgiref.sync import sync_to_async

from airflow_provider_ai.core.job_waiting import STORE_UNAVAILABLE, OnFailedJobs, WaitPolicy, WaitState, WaitVerdict
from airflow_provider_ai.core.jobs import JobCounts
from airflow_provider_ai.triggers.ai_endpoint import SETTLE_SECONDS

LOOK_AGAIN_SECONDS = 15.0
GIVE_UP_SECONDS = 60.0
"""After the deadline, when nothing can be looked at."""
OpenStore = Callable[[], AbstractContextManager[Any]]
_WILL_NOT_RUN_AGAIN = frozenset({"success", "failed", "skipped", "removed", "upstream_failed"})


class AIJobsTrigger(BaseTrigger):
    """Fires once, with how the wait ended: ``{"submission", "state", "reason", "counts"}``.

    :param submission: names the jobs
    :param transport_conn_id: connection of type ``ai_jobs``, ``store_conn_id`` the store's, if not the one it names
    :param on_failed_jobs: ``fail`` or ``quarantine``, with ``max_failed_fraction``: see :class:`WaitPolicy`
    :param deadline: epoch seconds
    :param expected: how many jobs there are
    :param embed_dispatcher: run a dispatcher in this process while somebody waits
    :param cancel_on_kill: whether the jobs are this task's own, which nobody waits for when it is marked
    """

    def __init__(
        self,
        *,
        submission: str,
        transport_conn_id: str,
        store_conn_id: str | None,
        on_failed_jobs: OnFailedJobs,
        max_failed_fraction: float,
        deadline: float | None,
        expected: int | None,
        embed_dispatcher: bool = True,
        cancel_on_kill: bool = True,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.submission = submission
        self.transport_conn_id = transport_conn_id
        self.store_conn_id = store_conn_id
        self.on_failed_jobs = on_failed_jobs
        self.max_failed_fraction = max_failed_fraction
        self.deadline = deadline
        self.expected = expected
        self.embed_dispatcher = embed_dispatcher
        self.cancel_on_kill = cancel_on_kill

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """What Airflow stores to start the trigger again elsewhere."""
        kwargs = {
            "submission": self.submission,
            "transport_conn_id": self.transport_conn_id,
            "store_conn_id": self.store_conn_id,
            "on_failed_jobs": self.on_failed_jobs,
            "max_failed_fraction": self.max_failed_fraction,
            "deadline": self.deadline,
            "expected": self.expected,
            "embed_dispatcher": self.embed_dispatcher,
            "cancel_on_kill": self.cancel_on_kill,
        }
        return f"{type(self).__module__}.{type(self).__qualname__}", kwargs

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait until it is over, however long looking does not work."""
        started, said = time.monotonic(), ""
        while True:
            try:
                verdict = await self._over()
                break
            except Exception as error:  # noqa: BLE001 - a trigger that raises before its first event fails the task
                if said != (said := type(error).__name__):
                    self.log.warning("Cannot look for the jobs' replies (%s); looking again", said)
            if self.deadline is not None and time.time() >= self.deadline + GIVE_UP_SECONDS:
                verdict = WaitVerdict(state=WaitState.TIMED_OUT, counts=JobCounts(), reason=STORE_UNAVAILABLE)
                break
            await asyncio.sleep(LOOK_AGAIN_SECONDS)
        await asyncio.sleep(max(0.0, started + SETTLE_SECONDS - time.monotonic()))
        yield TriggerEvent(wait_event(self.submission, verdict))  # type: ignore[no-untyped-call]

    async def on_kill(self) -> None:
        """A person has marked or cleared the task. Marked: jobs that have not begun are not to begin."""
        from airflow_provider_ai.runtime.job_service import cancel_jobs

        if not self.cancel_on_kill or await self._runs_again():
            return
        settings = await self._settings()
        cancelled = await asyncio.to_thread(cancel_jobs, settings.store, self.submission)
        self.log.info("%s jobs that had not begun are cancelled", f"{cancelled:,}")

    async def _over(self) -> WaitVerdict:
        settings = await self._settings()
        # In a thread the hook has imported most of what these import: an event loop must not wait for files.
        from airflow_provider_ai.patterns.waiting_hub import shared_hub
        from airflow_provider_ai.runtime.embedded_dispatcher import embedded_dispatcher

        policy = WaitPolicy(on_failed_jobs=self.on_failed_jobs, max_quarantined_fraction=self.max_failed_fraction)
        async with AsyncExitStack() as stack:
            if self.embed_dispatcher:
                stack.enter_context(embedded_dispatcher(settings))
            hub = await stack.enter_async_context(shared_hub(*self._looks_at(settings.store)))
            waiting = await stack.enter_async_context(hub.waiting(self.submission))
            return await waiting.over(policy, deadline=self.deadline, expected=self.expected)

    def _looks_at(self, store: str) -> tuple[Hashable, OpenStore]:
        """Which hub to share, and how it looks."""
        from airflow_provider_ai.runtime.job_service import open_jobs

        return ("submissions", store), partial(open_jobs, store)

    async def _settings(self) -> Any:
        # What settings are made of is not needed to parse a DAG, which imports this module.
        from airflow_provider_ai.triggers.job_connections import job_settings

        return await job_settings(self.transport_conn_id, self.store_conn_id)

    async def _runs_again(self) -> bool:
        """Whether the task goes on after this: it was cleared. When nobody can say, it does not: what is cancelled is
        submitted again by a task that does.
        """
        try:
            return await sync_to_async(self._state)() not in _WILL_NOT_RUN_AGAIN
        except Exception as error:  # noqa: BLE001 - no answer, whatever the reason
            self.log.warning("Cannot see what became of the task (%s)", type(error).__name__)
            return False

    def _state(self) -> str | None:
        from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

        ti: Any = self.task_instance
        states = RuntimeTaskInstance.get_task_states(
            dag_id=ti.dag_id,
            task_ids=[ti.task_id],
            run_ids=[ti.run_id],
            map_index=ti.map_index,
        )
        [state] = states[ti.run_id].values()
        return state  # type: ignore[no-any-return]


class AIJobTrigger(AIJobsTrigger):
    """The same for one job, whose id is the ``submission``."""

    def _looks_at(self, store: str) -> tuple[Hashable, OpenStore]:
        from airflow_provider_ai.runtime.job_service import open_single_jobs

        return ("jobs", store), partial(open_single_jobs, store)


def wait_event(submission: str, verdict: WaitVerdict) -> dict[str, Any]:
    """How a wait ended, as plain JSON values."""
    return {
        "submission": submission,
        "state": verdict.state.value,
        "reason": verdict.reason,
        "counts": asdict(verdict.counts),
    }


def verdict_of(event: dict[str, Any]) -> WaitVerdict:
    """The inverse of :func:`wait_event`."""
    return WaitVerdict(state=WaitState(event["state"]), counts=JobCounts(**event["counts"]), reason=event["reason"])
