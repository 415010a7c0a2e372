"""What a worker does next: every answer to a claim, every ending of a try, every recorded outcome."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_ai.core import job_reasons
from airflow_provider_ai.core.dispatch_decisions import letter_id, to_resend
from airflow_provider_ai.core.job_decisions import (
    ABANDON,
    DELETE,
    HELD_MARGIN_SECONDS,
    LEAST_PAUSE_SECONDS,
    RUN,
    Fate,
    Move,
    Patience,
    Step,
    Tries,
    after_claim,
    after_recording,
    after_try,
)
from airflow_provider_ai.core.job_handling import Ending, EndingKind
from airflow_provider_ai.core.jobs import Claim, ClaimRefusal, Content, Job, JobState, Outcome

RESULT = Content(sha256="0" * 64, inline=b"1")
SUCCEEDED = Outcome(state=JobState.SUCCEEDED, content=RESULT)
FAILED = Outcome(state=JobState.FAILED, reason="timeout")
EXPIRED = Outcome(state=JobState.EXPIRED, reason="expired")
CANCELLED = Outcome(state=JobState.CANCELLED, reason="cancelled")
PATIENCE = Patience(max_attempts=3, base_seconds=1.0, cap_seconds=60.0, wait_seconds=100.0)


def job(outcome: Outcome | None = None, *, name: str = "job", sent: bool = True) -> Job:
    return Job(
        job_id=name,
        submission="submission",
        position=0,
        generation=0,
        state=JobState.PENDING if outcome is None else outcome.state,
        payload=RESULT,
        attempts=1,
        fence=1,
        expires_at=None,
        sent=sent,
        result=None if outcome is None else outcome.content,
        reason=None if outcome is None else outcome.reason,
    )


@pytest.mark.parametrize(
    ("refusal", "outcome", "step"),
    [
        (None, None, RUN),
        (ClaimRefusal.FINISHED, SUCCEEDED, Step(fate=Fate.DELETE, publish=SUCCEEDED)),  # told again
        (ClaimRefusal.FINISHED, FAILED, Step(fate=Fate.BURY, publish=FAILED, reason="timeout")),
        (ClaimRefusal.FINISHED, EXPIRED, Step(fate=Fate.DELETE, publish=EXPIRED)),
        (ClaimRefusal.EXPIRED, EXPIRED, Step(fate=Fate.DELETE, publish=EXPIRED)),
        (ClaimRefusal.EXHAUSTED, FAILED, Step(fate=Fate.BURY, publish=FAILED, reason="timeout")),
        (ClaimRefusal.CANCELLED, CANCELLED, DELETE),  # nobody waits for it
        (ClaimRefusal.MISMATCH, None, Step(fate=Fate.BURY, reason="payload_mismatch")),
    ],
)  # fmt: skip
def test_every_answer_to_a_claim_has_one_consequence(
    refusal: ClaimRefusal | None, outcome: Outcome | None, step: Step
) -> None:
    """What is recorded is published before the message goes; what is not ours to do is never deleted."""
    assert after_claim(Claim(refusal=refusal, job=job(outcome), fence=1), lease_seconds=30) == step


def test_a_message_of_no_job_is_put_aside() -> None:
    """There is nothing to publish an outcome of."""
    step = after_claim(Claim(refusal=ClaimRefusal.UNKNOWN, job=None), lease_seconds=30)
    assert step == Step(fate=Fate.BURY, reason="unknown_job")


@pytest.mark.parametrize(("left", "seconds"), [(12.0, 12.0), (None, 30.0)])
def test_a_message_of_a_held_job_is_left_until_after_the_lease(left: float | None, seconds: float) -> None:
    """Until the lease's end where it is known, else for as long as leases last."""
    claim = Claim(refusal=ClaimRefusal.HELD, job=job(), held_seconds=left)
    assert after_claim(claim, lease_seconds=30) == Step(fate=Fate.LEAVE, seconds=seconds + HELD_MARGIN_SECONDS)


def test_a_job_that_somebody_else_has_now_is_let_alone() -> None:
    """No outcome is recorded: the message may be what the other one will delete."""
    assert after_recording(None) == ABANDON


