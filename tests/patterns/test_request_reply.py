"""Submitting requests and waiting for them, on a store and a queue in memory."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest

from airflow_provider_ai.core.job_ports import OutgoingMessage
from airflow_provider_ai.core.job_waiting import WaitPolicy, WaitState
from airflow_provider_ai.core.jobs import JobCounts, JobState, job_id
from airflow_provider_ai.core.manifest import FileSlice, Manifest, Partition, SourceFile
from airflow_provider_ai.core.report import StopToken
from airflow_provider_ai.exceptions import (
    InputError,
    JobMismatchError,
    QueueUnavailableError,
    StoppedError,
    StoreUnavailableError,
)
from airflow_provider_ai.patterns import patience
from airflow_provider_ai.patterns.request_reply import Submission, Submitted, Submitter, dataset_requests, wait
from airflow_provider_ai.testing import BlockReader, InMemoryQueue
from tests.patterns.jobs import Contents, Deployment

ONE = Submission(key="s")


def submitter(to: Deployment, **settings: Any) -> Submitter:
    return Submitter(store=to.store, queue=to.queue, contents=to.contents, **settings)


def requests(count: int) -> list[dict[str, int]]:
    return [{"n": n} for n in range(count)]


def ids(count: int, **given: Any) -> list[str]:
    return [job_id("s", position, **given) for position in range(count)]


@pytest.fixture
def to() -> Deployment:
    return Deployment()


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trying again takes no time, and a minute is over soon."""
    monkeypatch.setattr(patience, "_FIRST_SECONDS", 0.001)
    monkeypatch.setattr(patience, "_LONGEST_SECONDS", 0.01)
    monkeypatch.setattr(patience, "PATIENCE_SECONDS", 0.5)


@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 500])
def test_every_request_is_one_job_and_one_message(to: Deployment, count: int) -> None:
    """In their order, whatever the groups and lanes; the ids are told in that order, too."""
    told: list[str] = []
    done = submitter(to, group_size=4, lanes=3).submit(ONE, requests(count), on_submitted=told.extend)
    assert done == Submitted(count, count)
    jobs = to.store.jobs("s", most=1000)
    assert [job.job_id for job in jobs] == ids(count) == told
    assert Counter(to.messages()) == Counter(ids(count))
    assert all(job.sent and job.state is JobState.PENDING for job in jobs)
    payloads = [to.contents.unpack(job.payload, kind="payload", job_id=job.job_id) for job in jobs]
    assert payloads == [b'{"n":%d}' % n for n in range(count)]


def test_a_second_submit_re_attaches(to: Deployment) -> None:
    """Nothing is inserted, nothing is sent, whatever became of the jobs meanwhile."""
    submitter(to).submit(ONE, requests(20))
    to.store.cancel("s")
    again = submitter(to, group_size=3).submit(ONE, requests(20))
    assert again == Submitted(20, 0)
    assert len(to.messages()) == 20


def test_equal_requests_are_the_same_whatever_the_order_of_their_keys(to: Deployment) -> None:
    """The id is bound to what is asked, not to how it was written down."""
    submitter(to).submit(ONE, [{"a": 1, "b": {"c": 2, "d": 3}}])
    assert submitter(to).submit(ONE, [{"b": {"d": 3, "c": 2}, "a": 1}]) == Submitted(1, 0)


def test_only_what_was_never_sent_is_sent(to: Deployment) -> None:
    """Jobs that are in the store without a message get theirs."""
    first = submitter(to, group_size=2)
    first.submit(ONE, requests(4))
    to.queue.delete(to.queue.receive(most=10, wait_seconds=0, visibility_seconds=60))
    lost = to.store.jobs("s")[1]
    to.store._rows[lost.job_id].job = replace(lost, sent=False)
    assert submitter(to).submit(ONE, requests(4)) == Submitted(4, 1)
    assert to.messages() == [lost.job_id]


def test_more_requests_make_more_jobs(to: Deployment) -> None:
    """An input that has grown at its end adds the others."""
    submitter(to).submit(ONE, requests(3))
    assert submitter(to).submit(ONE, requests(5)) == Submitted(5, 2)


def test_fewer_requests_are_an_error(to: Deployment) -> None:
    """Somebody would wait for jobs that nobody asks for any more."""
    submitter(to).submit(ONE, requests(5))
    with pytest.raises(JobMismatchError, match="more jobs than the 3 requests"):
        submitter(to).submit(ONE, requests(3))


