"""The whole asynchronous pattern with the audit on: processes of their own, heads in S3 with Object Lock."""

from __future__ import annotations

import json
import sqlite3
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from airflow_provider_ai.adapters.audit.signing import new_key_pair
from airflow_provider_ai.core.identity import record_key
from tests.cli.test_jobs_with_worker import command, environment, jobs, spec, worker
from tests.support.ministack import MiniStack

__all__ = ["spec"]
SECRET = "a key of thirty-two bytes or more"
CANARY = "CANARY-91f2"


@pytest.fixture
def audited(spec: Path, ministack_server: MiniStack, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The spec with an audit; the heads' bucket locks for six years."""
    bucket = f"heads-{uuid4().hex[:8]}"
    ministack_server.client("s3").create_bucket(Bucket=bucket, ObjectLockEnabledForBucket=True)
    private, public = new_key_pair()
    (spec.parent / "audit.pem").write_text(private)
    (spec.parent / "audit.pub.pem").write_text(public)
    (spec.parent / "hmac.key").write_text(SECRET)
    spec.write_text(
        f"{spec.read_text()}[audit]\nheads = 's3://{bucket}/ai'\nhmac_key_file = 'hmac.key'\n"
        "signing_key_file = 'audit.pem'\npublic_key_files = ['audit.pub.pem']\npurpose = 'HOPERAT'\n"
        "head_interval_seconds = 0.5\n"
    )
    return spec


def run(spec: Path, server: MiniStack, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments), env=environment(server), capture_output=True, text=True, timeout=120, check=False
    )


def exported(spec: Path, server: MiniStack) -> list[dict[str, Any]]:
    done = run(spec, server, "audit", "export", str(spec), "--format", "jsonl")
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def covered(told: list[dict[str, Any]], action: str, outcome: str, role: str) -> Counter[str]:
    """Records by their keys, of all events of a kind."""
    return Counter(
        key
        for event in told
        if (event["action"], event["outcome"], event["actor"]["role"]) == (action, outcome, role)
        for key in event["record_keys"]
    )


def test_every_step_of_every_job_is_on_record(audited: Path, ministack_server: MiniStack) -> None:
    """Who submitted, worked, received, looked, redrove and purged; each chain verifies against its locked heads."""
    file = audited.parent / "in.jsonl"
    file.write_text("\n".join(json.dumps({"n": n, "text": CANARY}) for n in range(30)))
    with worker(audited, ministack_server):
        submitted = jobs(audited, ministack_server, "submit", "--input", str(file))
        assert submitted.returncode == 0, submitted.stderr
        waited = jobs(audited, ministack_server, "wait", "--timeout", "90", "--output", str(audited.parent / "out"))
        assert waited.returncode == 3, waited.stderr
    assert run(audited, ministack_server, "dlq", "list", str(audited)).returncode == 0
    ids = submitted.stdout.splitlines()[:-1]
    told = exported(audited, ministack_server)
    every = {record_key(job_id, secret=SECRET.encode()) for job_id in ids}
    unlucky = {record_key(ids[n], secret=SECRET.encode()) for n in (7, 17, 27)}
    assert set(covered(told, "submit", "intended", "submitter")) == every
    assert set(covered(told, "claim", "succeeded", "worker")) == every
    assert set(covered(told, "infer", "intended", "worker")) == every
    assert covered(told, "infer", "succeeded", "worker") == dict.fromkeys(every - unlucky, 1)
    assert set(covered(told, "infer", "failed", "worker")) == unlucky
    assert set(covered(told, "receive", "succeeded", "dispatcher")) == every
    assert set(covered(told, "read", "succeeded", "submitter")) == every
    assert {event["model"] for event in told if event["action"] == "infer"} == {"answers:answer"}
    assert {event["purpose"] for event in told} == {"HOPERAT"}
    assert all(event["actor"]["user"] for event in told)
    verified = run(audited, ministack_server, "audit", "verify", str(audited), "--every-head")
    assert verified.returncode == 0, verified.stdout
    assert json.loads(verified.stdout)["unsealed"] == 0
    _without_canary(audited, told)


def test_a_chain_removed_from_the_store_is_named(audited: Path, ministack_server: MiniStack) -> None:
    """By the head that nobody could delete, though somebody tried."""
    file = audited.parent / "in.jsonl"
    file.write_text('{"n": 1}')
    assert jobs(audited, ministack_server, "submit", "--input", str(file)).returncode == 0
    with sqlite3.connect(audited.parent / "store.db") as connection:
        (writer,) = connection.execute("SELECT DISTINCT writer FROM ai_audit_events").fetchone()
        connection.execute("DELETE FROM ai_audit_events")
        connection.execute("DELETE FROM ai_audit_heads")
    s3 = ministack_server.client("s3")
    bucket = audited.read_text().partition("s3://")[2].partition("/")[0]
    for each in s3.list_objects_v2(Bucket=bucket)["Contents"]:
        s3.delete_object(Bucket=bucket, Key=each["Key"])
    verified = run(audited, ministack_server, "audit", "verify", str(audited))
    assert verified.returncode == 3
    found = [json.loads(line) for line in verified.stdout.splitlines()[:-1]]
    assert {each["finding"] for each in found} == {"removed_chain", "hidden_head"}
    assert {each["writer"] for each in found} == {writer}


def _without_canary(spec: Path, told: list[dict[str, Any]]) -> None:
    assert CANARY not in json.dumps(told)
    with sqlite3.connect(spec.parent / "store.db") as connection:
        rows = connection.execute("SELECT * FROM ai_audit_events").fetchall()
        heads = connection.execute("SELECT * FROM ai_audit_heads").fetchall()
    assert rows
    assert CANARY.encode() not in repr(rows + heads).encode()
