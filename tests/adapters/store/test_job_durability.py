"""What may be lost with the power, and what may not: seen in the system calls, and in the settings of connections."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import sqlalchemy as sa

from airflow_provider_ai.adapters.store.database import Session
from tests.adapters.store.conftest import OpenStore
from tests.faults.support.strace import needs_strace
from tests.support.processes import REPOSITORY, child_environment

SETTING = {"sqlite": "PRAGMA synchronous", "postgresql": "SHOW synchronous_commit"}
FAST = {"sqlite": 1, "postgresql": "off"}
DURABLE = {"sqlite": 2, "postgresql": "on"}
SCRIPT = """
import os, sys
from airflow_provider_ai.adapters.store import open_store
from tests.adapters.store.jobs import claim, done, new_job

jobs = open_store(sys.argv[1], timeout_seconds=20).jobs()
one, two, three = (new_job(position, expires_at=1.0 if position == 1 else None) for position in range(3))

def step(name, work):
    os.write(1, f"begin {name}\\n".encode())
    work()
    os.write(1, f"end {name}\\n".encode())

step("first", lambda: jobs.counts(["x"]))
step("submit", lambda: jobs.submit([one, two, three]))
step("sent", lambda: jobs.sent([one.job_id]))
fences = []
step("claim", lambda: fences.append(claim(jobs, one).fence))
step("heartbeat", lambda: jobs.heartbeat({one.job_id: fences[0]}, owner="w1", lease_seconds=30))
step("complete", lambda: jobs.complete(one.job_id, owner="w1", fence=fences[0], outcome=done()))
step("receive", lambda: jobs.receive(one.job_id, done(), via="queue"))
step("expire", lambda: jobs.expire(most=10))
step("redrive", lambda: jobs.redrive([two.job_id]))
step("fail", lambda: jobs.fail(three.job_id, reason="dead_letter"))
step("keep_unknown", lambda: jobs.keep_unknown(b"{}", job_id=None, via="queue", reason="unknown"))
"""


def setting(session: Session, database: str) -> object:
    return session.run(sa.text(SETTING[database]), {}).scalar()


def test_connections_that_wait_for_the_disk(opened: OpenStore, database: str) -> None:
    """Submissions, outcomes and the inbox go through them; leases and breakers do not."""
    store = opened()
    with store.session() as session:
        assert setting(session, database) == FAST[database]
    for durable in (store.durable_session, store.transaction):
        with durable() as session:
            assert setting(session, database) == DURABLE[database]
    with store.session() as session:
        assert setting(session, database) == FAST[database]


@needs_strace
def test_what_a_waiter_relies_on_is_on_the_disk(tmp_path: Path) -> None:
    """Before the call returns, SQLite has synced its log; a claim costs no such wait."""
    trace = tmp_path / "trace"
    command = ["strace", "-f", "-y", "-qq", "-s", "80", "-o", str(trace), "-e", "trace=fsync,fdatasync,write"]
    done = subprocess.run(
        [*command, sys.executable, "-c", SCRIPT, f"sqlite:///{tmp_path}/store.db"],
        cwd=REPOSITORY,
        env=child_environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    synced: dict[str, int] = {}
    step = ""
    for line in trace.read_text().splitlines():
        if found := re.search(r'write\(1<.*"(begin|end) (\w+)\\n"', line):
            step = found[2] if found[1] == "begin" else ""
            synced.setdefault(found[2], 0)
        elif step and re.search(r"f(data)?sync\(\d+<.*store\.db-wal>", line):
            synced[step] += 1
    durable = {"submit", "complete", "receive", "expire", "redrive", "fail", "keep_unknown"}
    assert {name for name, syncs in synced.items() if syncs} - {"first"} == durable
    assert set(synced) == durable | {"first", "sent", "claim", "heartbeat"}