def test_a_changed_request_is_an_error_and_spoils_nothing(to: Deployment) -> None:
    """Also when both are claim checks: what the first one's job refers to stays as it was."""
    to.contents = Contents(inline_limit=0)
    submitter(to).submit(ONE, requests(2))
    with pytest.raises(JobMismatchError):
        submitter(to).submit(ONE, [{"n": 0}, {"n": "changed"}])
    payloads = [to.contents.unpack(job.payload, kind="payload", job_id="") for job in to.store.jobs("s")]
    assert payloads == [b'{"n":0}', b'{"n":1}']
    assert len(to.messages()) == 2


def test_another_generation_is_other_jobs(to: Deployment) -> None:
    """The latest of each position is the one that counts."""
    submitter(to).submit(ONE, requests(2))
    again = Submission(key="s", generation=1)
    assert submitter(to).submit(again, requests(2)) == Submitted(2, 2)
    assert [job.job_id for job in to.store.jobs("s")] == ids(2, generation=1)


def test_what_a_submission_says_is_on_every_job(to: Deployment) -> None:
    """Deadline, tenant, webhook and the queue it went to; a second submit does not move the deadline."""
    given = Submission(key="s", expires_at=2e9, group="tenant", webhook=True)
    to.queue.name = "requests-of-mine"
    submitter(to).submit(given, requests(2))
    submitter(to).submit(Submission(key="s", expires_at=3e9), requests(2))
    jobs = to.store.jobs("s")
    assert {(job.expires_at, job.group, job.webhook) for job in jobs} == {(2e9, "tenant", True)}
    assert {job.queue for job in jobs} == {"requests-of-mine"}


@pytest.mark.parametrize("bad", [object(), {1: "a"}, {"x": {2, 3}}])
def test_a_request_without_a_json_form_is_an_error(to: Deployment, bad: object) -> None:
    """It is named by its number; nothing of it is quoted."""
    with pytest.raises(InputError, match=r"request 3 \(they count from 0\) has no JSON form") as error:
        submitter(to).submit(ONE, [*requests(3), bad])
    assert "object at" not in str(error.value)
    assert "{" not in str(error.value)


def test_memory_is_bounded_by_lanes_and_groups(to: Deployment) -> None:
    """An endless input is read no further than a few groups ahead of what is submitted."""
    ahead: list[int] = []
    submitted = 0

    def endless() -> Iterator[dict[str, int]]:
        for n in range(5_000):
            ahead.append(n - submitted)
            yield {"n": n}

    def note(group: Sequence[str]) -> None:
        nonlocal submitted
        submitted += len(group)

    submitter(to, group_size=10, lanes=2).submit(ONE, endless(), on_submitted=note)
    assert submitted == 5_000
    assert max(ahead) <= 10 * (2 + 2)


def test_large_payloads_make_small_groups(to: Deployment) -> None:
    """A group holds about 4 MiB, however many jobs it could."""
    groups: list[int] = []
    text = "x" * (1 << 20)
    submitter(to).submit(ONE, ({"t": text} for _ in range(9)), on_submitted=lambda group: groups.append(len(group)))
    assert groups == [4, 4, 1]


