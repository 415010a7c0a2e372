"""``airflow-ai jobs`` beside a real worker: queues of MiniStack, a store in SQLite, processes of their own."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from tests.support.ministack import MiniStack
from tests.support.processes import child_environment

HANDLER = """\
from airflow_provider_ai.core.job_handling import RejectedJobError


async def answer(job):
    number = job.payload["n"]
    if number % 10 == 7:
        raise RejectedJobError("unlucky")
    return {"double": 2 * number, "text": job.payload.get("text", "")}
"""


@pytest.fixture
def spec(tmp_path: Path, ministack_server: MiniStack) -> Path:
    tag = uuid4().hex[:8]
    names = {f"{kind}_queue": f"{kind.replace('_', '-')}-{tag}" for kind in ("request", "result", "dead_letter")}
    for name in names.values():
        ministack_server.client("sqs").create_queue(QueueName=name)
    queues = "\n".join(f'{key} = "{name}"' for key, name in names.items())
    (tmp_path / "answers.py").write_text(HANDLER)
    file = tmp_path / "jobs.toml"
    file.write_text(
        f'[transport]\nkind = "sqs"\nendpoint_url = "{ministack_server.url}"\nregion = "us-east-1"\n{queues}\n'
        '[store]\nurl = "sqlite:///store.db"\n'
        '[claim_check]\nuri = "claims/"\ninline_limit_bytes = 1000\n'
        "[worker]\nconcurrency = 8\nvisibility_timeout_seconds = 10\ngrace_seconds = 2\npoll_seconds = 1\n"
        '[handler]\ntarget = "answers:answer"\n'
    )
    return file


def environment(server: MiniStack) -> dict[str, str]:
    return child_environment(server.environment())


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-c", "from airflow_provider_ai.cli import program; program()", *arguments]


def jobs(spec: Path, server: MiniStack, name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command("jobs", name, str(spec), "--key", "night", *arguments),
        env=environment(server),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@contextmanager
def worker(spec: Path, server: MiniStack) -> Iterator[subprocess.Popen[bytes]]:
    log = (spec.parent / "worker.log").open("wb")
    process = subprocess.Popen(command("worker", str(spec)), env=environment(server), cwd="/", stdout=log, stderr=log)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(30)
        log.close()


def write_requests(spec: Path, count: int) -> str:
    file = spec.parent / "in.jsonl"
    requests = [{"n": n, "text": "x" * (2000 if n % 4 == 0 else 3)} for n in range(count)]
    file.write_text("\n".join(map(json.dumps, requests)))
    return str(file)


def counts(done: subprocess.CompletedProcess[str]) -> Any:
    return json.loads(done.stdout.splitlines()[-1])


def test_replies_come_back_to_who_asked(spec: Path, ministack_server: MiniStack) -> None:
    """A worker is all it takes: large ones through claim checks, failed ones with their reason, each in its place."""
    file, output = write_requests(spec, 100), spec.parent / "out.jsonl"
    submitted = jobs(spec, ministack_server, "submit", "--input", file)
    assert submitted.returncode == 0, submitted.stderr
    ids = submitted.stdout.splitlines()[:-1]
    with worker(spec, ministack_server):
        waited = jobs(spec, ministack_server, "wait", "--timeout", "90", "--output", str(output))
    assert waited.returncode == 3, waited.stderr
    assert counts(waited) == {"jobs": 100, "completed": 90, "failed": 10, "expired": 0, "pending": 0}
    lines = [json.loads(line) for line in output.read_text().splitlines()]
    assert [line["job_id"] for line in lines] == ids
    for n, line in enumerate(lines):
        if n % 10 == 7:
            assert (line["status"], line["reason"]) == ("failed", "unlucky")
        else:
            assert line["output"] == {"double": 2 * n, "text": "x" * (2000 if n % 4 == 0 else 3)}
    again = jobs(spec, ministack_server, "submit", "--input", file)
    assert again.stdout.splitlines()[:-1] == ids
    assert counts(again) == counts(waited)


def test_a_wait_that_is_killed_is_waited_again(spec: Path, ministack_server: MiniStack) -> None:
    """Nothing it had in hand is lost: replies it has taken from the queue are in the store, or come again."""
    file = write_requests(spec, 60)
    assert jobs(spec, ministack_server, "submit", "--input", file, "--quiet").returncode == 0
    arguments = ("jobs", "wait", str(spec), "--key", "night", "--timeout", "60")
    with worker(spec, ministack_server):
        for _ in range(2):
            waiting = subprocess.Popen(command(*arguments), env=environment(ministack_server))
            time.sleep(1.5)
            waiting.kill()
            waiting.wait(30)
        done = jobs(spec, ministack_server, "wait", "--timeout", "90", "--max-failed-fraction", "0.1")
    assert done.returncode == 0, done.stderr
    assert counts(done)["completed"] == 54


def test_a_signal_ends_a_wait(spec: Path, ministack_server: MiniStack) -> None:
    """In good order, and without a file."""
    assert jobs(spec, ministack_server, "submit", "--input", write_requests(spec, 3), "--quiet").returncode == 0
    output = spec.parent / "out.jsonl"
    arguments = ("jobs", "wait", str(spec), "--key", "night", "--timeout", "600", "--output", str(output))
    waiting = subprocess.Popen(
        command(*arguments), env=environment(ministack_server), stderr=subprocess.PIPE, text=True
    )
    time.sleep(3)
    waiting.send_signal(signal.SIGTERM)
    _, shown = waiting.communicate(timeout=30)
    assert waiting.returncode == 1
    assert "stopped (SIGTERM); a retry goes on with the same jobs" in shown
    assert not output.exists()


def test_cancelled_jobs_are_not_done(spec: Path, ministack_server: MiniStack) -> None:
    """A worker that comes later finds nothing to do."""
    assert jobs(spec, ministack_server, "submit", "--input", write_requests(spec, 20), "--quiet").returncode == 0
    cancelled = jobs(spec, ministack_server, "cancel")
    assert counts(cancelled)["cancelled"] == 20
    with worker(spec, ministack_server):
        done = jobs(spec, ministack_server, "wait", "--timeout", "30")
        deadline = time.monotonic() + 30
        sqs = ministack_server.client("sqs")
        url = sqs.get_queue_url(QueueName=_request_queue(spec))["QueueUrl"]
        while _depth(sqs, url) and time.monotonic() < deadline:
            time.sleep(0.2)
        assert _depth(sqs, url) == 0
    assert done.returncode == 3
    assert counts(done) == {"jobs": 20, "completed": 0, "failed": 0, "expired": 0, "pending": 0, "cancelled": 20}


def _request_queue(spec: Path) -> str:
    return str(tomllib.loads(spec.read_text())["transport"]["request_queue"])


def _depth(sqs: Any, url: str) -> int:
    names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    found = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=names)["Attributes"]
    return sum(int(found[name]) for name in names)
