"""Dead letters are looked at without payloads, redriven as new jobs exactly once, or thrown away."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from airflow_provider_ai.core.job_ports import OutgoingMessage
from airflow_provider_ai.core.jobs import JobState
from airflow_provider_ai.exceptions import QueueUnavailableError
from airflow_provider_ai.patterns.dead_letter_desk import DeadLetterDesk, Redriven
from airflow_provider_ai.patterns.dead_letters import SOURCE_QUEUE, dead_letter
from tests.patterns.test_dispatcher import SUBMISSION, Desk, done


class Office(Desk):
    """A desk for people, beside a dispatcher, with everything in memory."""

    def __init__(self) -> None:
        super().__init__()
        self.people = DeadLetterDesk(
            store=self.store,
            letters=self.letters,
            transport=self.transport,
            take=self.dispatcher.take_dead_letters,
            epoch=self.clock,
        )

    def bury_all(self, number: int, reason: str = "server_error") -> list[Any]:
        jobs = self.submit(number)
        for job in jobs:
            self.bury(job, reason)
        return jobs


@pytest.fixture
def office() -> Office:
    return Office()


def everything(letter: object) -> bool:
    return True


def test_a_redriven_job_is_a_new_one_that_knows_the_old(office: Office) -> None:
    """The next generation: pending, sent, without attempts; the letter is gone and the old job stays failed."""
    (job,) = office.bury_all(1)
    assert office.people.take_all() == 1
    office.clock.now += 1  # what is in the queues is visible
    assert office.people.redrive(everything) == Redriven(letters=1, jobs=1, sent=1, skipped=0)
    (anew,) = office.store.jobs(SUBMISSION)
    assert (anew.generation, anew.predecessor, anew.state) == (1, job.job_id, JobState.PENDING)
    assert (anew.attempts, anew.sent) == (0, True)
    assert anew.job_id in office.requested()
    old = office.store.job(job.job_id)
    assert old is not None
    assert (old.state, old.reason) == (JobState.FAILED, "server_error")
    assert list(office.people.letters()) == []


def test_redriving_again_makes_no_second_successor(office: Office) -> None:
    """Also when the same dead letter turns up once more."""
    (job,) = office.bury_all(1)
    office.people.take_all()
    office.people.redrive(everything)
    office.bury(job, "server_error")
    office.people.take_all()
    assert office.people.redrive(everything) == Redriven(letters=1, jobs=1, sent=0, skipped=0)
    assert [each.generation for each in office.store.jobs(SUBMISSION)] == [1]


def test_a_queue_that_is_down_loses_no_redrive(office: Office) -> None:
    """The jobs are in the store and the letters stay: the same command sends what was not sent."""
    office.bury_all(3)
    office.people.take_all()
    office.requests.available = False
    with pytest.raises(QueueUnavailableError):
        office.people.redrive(everything)
    office.requests.available = True
    assert len(list(office.people.letters())) == 3
    assert office.people.redrive(everything) == Redriven(letters=3, jobs=3, sent=3, skipped=0)


def test_only_what_was_chosen_is_redriven(office: Office) -> None:
    """By reason, or one by one."""
    jobs = office.submit(3)
    for job, reason in zip(jobs, ("timeout", "server_error", "timeout"), strict=True):
        office.bury(job, reason)
    office.people.take_all()
    assert office.people.redrive(lambda letter: letter.reason == "timeout").jobs == 2
    assert [letter.job_id for letter in office.people.letters()] == [jobs[1].job_id]


def test_what_cannot_be_redriven_stays(office: Office) -> None:
    """A malformed reply, a message without an id, and one whose job has succeeded since."""
    job, other = office.submit(2)
    delivery = office.request(job)
    dead_letter(office.results, office.dead, delivery, "wrong_outcome", job.job_id)
    dead_letter(office.requests, office.dead, office.request(other), "not_json", None)
    office.reply(job.job_id, done())
    office.dispatcher.take_results()
    office.people.take_all()
    redriven = office.people.redrive(everything)
    assert (redriven.letters, redriven.skipped + redriven.jobs) == (2, 2)
    assert redriven.skipped >= 1
    assert all(each.generation == 0 for each in office.store.jobs(SUBMISSION) if each.job_id == job.job_id)


def test_a_purge_removes_letters_and_leaves_jobs(office: Office) -> None:
    """They stay failed, with their reason."""
    jobs = office.bury_all(3)
    office.people.take_all()
    assert office.people.purge(lambda letter: letter.job_id != jobs[0].job_id) == 2
    assert len(list(office.people.letters())) == 1
    states = {each.state for each in office.store.jobs(SUBMISSION)}
    assert states == {JobState.FAILED}


def test_letters_of_other_deployments_are_not_touched(office: Office) -> None:
    """They share the store, and have people of their own; a letter that somebody put into our queue is ours."""
    office.bury_all(1)
    office.dead.send([OutgoingMessage(key="k", body=b"{}", attributes={SOURCE_QUEUE: "elsewhere", "reason": "odd"})])
    office.people.take_all()
    theirs = replace(office.letters.letters(most=1)[0], letter_id="f" * 32, source="requests-of-others")
    office.letters.keep([theirs])
    assert [letter.source for letter in office.people.letters()] == ["requests", "dead"]
    assert office.people.purge(everything) == 2
    assert [letter.letter_id for letter in office.letters.letters(most=9)] == [theirs.letter_id]


def test_letters_in_the_queue_are_seen_and_left(office: Office) -> None:
    """With their reasons; a dispatcher still gets them."""
    office.bury_all(4, "timeout")
    seen = office.people.queued(most=3)
    assert [letter.reason for letter in seen] == ["timeout"] * 3
    assert office.dead.depth() == 4


def test_more_letters_than_are_handled_at_once(office: Office) -> None:
    """None is left out, whatever the pages are."""
    office.bury_all(1203)
    office.people.take_all()
    assert office.people.redrive(everything) == Redriven(letters=1203, jobs=1203, sent=1203, skipped=0)
    assert list(office.people.letters()) == []