class Flaky(InMemoryQueue):
    """Takes some messages of a send, or none, as a seed decides."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self._decide = random.Random(seed)

    def send(self, messages: Sequence[OutgoingMessage]) -> Sequence[str]:
        if self._decide.random() < 0.3:
            raise QueueUnavailableError("throttled")
        return super().send([message for message in messages if self._decide.random() < 0.5])


@pytest.mark.usefixtures("hurried")
def test_messages_that_were_not_taken_are_sent_again(to: Deployment, seed: int) -> None:
    """Each is taken once, for those that were are known by their keys."""
    to.queue = Flaky(seed)
    assert submitter(to, group_size=20).submit(ONE, requests(100)) == Submitted(100, 100)
    assert Counter(to.messages()) == Counter(ids(100))


@pytest.mark.usefixtures("hurried")
@pytest.mark.parametrize(("part", "error"), [("queue", QueueUnavailableError), ("store", StoreUnavailableError)])
def test_an_outage_is_borne_for_a_while(to: Deployment, part: str, error: type[Exception]) -> None:
    """A short one costs time only; after a long one the same call goes on where it stood."""
    outage = getattr(to, part)
    outage.available = False
    threading.Timer(0.1, setattr, (outage, "available", True)).start()
    assert submitter(to).submit(ONE, requests(5)).jobs == 5
    outage.available = False
    with pytest.raises(error):
        submitter(to).submit(Submission(key="t"), requests(5))
    outage.available = True
    assert submitter(to).submit(Submission(key="t"), requests(5)) == Submitted(5, 5)
    assert len(to.messages()) == 10


def test_a_message_that_is_never_taken_ends_its_job(to: Deployment) -> None:
    """Whoever waits hears of it; the others of its group are sent."""
    to.queue = InMemoryQueue(largest_bytes=1000)
    submitter(to).submit(ONE, [{"t": "x" * (1000 if n == 1 else 10)} for n in range(3)])
    states = [(job.state, job.reason) for job in to.store.jobs("s")]
    assert states == [(JobState.PENDING, None), (JobState.FAILED, "request_refused"), (JobState.PENDING, None)]
    assert len(to.messages()) == 2


def test_a_stop_leaves_what_a_retry_completes(to: Deployment) -> None:
    """SIGTERM in the middle: no more is begun, and the same call goes on."""
    stop = StopToken()

    def given() -> Iterator[dict[str, int]]:
        for n in range(1000):
            if n == 500:
                stop.stop("SIGTERM")
            yield {"n": n}

    with pytest.raises(StoppedError, match="SIGTERM"):
        submitter(to, group_size=10).submit(ONE, given(), stop=stop)
    assert 0 < len(to.messages()) <= 500
    submitter(to).submit(ONE, requests(1000))
    assert Counter(to.messages()) == Counter(ids(1000))


def test_two_submitters_at_once_make_one_submission(to: Deployment) -> None:
    """Each job is one row; its message may be there twice, never not at all."""
    with_two = [threading.Thread(target=submitter(to, group_size=7).submit, args=(ONE, requests(300))) for _ in "ab"]
    for thread in with_two:
        thread.start()
    for thread in with_two:
        thread.join()
    assert [job.job_id for job in to.store.jobs("s")] == ids(300)
    assert set(to.messages()) == set(ids(300))


def test_rows_of_a_dataset_are_requests_in_its_order() -> None:
    """Partition after partition."""
    records = [{"id": n} for n in range(10)]
    manifest = Manifest(
        input_uri="in",
        format="jsonl",
        id_column="id",
        schema=(("id", "int64"),),
        files=(SourceFile(path="f", size=1, version="1", rows=10),),
        partitions=(
            Partition(index=0, slices=(FileSlice(file=0, start=0, end=6),)),
            Partition(index=1, slices=(FileSlice(file=0, start=6, end=10),)),
        ),
        listing="l",
    )
    reader = BlockReader([records], block_rows=4)
    assert list(dataset_requests(reader, manifest)) == records


# --- waiting


class Ends:
    """Counts that change with every look; the last one stays."""

    def __init__(self, *looks: JobCounts | Exception) -> None:
        self._looks = list(looks)

    def counts(self, submissions: Sequence[str]) -> dict[str, JobCounts]:
        look = self._looks.pop(0) if len(self._looks) > 1 else self._looks[0]
        if isinstance(look, Exception):
            raise look
        return {"s": look}


PENDING = JobCounts(jobs=2, pending=1, completed=1)
DOWN = StoreUnavailableError("down")


class Now:
    """A clock that each wait moves on."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Jumps(StopToken):
    """Waits by moving a clock."""

    def __init__(self, clock: Now) -> None:
        super().__init__()
        self._clock = clock

    def wait(self, seconds: float) -> bool:
        assert seconds > 0
        self._clock.now += seconds
        return self.stopped


def waited(store: Ends, **given: Any) -> Any:
    clock = Now()
    verdict = wait(store, "s", WaitPolicy(), clock=clock, stop=Jumps(clock), **given)
    return verdict.state, verdict.reason, clock.now - 1000.0


def test_a_wait_ends_with_the_jobs() -> None:
    """An outage of the store in between is no ending."""
    seen: list[JobCounts] = []
    done = JobCounts(jobs=2, completed=2)
    state, _, took = waited(Ends(PENDING, PENDING, DOWN, DOWN, done), on_look=seen.append)
    assert (state, seen) == (WaitState.COMPLETE, [PENDING, PENDING, done])
    assert took == pytest.approx(1.0)


def test_a_wait_ends_at_its_deadline() -> None:
    """With a look at that moment."""
    assert waited(Ends(PENDING), deadline=1100.0) == (WaitState.TIMED_OUT, "deadline", 100.0)


def test_a_wait_ends_though_the_store_stays_down() -> None:
    """Half a minute after the deadline, or after it began when the deadline was over before."""
    state, reason, took = waited(Ends(DOWN), deadline=1100.0)
    assert (state, reason) == (WaitState.TIMED_OUT, "store_unavailable")
    assert 130.0 <= took < 136.0
    state, _, took = waited(Ends(DOWN), deadline=0.0)
    assert state is WaitState.TIMED_OUT
    assert 30.0 <= took < 36.0


def test_a_wait_can_be_stopped() -> None:
    """At once, by a signal's handler."""
    stop = StopToken()
    threading.Timer(0.1, stop.stop, ["SIGTERM"]).start()
    started = time.monotonic()
    with pytest.raises(StoppedError):
        wait(Ends(PENDING), "s", WaitPolicy(), stop=stop)
    assert time.monotonic() - started < 5
