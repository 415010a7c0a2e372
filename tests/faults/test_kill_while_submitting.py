"""``kill -9`` of a submitter, at named moments and at any: the same call again leaves each job once, and no job out."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_ai.adapters.queues import open_transport
from airflow_provider_ai.core.claim_settings import ClaimCheckSettings
from airflow_provider_ai.core.job_ports import Delivery
from airflow_provider_ai.core.jobs import JobState, job_id
from airflow_provider_ai.core.messages import decode_request
from airflow_provider_ai.core.requests.values import to_json
from airflow_provider_ai.core.transport_settings import TransportSettings
from airflow_provider_ai.runtime.request_reply import open_job_client
from tests.adapters.queues.conftest import create_sqs_queues, sqs_settings
from tests.faults.support.submitting import GROUP, INLINE_LIMIT, POINTS, request
from tests.support.ministack import MiniStack
from tests.support.processes import REPOSITORY, child_environment

REQUESTS = 7 * GROUP + 3
KEY = "s"


class Submissions:
    """Runs submitters, and looks at what they leave behind."""

    def __init__(self, folder: Path, transport: TransportSettings, requests: int = REQUESTS) -> None:
        self.transport = transport
        self.store = f"sqlite:///{folder}/store.db"
        self.claims = f"{folder}/claims/"
        self.requests = requests

    def start(self, **die: Any) -> subprocess.Popen[str]:
        settings = {
            "transport": {k: v for k, v in asdict(self.transport).items() if v is not None},
            "store": self.store,
            "claims": self.claims,
            "key": KEY,
            "requests": self.requests,
            **die,
        }
        return subprocess.Popen(
            [sys.executable, "-m", "tests.faults.support.submitting", json.dumps(settings)],
            cwd=REPOSITORY,
            env=child_environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def finish(self) -> dict[str, int]:
        """Run one to its end; what it says."""
        process = self.start()
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
        found: dict[str, int] = json.loads(out)
        return found

    def messages(self) -> list[Delivery]:
        """Everything in the queue, taken out."""
        queue = open_transport(self.transport).requests
        found: list[Delivery] = []
        while some := queue.receive(most=10, wait_seconds=1, visibility_seconds=600):
            found += some
            queue.delete(some)
        return found

    def verify(self) -> Counter[str]:
        """Each job is there once and marked; each has a message that says what the store says. How often each."""
        claim_check = ClaimCheckSettings(uri=self.claims, inline_limit_bytes=INLINE_LIMIT)
        with open_job_client(transport=self.transport, store=self.store, claim_check=claim_check) as client:
            jobs = client.store.jobs(KEY, most=10_000)
            expected = [job_id(KEY, position) for position in range(self.requests)]
            assert [job.job_id for job in jobs] == expected
            assert all(job.sent and job.state is JobState.PENDING for job in jobs)
            requests = [decode_request(message.body) for message in self.messages()]
            copies = Counter(message.job_id for message in requests)
            assert set(copies) == set(expected)
            numbers = {name: number for number, name in enumerate(expected)}
            for message in requests:
                data = client.contents.unpack(message.payload, kind="payload", job_id=message.job_id)
                assert data == to_json(request(numbers[message.job_id]), sort_keys=True)
        return copies


@pytest.fixture
def submissions(tmp_path: Path, ministack_server: MiniStack) -> Submissions:
    settings = sqs_settings(ministack_server)
    create_sqs_queues(ministack_server, settings)
    return Submissions(tmp_path, settings)


def test_killed_at_every_point_and_then_finished(submissions: Submissions, seed: int) -> None:
    """One after the other, each amid the debris of those before."""
    decide = random.Random(seed)
    for point in POINTS:
        process = submissions.start(die=point, nth=decide.randint(1, 3))
        _, err = process.communicate(timeout=120)
        assert process.returncode == -signal.SIGKILL, (point, err)
    done = submissions.finish()
    assert done["jobs"] == REQUESTS
    copies = submissions.verify()
    assert max(copies.values()) <= 1 + len(POINTS)


def test_killed_at_any_moment(submissions: Submissions, seed: int) -> None:
    """Again and again, wherever it happens to be."""
    submissions.requests = 2_000
    decide = random.Random(seed)
    kills = 0
    for _ in range(6):
        process = submissions.start()
        time.sleep(decide.uniform(0.3, 1.5))
        process.kill()
        process.communicate(timeout=60)
        kills += process.returncode == -signal.SIGKILL
    submissions.finish()
    submissions.verify()
    assert kills


def test_a_submission_that_is_complete_is_left_alone(submissions: Submissions) -> None:
    """The second run inserts nothing and sends nothing."""
    assert submissions.finish() == {"jobs": REQUESTS, "sent": REQUESTS}
    assert submissions.finish() == {"jobs": REQUESTS, "sent": 0}
    assert set(submissions.verify().values()) == {1}


def test_two_at_once(submissions: Submissions) -> None:
    """A retry that overlaps with what it retries: each job is still one."""
    both = [submissions.start(), submissions.start()]
    for process in both:
        _, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
    submissions.verify()