@pytest.mark.parametrize(
    ("kind", "attempts", "move", "state", "counts"),
    [
        (EndingKind.DONE, 1, Move.RECORD, JobState.SUCCEEDED, True),
        (EndingKind.DONE, 3, Move.RECORD, JobState.SUCCEEDED, True),
        (EndingKind.REJECTED, 1, Move.RECORD, JobState.FAILED, True),
        (EndingKind.RETRY, 1, Move.GIVE_BACK, JobState.PENDING, True),
        (EndingKind.RETRY, 3, Move.RECORD, JobState.FAILED, True),   # the last attempt
        (EndingKind.LATER, 1, Move.WAIT, JobState.PENDING, False),
        (EndingKind.LATER, 3, Move.WAIT, JobState.PENDING, False),   # it does not count, so it is not the last one
    ],
)  # fmt: skip
def test_every_ending_of_a_try_has_one_consequence(
    kind: EndingKind, attempts: int, move: Move, state: JobState, counts: bool
) -> None:
    """Attempts are used up by failures only, and the last one's reason is the job's."""
    found = after_try(Ending(kind=kind, reason="word"), Tries(attempts=attempts, put_off=1), PATIENCE, random=0.5)
    assert (found.move, found.state, found.counts) == (move, state, counts)
    assert found.reason == (None if state is JobState.SUCCEEDED else "word")


def test_a_job_that_is_not_let_in_goes_back_when_it_has_waited_long_enough() -> None:
    """Its attempt is given back with it."""
    ending = Ending(kind=EndingKind.LATER, reason="throttled")
    found = after_try(ending, Tries(attempts=1, put_off=9, waited_seconds=100.0), PATIENCE, random=0.5)
    assert (found.move, found.counts) == (Move.GIVE_BACK, False)


@given(
    kind=st.sampled_from([EndingKind.RETRY, EndingKind.LATER]),
    attempts=st.integers(1, 2),
    put_off=st.integers(1, 2000),
    waited=st.floats(0, 200),
    asked=st.none() | st.floats(0, 3600),
    random=st.floats(0, 1, exclude_max=True),
)
def test_pauses_are_as_long_as_asked_and_never_nothing_in_hand(
    kind: EndingKind, attempts: int, put_off: int, waited: float, asked: float | None, random: float
) -> None:
    """A job that is kept is not tried again at once, nor waited for beyond the patience; one that goes back waits as
    long as the endpoint asked for.
    """
    ending = Ending(kind=kind, reason="word", retry_after_seconds=asked)
    tries = Tries(attempts=attempts, put_off=put_off, waited_seconds=waited)
    found = after_try(ending, tries, PATIENCE, random=random)
    if found.move is Move.WAIT:
        assert LEAST_PAUSE_SECONDS <= found.seconds <= max(PATIENCE.wait_seconds - waited, LEAST_PAUSE_SECONDS)
    else:
        assert found.seconds >= (asked or 0.0)
        assert found.seconds <= max(asked or 0.0, PATIENCE.cap_seconds)


# --- dispatcher


def test_requests_are_sent_again_when_the_queue_cannot_hold_them() -> None:
    """Those never sent always; the others only when there are more of them than messages."""
    never, some = job(name="never", sent=False), [job(name=str(number)) for number in range(3)]
    assert to_resend([some[0], never, *some[1:]], queued=2) == [never, *some]
    assert to_resend([some[0], never, *some[1:]], queued=3) == [never]
    assert to_resend([], queued=0) == []


def test_a_letter_is_named_by_its_message_and_its_reason() -> None:
    """The same message put aside twice is one letter; for another reason it is another."""
    assert letter_id(b"message", "timeout") == letter_id(b"message", "timeout")
    assert (
        len({letter_id(b"message", "timeout"), letter_id(b"message", "expired"), letter_id(b"other", "timeout")}) == 3
    )


@pytest.mark.parametrize(
    ("reason", "ends"),
    [
        ("timeout", True),
        ("too_many_receives", True),
        ("unknown_schema", True),      # the submitter is newer than its workers: sending it again cannot help
        ("payload_mismatch", False),   # somebody else's message: the job's own is still to come
        ("wrong_hash", False),
        ("unknown_job", False),
    ],
)  # fmt: skip
def test_only_a_jobs_own_message_ends_it(reason: str, ends: bool) -> None:
    """A dead letter that is not what was submitted says nothing of the job."""
    assert job_reasons.ends_job(reason) is ends


@pytest.mark.parametrize(
    ("given_reason", "kept"),
    [("quota", "quota"), ("bad input: Mrs Smith", "handler_error"), ("", "handler_error"), (7, "handler_error")],
)
def test_only_words_of_foreign_code_are_kept(given_reason: object, kept: str) -> None:
    """A sentence may quote data."""
    assert job_reasons.word(given_reason) == kept
