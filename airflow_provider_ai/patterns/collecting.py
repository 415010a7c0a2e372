"""Collect the replies of a submission: from the inbox, in order of position, a page at a time.

What is collected is what was recorded, however often it is collected and by whom: nothing is consumed. Replies that are
claim checks are fetched side by side, a page's worth at most.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import orjson

from airflow_provider_ai.core.job_ports import Arrival, ContentCodec, JobStore
from airflow_provider_ai.core.jobs import JobState

RESULT = "result"
_PAGE = 500
_FETCHERS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectedReply:
    """How one request was answered.

    :param position: of the request in its submission, from 0
    :param state: a final one
    :param output: of a job that succeeded: a JSON value
    :param reason: of one that did not: a word, never data
    :param model: what gave the output, as its worker says: the endpoint's model, or the handler function
    :param sha256: of the output's bytes
    :param arrived_at: epoch seconds
    """

    position: int
    job_id: str
    state: JobState
    arrived_at: float
    output: Any = None
    reason: str | None = None
    model: str | None = None
    sha256: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values: ``output`` of a job that succeeded, ``reason`` of one that did not."""
        rest = {"output": self.output} if self.state is JobState.SUCCEEDED else {"reason": self.reason}
        return {"position": self.position, "job_id": self.job_id, "status": self.state.value, **rest}


def collect(
    store: JobStore, contents: ContentCodec, submission: str, *, start: int = 0, end: int | None = None
) -> Iterator[CollectedReply]:
    """The replies at the positions ``[start, end)`` of a submission that have arrived, in order.

    :raises ClaimCheckError: when a reply is not there any more as it was stored
    """
    with ThreadPoolExecutor(_FETCHERS, thread_name_prefix="ai-collect") as pool:
        for page in _pages(store, submission, start, end):
            if any(arrival.outcome.content and arrival.outcome.content.ref for arrival in page):
                yield from pool.map(lambda arrival: _reply(contents, arrival), page)
            else:
                yield from (_reply(contents, arrival) for arrival in page)


def failures(store: JobStore, submission: str) -> Iterator[CollectedReply]:
    """The jobs that ended without a result, in order: their reasons only."""
    for page in _pages(store, submission, 0, None):
        yield from (_without_output(arrival) for arrival in page if arrival.outcome.state is not JobState.SUCCEEDED)


def count_reasons(store: JobStore, submission: str) -> dict[str, int]:
    """How many jobs ended without a result, by reason, most frequent first."""
    reasons = Counter(failure.reason or failure.state.value for failure in failures(store, submission))
    return dict(sorted(reasons.items(), key=lambda item: (-item[1], item[0])))


def _pages(store: JobStore, submission: str, start: int, end: int | None) -> Iterator[list[Arrival]]:
    after = start - 1
    while found := store.arrivals(submission, after=after, most=_PAGE):
        page = [arrival for arrival in found if end is None or arrival.position < end]
        if page:
            yield page
        if len(page) < len(found):
            return
        after = found[-1].position


def _reply(contents: ContentCodec, arrival: Arrival) -> CollectedReply:
    content = arrival.outcome.content
    if arrival.outcome.state is not JobState.SUCCEEDED or content is None:
        return _without_output(arrival)
    return CollectedReply(
        position=arrival.position,
        job_id=arrival.job_id,
        state=arrival.outcome.state,
        arrived_at=arrival.arrived_at,
        output=orjson.loads(contents.unpack(content, kind=RESULT, job_id=arrival.job_id)),
        model=arrival.outcome.model,
        sha256=content.sha256,
    )


def _without_output(arrival: Arrival) -> CollectedReply:
    return CollectedReply(
        position=arrival.position,
        job_id=arrival.job_id,
        state=arrival.outcome.state,
        arrived_at=arrival.arrived_at,
        reason=arrival.outcome.reason,
    )
