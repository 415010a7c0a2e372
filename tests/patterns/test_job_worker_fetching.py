"""How a worker fetches when its queue takes a while to answer, on a virtual clock."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from airflow_provider_ai.core.job_ports import Delivery
from airflow_provider_ai.patterns.worker_ports import WorkerPorts
from tests.patterns.job_harness import Scene, done, now, play, taking

LOOK_SECONDS, JOB_SECONDS, SLOTS, JOBS = 0.02, 0.05, 64, 3200


@pytest.fixture
def slow_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    """Messages arrive a while after they are asked for."""
    receive = WorkerPorts.receive

    async def slowly(ports: WorkerPorts, **asked: Any) -> Sequence[Delivery]:
        found = await receive(ports, **asked)
        await asyncio.sleep(LOOK_SECONDS)
        return found

    monkeypatch.setattr(WorkerPorts, "receive", slowly)


@pytest.mark.usefixtures("slow_queue")
def test_slots_are_not_idle_for_the_time_of_a_look_between_jobs() -> None:
    """Messages for slots that will be free when they arrive are under way; no more handlers than slots run."""

    async def main() -> None:
        scene = Scene(concurrency=SLOTS)
        scene.submit(JOBS)
        scene.handler.script = taking(JOB_SECONDS)
        began = now()
        scene.start()
        await scene.until(scene.all_final)
        seconds = now() - began
        await scene.stop_all()
        assert scene.handler.peak == SLOTS
        assert set(scene.handler.calls.values()) == {1}
        idle = 1 - JOBS / SLOTS * JOB_SECONDS / seconds
        assert idle < 0.10, f"{idle:.0%} idle; 29 % would be a look's share of the time"

    play(main)


@pytest.mark.usefixtures("slow_queue")
def test_messages_whose_slot_does_not_become_free_go_to_other_workers_at_once() -> None:
    """A handler that suddenly takes long keeps nothing but what it works on."""

    async def main() -> None:
        scene = Scene(concurrency=SLOTS)
        scene.submit(JOBS)
        quick, slow = taking(JOB_SECONDS), taking(60.0)
        scene.handler.script = lambda job: (quick if len(scene.handler.began) < JOBS // 2 else slow)(job)
        scene.start()
        await scene.until(lambda: len(scene.handler.began) >= JOBS // 2)
        await asyncio.sleep(5.0)
        assert scene.handler.running == SLOTS
        begun = len(scene.handler.began)
        assert len(scene.requests.peek(most=JOBS)) == JOBS - begun
        scene.handler.script = done
        await scene.until(scene.all_final)
        await scene.stop_all()
        assert set(scene.handler.calls.values()) == {1}

    play(main)
