"""A submitter in a process of its own, which dies by SIGKILL at a named moment.

``python -m tests.faults.support.submitting JSON``, an object with ``transport``, ``store``, ``claims``, ``key``,
``requests`` (how many), and ``die`` (one of the points below) with ``nth``, or no ``die`` at all.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Sequence
from typing import Any

from airflow_provider_ai.core.claim_settings import ClaimCheckSettings
from airflow_provider_ai.core.job_ports import OutgoingMessage
from airflow_provider_ai.core.jobs import Content, Job, NewJob
from airflow_provider_ai.core.transport_settings import TransportSettings
from airflow_provider_ai.patterns.request_reply import Submission, Submitter
from airflow_provider_ai.runtime.request_reply import open_job_client

GROUP = 20
INLINE_LIMIT = 200
POINTS = (
    "before a claim check",  # nothing of the group is there
    "after a claim check",  # an object that nothing refers to
    "before the rows",
    "after the rows",  # jobs without a message
    "half the messages",  # some of a send are in
    "after the messages",  # all are in, none is marked
    "after the mark",
)


def request(number: int) -> dict[str, Any]:
    """Every third is larger than a message may be."""
    return {"n": number, "text": "x" * (500 if number % 3 == 0 else 5)}


class Death:
    """Comes when a point is passed for the nth time, by whichever thread."""

    def __init__(self, point: str | None, nth: int) -> None:
        self._point = point
        self._left = nth
        self._lock = threading.Lock()

    def at(self, point: str) -> None:
        if point != self._point:
            return
        with self._lock:
            self._left -= 1
            if not self._left:
                os.kill(os.getpid(), signal.SIGKILL)


class Mortal:
    """A store, a queue or contents whose calls death looks at; everything else is the real one's."""

    def __init__(self, real: Any, death: Death) -> None:
        self._real = real
        self._death = death

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


class MortalStore(Mortal):
    def submit(self, jobs: Sequence[NewJob]) -> Sequence[Job]:
        self._death.at("before the rows")
        there: Sequence[Job] = self._real.submit(jobs)
        self._death.at("after the rows")
        return there

    def sent(self, job_ids: Sequence[str]) -> None:
        self._real.sent(job_ids)
        self._death.at("after the mark")


class MortalQueue(Mortal):
    def send(self, messages: Sequence[OutgoingMessage]) -> Sequence[str]:
        half = len(messages) // 2
        sent = [*self._real.send(messages[:half])] if half else []
        self._death.at("half the messages")
        sent += self._real.send(messages[half:])
        self._death.at("after the messages")
        return sent


class MortalContents(Mortal):
    def pack(self, data: bytes, *, kind: str, job_id: str, origin: str | None = None) -> Content:
        self._death.at("before a claim check")
        packed: Content = self._real.pack(data, kind=kind, job_id=job_id, origin=origin)
        if packed.ref is not None:
            self._death.at("after a claim check")
        return packed


def main(settings: dict[str, Any]) -> None:
    death = Death(settings.get("die"), settings.get("nth", 1))
    client = open_job_client(
        transport=TransportSettings(**settings["transport"]),
        store=settings["store"],
        claim_check=ClaimCheckSettings(uri=settings["claims"], inline_limit_bytes=INLINE_LIMIT),
    )
    submitter = Submitter(
        store=MortalStore(client.store, death),  # type: ignore[arg-type]
        queue=MortalQueue(client._queue, death),  # type: ignore[arg-type]
        contents=MortalContents(client.contents, death),
        group_size=GROUP,
    )
    done = submitter.submit(Submission(key=settings["key"]), map(request, range(settings["requests"])))
    print(json.dumps({"jobs": done.jobs, "sent": done.sent}))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
