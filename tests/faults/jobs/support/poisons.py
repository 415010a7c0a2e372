"""Messages that nobody can deal with: they end as dead letters, each with its reason, and end no job."""

from __future__ import annotations

from contextlib import suppress
from uuid import UUID, uuid4, uuid5

import orjson

from airflow_provider_ai.adapters.claim_checks import InlineOrClaimCheck
from airflow_provider_ai.core.job_claims import begun
from airflow_provider_ai.core.job_messages import request_message
from airflow_provider_ai.core.job_ports import OutgoingMessage
from airflow_provider_ai.core.jobs import Job, JobState, NewJob, Outcome
from airflow_provider_ai.core.messages import ResultMessage, encode_result
from airflow_provider_ai.exceptions import QueueUnavailableError, StoreUnavailableError
from tests.faults.jobs.support.pack import Pack
from tests.support.processes import wait_until

_NAMES = UUID(int=4)


class Poisons:
    """Messages of each submission's, once its jobs are in the store."""

    def __init__(self) -> None:
        self._given: set[str] = set()

    def give(self, jobs: Pack) -> None:
        """Put them into both queues, past the relay. A store or a queue that is down gets them another time."""
        for key in jobs.inputs:
            if f"wait-{key}" in jobs.processes and key not in self._given:
                with suppress(StoreUnavailableError, QueueUnavailableError):
                    poison(jobs, jobs.jobs(key)[7])
                    self._given.add(key)


def poison(jobs: Pack, known: Job) -> None:
    stranger = _job(uuid5(_NAMES, known.job_id).hex, 0, b'{"id": 9999}')
    other = _job(known.job_id, known.position, b'{"id": 8888}')
    bodies = [b"no message at all", _message(stranger, schema_version=99), _message(stranger), _message(other)]
    jobs.fleet.transport.requests.send([OutgoingMessage(key=uuid4().hex, body=body) for body in bodies])
    outcome = Outcome(state=JobState.FAILED, reason="made_up")
    reply = encode_result(ResultMessage(job_id=stranger.job_id, source="/x", time=1.0, fence=1, outcome=outcome))
    jobs.fleet.transport.results.send([OutgoingMessage(key=uuid4().hex, body=body) for body in (b"[]", reply)])


def check_poison(jobs: Pack) -> None:
    """All of it is kept with its reason, and ended no job."""
    letters = jobs.fleet.opened.dead_letters()

    def reasons() -> list[str]:
        return sorted(letter.reason for letter in letters.letters(most=100))

    # "no message at all" and "[]" are the same message from everyone, and so one letter each.
    wanted = ["not_an_event", "not_json", *2 * ["payload_mismatch", "unknown_job", "unknown_schema"]]
    wait_until(lambda: len(reasons()) >= len(wanted), deadline_seconds=30, what="dead letters are kept")
    assert reasons() == sorted(wanted)


def _job(job_id: str, position: int, payload: bytes) -> Job:
    packed = InlineOrClaimCheck(None).pack(payload, kind="payload", job_id=job_id)
    return begun(NewJob(job_id=job_id, submission="none", position=position, payload=packed))


def _message(job: Job, *, schema_version: int = 1) -> bytes:
    event = orjson.loads(request_message(job, now=1.0).body)
    event["data"]["schema_version"] = schema_version
    return orjson.dumps(event)
