"""Webhook deliveries beside the jobs, on a virtual clock: tried again, then parked; never in the way."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

from airflow_provider_ai.core.webhook_decisions import Delivered
from airflow_provider_ai.patterns.webhook_outbox import WebhookOutbox
from tests.patterns import virtual_time

DONE, AGAIN, REFUSED = Delivered(done=True), Delivered(again=True, detail="HTTP 503"), Delivered(detail="HTTP 401")


class Sender:
    """Each delivery takes a second; answers come from a script, the last one for ever."""

    def __init__(self, *answers: Delivered) -> None:
        self.answers = list(answers)
        self.sent: list[tuple[float, str]] = []
        self.under_way = self.peak = 0

    async def send(self, job_id: str, body: bytes) -> Delivered:
        self.sent.append((asyncio.get_running_loop().time(), job_id))
        self.under_way += 1
        self.peak = max(self.peak, self.under_way)
        try:
            await asyncio.sleep(1.0)
        finally:
            self.under_way -= 1
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


def play(main: Callable[[], Coroutine[Any, Any, None]]) -> float:
    outcome = virtual_time.Outcome()
    virtual_time.run(main(), outcome)
    return outcome.seconds


def outbox(sender: Sender, endings: Counter[str], **settings: Any) -> WebhookOutbox:
    chosen = {"concurrency": 4, "max_attempts": 5, "random": lambda: 0.5, **settings}
    return WebhookOutbox(sender, endings=endings, **chosen)


def ended(answers: Iterable[Delivered], jobs: int = 1, *, seconds: float = 1000.0) -> tuple[Sender, Counter[str]]:
    sender, endings = Sender(*answers), Counter[str]()

    async def main() -> None:
        box = outbox(sender, endings)
        for number in range(jobs):
            box.deliver(f"job-{number}", b"{}")
        await box.close(seconds=seconds)

    play(main)
    return sender, endings


def test_a_result_is_delivered_once_when_it_is_taken() -> None:
    """And counted."""
    sender, endings = ended([DONE])
    assert len(sender.sent) == 1
    assert endings == {"delivered": 1}


def test_a_receiver_in_trouble_is_asked_again_with_growing_pauses() -> None:
    """Until it takes it."""
    sender, endings = ended([AGAIN, AGAIN, AGAIN, DONE])
    gaps = [later[0] - sooner[0] for sooner, later in zip(sender.sent, sender.sent[1:], strict=False)]
    assert gaps == [1.5, 2.0, 3.0]
    assert endings == {"delivered": 1}


def test_retry_after_is_heeded() -> None:
    """The receiver knows best."""
    sender, _ = ended([Delivered(again=True, retry_after_seconds=30.0), DONE])
    assert sender.sent[1][0] - sender.sent[0][0] == 31.0


def test_what_is_refused_or_never_taken_is_parked() -> None:
    """A refusal at once, an outage after the last attempt."""
    sender, endings = ended([REFUSED])
    assert (len(sender.sent), endings) == (1, {"parked": 1})
    sender, endings = ended([AGAIN])
    assert (len(sender.sent), endings) == (5, {"parked": 1})


def test_so_many_go_out_at_a_time_and_no_more() -> None:
    """A pause between attempts takes no place."""
    sender, endings = ended([DONE], jobs=20)
    assert sender.peak == 4
    assert endings == {"delivered": 20}


def test_a_receiver_that_does_not_keep_up_gets_no_endless_queue() -> None:
    """Beyond a thousand results are parked at once: they arrive by the queue."""
    _, endings = ended([DONE], jobs=1010)
    assert endings == {"delivered": 1000, "parked": 10}


def test_a_worker_that_stops_does_not_wait_for_the_receiver() -> None:
    """Only for a moment."""
    sender, endings = Sender(AGAIN), Counter[str]()

    async def main() -> None:
        box = outbox(sender, endings, max_attempts=1000)
        box.deliver("job", b"{}")
        await box.close(seconds=2.0)

    assert play(main) == 2.0
    assert endings == {}
