"""Replies in order, a page at a time."""

from __future__ import annotations

import pytest

from airflow_provider_ai.core.jobs import JobState, job_id
from airflow_provider_ai.patterns import collecting
from airflow_provider_ai.patterns.collecting import collect, count_reasons, failures
from airflow_provider_ai.patterns.request_reply import Submission, Submitter
from tests.patterns.jobs import Contents, Deployment


def finished(*outputs: object, inline_limit: int = 65_536) -> Deployment:
    to = Deployment(contents=Contents(inline_limit=inline_limit))
    sender = Submitter(store=to.store, queue=to.queue, contents=to.contents)
    sender.submit(Submission(key="s"), [{"n": n} for n in range(len(outputs))])
    to.finish("s", outputs)
    to.contents.unpacked.clear()
    return to


@pytest.mark.parametrize("inline_limit", [0, 65_536])
@pytest.mark.parametrize("page", [1, 3, 500])
def test_replies_come_in_order(inline_limit: int, page: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever their sizes: claim checks are fetched, in order as well."""
    monkeypatch.setattr(collecting, "_PAGE", page)
    outputs = [{"priority": n} for n in range(10)]
    to = finished(*outputs, inline_limit=inline_limit)
    found = list(collect(to.store, to.contents, "s"))
    assert [reply.output for reply in found] == outputs
    assert [reply.position for reply in found] == list(range(10))
    assert [reply.job_id for reply in found] == [job_id("s", n) for n in range(10)]
    assert bool(to.contents.claims.objects) is (inline_limit == 0)


def test_a_range_is_looked_into_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing outside of it is unpacked."""
    monkeypatch.setattr(collecting, "_PAGE", 4)
    to = finished(*range(20))
    assert [reply.output for reply in collect(to.store, to.contents, "s", start=5, end=11)] == [5, 6, 7, 8, 9, 10]
    assert to.contents.unpacked == [job_id("s", n) for n in range(5, 11)]


def test_nothing_is_held_beyond_a_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first reply comes when one page is read."""
    monkeypatch.setattr(collecting, "_PAGE", 5)
    to = finished(*range(20), inline_limit=0)
    next(collect(to.store, to.contents, "s"))
    assert len(to.contents.unpacked) <= 5


def test_jobs_without_a_result_have_a_reason_in_its_place() -> None:
    """They keep their position; pending ones are not there."""
    to = finished({"x": 1}, JobState.FAILED, JobState.EXPIRED, None)
    lines = [reply.to_dict() for reply in collect(to.store, to.contents, "s")]
    assert lines == [
        {"position": 0, "job_id": job_id("s", 0), "status": "succeeded", "output": {"x": 1}},
        {"position": 1, "job_id": job_id("s", 1), "status": "failed", "reason": "was_failed"},
        {"position": 2, "job_id": job_id("s", 2), "status": "expired", "reason": "was_expired"},
        {"position": 3, "job_id": job_id("s", 3), "status": "succeeded", "output": None},
    ]
    assert list(collect(to.store, to.contents, "another")) == []


def test_failures_are_listed_by_themselves() -> None:
    """Without a look at any output."""
    to = finished(1, JobState.FAILED, 2, JobState.FAILED, JobState.EXPIRED)
    assert [(each.position, each.reason) for each in failures(to.store, "s")] == [
        (1, "was_failed"),
        (3, "was_failed"),
        (4, "was_expired"),
    ]
    assert list(count_reasons(to.store, "s").items()) == [("was_failed", 2), ("was_expired", 1)]
    assert to.contents.unpacked == []
