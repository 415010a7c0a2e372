"""One synchronous call in a process of its own, and when its answer came: what `sync_hangs` starts hundreds of.

    python -m benchmarks.sync_case CASE_JSON   in this interpreter, which imports what the call needs during the call
    python -m benchmarks.sync_case             for each line on stdin, in a fork that finds everything imported

Each case ends as a line of JSON on stdout. A fork leaves as an interpreter does: exit handlers, threads, finalization.
The process that forks has one thread and no event loop, and sees the end of a child by its pidfd, at once.
"""

from __future__ import annotations

import json
import logging
import os
import selectors
import sys
import time
from dataclasses import asdict, dataclass
from typing import Any

from airflow_provider_ai.core.call_settings import BreakerSettings, CallSettings
from airflow_provider_ai.core.config import EndpointSettings, Protocol
from airflow_provider_ai.core.fallback import Static
from airflow_provider_ai.core.requests import JsonRequest, OpenInferenceRequest
from airflow_provider_ai.runtime.sync_call import SyncCaller

_NEVER_OPENS = BreakerSettings(minimum_calls=1_000_000)  # every case is to meet the server, not the breaker


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """One call.

    Args:
        url, protocol, path, ca_file: of the server; `path` for protocol `json`. Without a url there is no call: the
            case sleeps until its deadline, which shows what the machine does to a process that only waits.
        deadline_seconds: of the call.
        number: names the case in its report.
        store: URL of a store; None for none.
    """

    url: str
    deadline_seconds: float
    number: int = 0
    protocol: Protocol = "json"
    path: str = "/predict"
    ca_file: str | None = None
    store: str | None = None

    def line(self) -> str:
        """As JSON, for the process that plays it."""
        return json.dumps(asdict(self))


def play(case: Case) -> dict[str, Any]:
    """Make the call. `late_ms`: from its deadline to its answer, negative when the answer was earlier.

    `done` is monotonic time at the end of the work, from which the process's exit counts.
    """
    if not case.url:
        return _slept(case)
    caller = SyncCaller(
        endpoint=EndpointSettings(url=case.url, protocol=case.protocol, model="m", ca_file=case.ca_file),
        request=JsonRequest(path=case.path) if case.protocol == "json" else OpenInferenceRequest(),
        fallback=[Static({"priority": "routine"})],
        settings=CallSettings(deadline_seconds=case.deadline_seconds, breaker=_NEVER_OPENS),
        store=case.store,
    )
    began = time.monotonic()
    answer = caller.call({"x": 1.0})
    took = time.monotonic() - began
    whole = answer.degraded and answer.output == {"priority": "routine"}
    return {
        "number": case.number,
        "late_ms": (took - case.deadline_seconds) * 1000,
        "reason": answer.reason if whole else None,
        "sent": answer.attempts,
        "breaker": answer.breaker_state,
        "done": time.monotonic(),
    }


def _slept(case: Case) -> dict[str, Any]:
    began = time.monotonic()
    time.sleep(case.deadline_seconds)
    late = time.monotonic() - began - case.deadline_seconds
    return {"number": case.number, "late_ms": late * 1000, "done": time.monotonic()}


class _Forks:
    """The children under way, by pidfd."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._cases = open(0, "rb", buffering=0)  # noqa: SIM115 - a buffer would hide lines from the selector
        self._selector.register(self._cases, selectors.EVENT_READ)
        self._reports: dict[int, tuple[int, int]] = {}

    def next_case(self) -> Case | None:
        """The next case to fork for; ends children meanwhile. None when there are no more cases and no children."""
        reading = True
        while reading or self._reports:
            for key, _ in self._selector.select():
                if key.fileobj is self._cases:
                    if line := self._cases.readline():
                        return Case(**json.loads(line))
                    reading = False
                    self._selector.unregister(self._cases)
                else:
                    self._ended(key.fd)
        return None

    def started(self, pid: int, report: int) -> None:
        """A child was forked, which reports to a pipe."""
        watched = os.pidfd_open(pid)
        self._reports[watched] = (pid, report)
        self._selector.register(watched, selectors.EVENT_READ)

    def _ended(self, watched: int) -> None:
        now = time.monotonic()
        pid, report = self._reports.pop(watched)
        _, status = os.waitpid(pid, 0)
        self._selector.unregister(watched)
        os.close(watched)
        with os.fdopen(report) as pipe:
            told = json.loads(pipe.read() or "{}")
        exit_ms = (now - told.get("done", now)) * 1000
        print(json.dumps(told | {"exit_ms": exit_ms, "status": os.waitstatus_to_exitcode(status)}), flush=True)


def serve_forks() -> None:
    """Fork for each line on stdin, until it ends. In a child it returns when the child's case is reported."""
    forks = _Forks()
    while (case := forks.next_case()) is not None:
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(reader)
            with os.fdopen(writer, "w") as report:
                report.write(json.dumps(play(case)))
            return
        os.close(writer)
        forks.started(pid, reader)


def main() -> None:
    """Play the case on the command line, or fork for those on stdin."""
    logging.disable()  # that the answer is degraded is what is measured
    if len(sys.argv) > 1:
        print(json.dumps(play(Case(**json.loads(sys.argv[1])))), flush=True)
        return
    _import_everything()
    serve_forks()


def _import_everything() -> None:
    """What a first call would import."""
    import grpc.aio

    import airflow_provider_ai.adapters.endpoints.http

    assert airflow_provider_ai.adapters.endpoints.http
    assert grpc.aio


if __name__ == "__main__":
    main()
