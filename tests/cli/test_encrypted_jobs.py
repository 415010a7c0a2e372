"""Jobs with [encryption]: queues, store and claim checks hold nothing in the clear, and everything still works."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from airflow_provider_ai.core.envelope import open_up, read_header
from airflow_provider_ai.core.keyring import keyring_text
from tests.support.keys import local_keys
from tests.support.ministack import MiniStack
from tests.support.processes import child_environment, wait_until

CANARY = "canary-7f3a"
HANDLER = """\
from airflow_provider_ai.core.job_handling import RejectedJobError


async def answer(job):
    if job.payload["n"] == 7:
        raise RejectedJobError("unlucky")
    return {"double": 2 * job.payload["n"], "text": job.payload["text"]}
"""
ENCRYPTION = '[encryption]\nkind = "local"\nkeyring_file = "keyring.json"\ntenant = "clinic-a"\n'
COUNT = 20


@pytest.fixture
def spec(tmp_path: Path, ministack_server: MiniStack) -> Path:
    tag = uuid4().hex[:8]
    names = {f"{kind}_queue": f"{kind.replace('_', '-')}-{tag}" for kind in ("request", "result", "dead_letter")}
    for name in names.values():
        ministack_server.client("sqs").create_queue(QueueName=name)
    queues = "\n".join(f'{key} = "{name}"' for key, name in names.items())
    (tmp_path / "answers.py").write_text(HANDLER)
    requests = [{"n": n, "text": CANARY + "x" * (2000 if n % 4 == 0 else 3)} for n in range(COUNT)]
    (tmp_path / "in.jsonl").write_text("\n".join(map(json.dumps, requests)))
    put_keys(tmp_path, "first")
    file = tmp_path / "jobs.toml"
    file.write_text(
        f'[transport]\nkind = "sqs"\nendpoint_url = "{ministack_server.url}"\nregion = "us-east-1"\n{queues}\n'
        '[store]\nurl = "sqlite:///store.db"\n'
        '[claim_check]\nuri = "claims/"\ninline_limit_bytes = 1000\n'
        "[worker]\nconcurrency = 8\nvisibility_timeout_seconds = 10\ngrace_seconds = 2\npoll_seconds = 1\n"
        '[handler]\ntarget = "answers:answer"\n' + ENCRYPTION
    )
    return file


def put_keys(folder: Path, *names: str) -> None:
    (folder / "keyring.json").write_text(keyring_text(local_keys(*names)))


def airflow_ai(spec: Path, server: MiniStack, *arguments: str, code: int = 0) -> list[str]:
    """The lines that a command prints."""
    done = subprocess.run(
        command(*arguments), env=environment(spec, server), capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == code, done.stderr
    assert CANARY not in done.stdout + done.stderr
    return done.stdout.splitlines()


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-c", "from airflow_provider_ai.cli import program; program()", *arguments]


def environment(spec: Path, server: MiniStack) -> dict[str, str]:
    return child_environment({**server.environment(), "PYTHONPATH": str(spec.parent)})


def submit(spec: Path, server: MiniStack) -> list[str]:
    """The ids of the jobs."""
    file = str(spec.parent / "in.jsonl")
    return airflow_ai(spec, server, "jobs", "submit", str(spec), "--key", "night", "--input", file)[:-1]


def wait(spec: Path, server: MiniStack, *, code: int = 3, seconds: int = 90) -> dict[str, int]:
    output = str(spec.parent / "out.jsonl")
    wanted = ("jobs", "wait", str(spec), "--key", "night", "--timeout", str(seconds), "--output", output)
    counts: dict[str, int] = json.loads(airflow_ai(spec, server, *wanted, code=code)[-1])
    return counts


@contextmanager
def running(spec: Path, server: MiniStack, name: str) -> Iterator[None]:
    log = (spec.parent / f"{name}.log").open("ab")
    process = subprocess.Popen(
        command(name, str(spec)), env=environment(spec, server), cwd=spec.parent, stdout=log, stderr=log
    )
    try:
        yield
    finally:
        process.terminate()
        process.wait(30)
        log.close()


def messages(spec: Path, server: MiniStack, kind: str) -> list[str]:
    """What is in a queue now; it stays there."""
    line = next(line for line in spec.read_text().splitlines() if line.startswith(f"{kind}_queue"))
    sqs, found = server.client("sqs"), dict[str, str]()
    url = sqs.get_queue_url(QueueName=line.split('"')[1])["QueueUrl"]
    for _ in range(20):
        got = sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10, VisibilityTimeout=2).get("Messages", [])
        found |= {message["MessageId"]: message["Body"] for message in got}
        if not got:
            break
    return list(found.values())


def in_clear(spec: Path) -> list[str]:
    """Files of the deployment that hold the canary; the input, the output and the handler are not its."""
    own = ("in.jsonl", "out.jsonl", "answers.py")
    files = [path for path in spec.parent.rglob("*") if path.is_file() and path.name not in own]
    return [path.name for path in files if holds(path.read_bytes())]


def holds(data: bytes) -> bool:
    """Also when base64 hides it."""
    encoded = [base64.b64encode(b" " * shift + CANARY.encode())[4:-4] for shift in range(3)]
    return CANARY.encode() in data or any(each in data for each in encoded)


def test_nothing_is_in_the_clear_anywhere(spec: Path, ministack_server: MiniStack) -> None:
    """Not in the request queue, nor, after the work, in the result queue, the store, the claim checks or the logs."""
    ids = submit(spec, ministack_server)
    requests = messages(spec, ministack_server, "request")
    assert len(requests) == COUNT
    assert not any(holds(body.encode()) for body in requests)
    assert in_clear(spec) == []
    assert submit(spec, ministack_server) == ids  # the hash of a payload is the same on every attempt
    time.sleep(2)  # until the messages that were looked at are visible again
    with running(spec, ministack_server, "worker"):
        deadline = time.monotonic() + 60
        while len(results := messages(spec, ministack_server, "result")) < COUNT and time.monotonic() < deadline:
            time.sleep(0.5)
    assert len(results) >= COUNT
    assert not any(holds(body.encode()) for body in results)
    assert in_clear(spec) == []
    time.sleep(2)
    assert wait(spec, ministack_server)["completed"] == COUNT - 1
    assert in_clear(spec) == []
    lines = [json.loads(line) for line in (spec.parent / "out.jsonl").read_text().splitlines()]
    assert [line["job_id"] for line in lines] == ids
    assert all(CANARY in line["output"]["text"] for line in lines if line["status"] == "succeeded")


def test_without_encryption_that_would_be_noticed(spec: Path, ministack_server: MiniStack) -> None:
    """The mutant of the test above."""
    spec.write_text(spec.read_text().replace(ENCRYPTION, ""))
    submit(spec, ministack_server)
    assert any(holds(body.encode()) for body in messages(spec, ministack_server, "request"))
    assert any(name.startswith("store.db") for name in in_clear(spec))
    assert len(in_clear(spec)) >= COUNT // 4


def test_hashes_beside_the_data_are_keyed(spec: Path, ministack_server: MiniStack) -> None:
    """A payload with few possible values could be told from a plain hash."""
    import hashlib

    submit(spec, ministack_server)
    payloads = [json.dumps(json.loads(line), separators=(",", ":"), sort_keys=True) for line in read_inputs(spec)]
    plain = {hashlib.sha256(text.encode()).hexdigest() for text in payloads}
    found = {json.loads(body)["data"]["sha256"] for body in messages(spec, ministack_server, "request")}
    assert len(found) == COUNT
    assert found.isdisjoint(plain)
    assert not any(digest[:16] in path.name for digest in plain for path in spec.parent.rglob("*"))


def read_inputs(spec: Path) -> list[str]:
    return (spec.parent / "in.jsonl").read_text().splitlines()


def test_a_worker_without_the_key_loses_no_job(spec: Path, ministack_server: MiniStack) -> None:
    """It gives them back, without counting; with the key, all of them are done."""
    submit(spec, ministack_server)
    put_keys(spec.parent, "second")
    with running(spec, ministack_server, "worker"):
        log = spec.parent / "worker.log"
        wait_until(
            lambda: "add it there as an older key" in log.read_text(),
            deadline_seconds=60.0,
            what="the missing key is named",
        )
    counts: Any = json.loads(airflow_ai(spec, ministack_server, "jobs", "status", str(spec), "--key", "night")[-1])
    assert counts["pending"] == COUNT
    put_keys(spec.parent, "second", "first")
    with running(spec, ministack_server, "worker"):
        assert wait(spec, ministack_server)["completed"] == COUNT - 1


def test_rotation_and_redrive(spec: Path, ministack_server: MiniStack) -> None:
    """What is stored moves to the new key, and jobs of it go on under their next generation."""
    submit(spec, ministack_server)
    with running(spec, ministack_server, "worker"):
        wait(spec, ministack_server)
    put_keys(spec.parent, "second", "first")
    report = json.loads(airflow_ai(spec, ministack_server, "keys", "rotate", str(spec))[-1])
    assert (report["rewrapped"], report["refused"], report["keys"]) == (report["seen"], 0, {"first": report["seen"]})
    put_keys(spec.parent, "second")
    found = json.loads(airflow_ai(spec, ministack_server, "keys", "status", str(spec))[-1])
    assert found["keys"] == {"second": report["seen"]}
    assert wait(spec, ministack_server, seconds=5)["completed"] == COUNT - 1
    (spec.parent / "answers.py").write_text(HANDLER.replace("== 7", "< 0"))
    assert json.loads(airflow_ai(spec, ministack_server, "dlq", "redrive", str(spec), "--all")[-1])["jobs"] == 1
    with running(spec, ministack_server, "worker"):
        assert wait(spec, ministack_server, code=0)["completed"] == COUNT


def test_dead_letters_are_encrypted(spec: Path, ministack_server: MiniStack) -> None:
    """Also those that somebody sent in the clear."""
    line = next(line for line in spec.read_text().splitlines() if line.startswith("request_queue"))
    sqs = ministack_server.client("sqs")
    url = sqs.get_queue_url(QueueName=line.split('"')[1])["QueueUrl"]
    sqs.send_message(QueueUrl=url, MessageBody=f"{CANARY} is no event")
    with running(spec, ministack_server, "worker"), running(spec, ministack_server, "dispatcher"):
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            listed = airflow_ai(spec, ministack_server, "dlq", "list", str(spec))
            if json.loads(listed[-1])["letters"]:
                break
            time.sleep(0.5)
    assert json.loads(listed[-1])["reasons"] == {"not_json": 1}
    assert in_clear(spec) == []
    letter = json.loads(listed[0])["letter_id"]
    shown = json.loads(airflow_ai(spec, ministack_server, "dlq", "show", str(spec), letter)[0])
    assert shown["bytes"] == len(f"{CANARY} is no event")


def test_messages_say_which_key_they_are_under(spec: Path, ministack_server: MiniStack) -> None:
    """So a key is not thrown away too early."""
    submit(spec, ministack_server)
    inline = [json.loads(body)["data"] for body in messages(spec, ministack_server, "request")]
    stored = [base64.b64decode(data["payload_base64"]) for data in inline if "payload_base64" in data]
    assert {read_header(open_up(data).start).key_id for data in stored} == {"first"}
    assert {read_header(open_up(data).start).purpose for data in stored} == {"job-payload"}
