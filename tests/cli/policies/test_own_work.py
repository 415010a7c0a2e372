"""Under its own policy and grants, each role does its work, encrypted and audited, and is refused nothing.

The tests of a module share its deployment, and follow one night from submission to pruning.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from airflow_provider_ai.adapters.claim_checks import StoredClaimChecks
from airflow_provider_ai.adapters.store import open_store
from airflow_provider_ai.core.config import StorageOptions
from airflow_provider_ai.core.keyring import keyring_text
from tests.support.keys import local_keys
from tests.support.role_deployment import RoleDeployment

COUNT = 12


@pytest.fixture(scope="module")
def night(jobs: RoleDeployment) -> RoleDeployment:
    """Submitted by a submitter, done by a worker, brought in by a dispatcher; large ones through claim checks."""
    requests = [{"n": n, "text": "x" * (2000 if n % 3 == 0 else 3)} for n in range(COUNT)]
    (jobs.folder / "in.jsonl").write_text("\n".join(map(json.dumps, requests)))
    submitted = jobs.run_as(
        "submitter", "jobs", "submit", "SPEC", "--key", "night", "--input", jobs.folder / "in.jsonl"
    )
    assert submitted.returncode == 0, submitted.stderr
    with jobs.running_as("worker", "worker", "SPEC"), jobs.running_as("dispatcher", "dispatcher", "SPEC"):
        waited = collected(jobs)
    assert waited.returncode == 3, waited.stderr + jobs.log("worker") + jobs.log("dispatcher")
    return jobs


def collected(jobs: RoleDeployment) -> Any:
    output = ("--output", jobs.folder / "out.jsonl")
    return jobs.run_as(
        "submitter", "jobs", "wait", "SPEC", "--key", "night", "--timeout", "60", "--no-dispatcher", *output
    )


def last(stdout: str) -> Any:
    return json.loads(stdout.splitlines()[-1])


def test_jobs_are_submitted_done_and_collected(night: RoleDeployment) -> None:
    """Each of the three by a process that has the rights for its part only."""
    lines = [json.loads(line) for line in (night.folder / "out.jsonl").read_text().splitlines()]
    assert [line.get("output", {}).get("double") for line in lines] == [None if n == 7 else 2 * n for n in range(COUNT)]
    for role in ("worker", "dispatcher"):
        warnings = [line for line in night.log(role).splitlines() if " WARNING " in line or " ERROR " in line]
        assert all("put aside as a dead letter: unlucky" in line for line in warnings), warnings


def test_a_reader_sees_how_a_submission_stands(night: RoleDeployment) -> None:
    """Counts, and what stands in the store."""
    status = night.run_as("reader", "jobs", "status", "SPEC", "--key", "night")
    assert (status.returncode, last(status.stdout)["completed"]) == (0, COUNT - 1), status.stderr
    store = night.run_as("reader", "store", "status", "SPEC")
    assert store.returncode == 0, store.stderr


def test_a_rotator_wraps_everything_anew(night: RoleDeployment) -> None:
    """Rows and claim checks; what is collected afterwards is what was there."""
    (night.folder / "keyring.json").write_text(keyring_text(local_keys("second", "first")))
    rotated = night.run_as("rotator", "keys", "rotate", "SPEC")
    assert rotated.returncode == 0, rotated.stderr
    found = last(rotated.stdout)
    assert found["rewrapped"] >= 2 * COUNT - 1
    assert found["refused"] == 0
    assert night.listings > 0
    before = (night.folder / "out.jsonl").read_text()
    assert collected(night).returncode == 3
    assert (night.folder / "out.jsonl").read_text() == before


def test_an_operator_redrives_a_dead_letter(night: RoleDeployment) -> None:
    """Out of store and queue, and back as the next generation; a submitter may cancel that."""
    listed = night.run_as("operator", "dlq", "list", "SPEC")
    assert listed.returncode == 0, listed.stderr
    redriven = night.run_as("operator", "dlq", "redrive", "SPEC", "--all")
    assert redriven.returncode == 0, redriven.stderr
    assert last(redriven.stdout)["jobs"] == 1
    cancelled = night.run_as("submitter", "jobs", "cancel", "SPEC", "--key", "night")
    assert last(cancelled.stdout)["cancelled"] == 1, cancelled.stderr


def test_an_auditor_finds_the_audit_whole(night: RoleDeployment) -> None:
    """All of the above is in it, by writers who could not read it."""
    verified = night.run_as("auditor", "audit", "verify", "SPEC")
    assert (verified.returncode, last(verified.stdout)["whole"]) == (0, True), verified.stderr + verified.stdout
    assert last(verified.stdout)["events"] > COUNT
    exported = night.run_as("auditor", "audit", "export", "SPEC", "--format", "jsonl")
    roles = {json.loads(line)["actor"]["role"] for line in exported.stdout.splitlines()}
    assert roles >= {"submitter", "worker", "dispatcher", "operator"}


def test_a_dispatcher_prunes(night: RoleDeployment) -> None:
    """What has been there for long enough goes, rows and claim checks: here at once."""
    user, tables = night.users["dispatcher"], night.tables
    options = StorageOptions(access_key=user.access_key, secret_key=user.secret_key, **tables["storage"])
    claims = StoredClaimChecks(tables["claim_check"]["uri"], options)
    store = open_store(night.url(f"dispatcher_{night.tag}"))
    pruned = store.jobs().prune(older_than_seconds=0.0, most=100, queue=tables["transport"]["request_queue"])
    store.close()
    assert pruned.jobs > COUNT
    assert len(pruned.refs) >= COUNT // 3
    claims.delete(pruned.refs)
    bucket = tables["claim_check"]["uri"].split("/")[2]
    left = night.moto.client("s3").list_objects_v2(Bucket=bucket).get("Contents", ())
    assert {each["Key"] for each in left} <= {"claims/payload/", "claims/result/"}


def test_a_batch_infers_and_publishes(batch: RoleDeployment) -> None:
    """Its table is made by the owner, in a run of its own; then another day's run has no right but to publish."""
    made = batch.run_as_owner("batch", "run", "SPEC", "--quiet")
    assert made.returncode == 0, made.stderr
    for role in ("batch", "reader"):
        batch.grant(role, "--database", "warehouse")
    for role in ("batch", "auditor"):
        batch.grant(role, "--database", "audit")
    again = batch.run_as("batch", "batch", "run", "SPEC", "--recompute", "--quiet")
    assert (again.returncode, last(again.stdout)["published"]) == (0, 60), again.stderr
    status = batch.run_as("reader", "batch", "status", "SPEC", "--json")
    assert status.returncode == 0, status.stderr
    assert all(part["published"] for part in last(status.stdout)["partitions"])
    verified = batch.run_as("auditor", "audit", "verify", "SPEC")
    assert last(verified.stdout)["whole"], verified.stdout + verified.stderr
    assert batch.listings > 0
