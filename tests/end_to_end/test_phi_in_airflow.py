"""Health data through all three patterns in a real Airflow: no mark of a record in anything that Airflow or we keep.

That the search notices a leak is proven in the files ``test_phi_mutant*.py``, by taking protections away.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.conftest import SEED_VARIABLE
from tests.end_to_end.phi_deployment import ROWS, PhiAirflow, phi_airflow
from tests.support.canaries import Canaries
from tests.support.ministack import MiniStack
from tests.support.postgres import PostgresServer
from tests.support.processes import wait_until

DAG_ID, FAILING = "phi_everywhere", "phi_failing"
GOOD = ROWS - 1
# What the tasks that fail say; those after them are not run.
FAILURES = {
    "strict.publish": "quarantined",
    "checked.publish": "table",
    "plan_twice": "visits.parquet",
    "call_strict": "degraded answer",
    "call_raising": "its text is withheld",
    "ask_twice": "visits.parquet",
    "ask_strict": "jobs ended without a result",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Story:
    """Two runs, and what lay where: while tasks were deferred, while replies waited, and at the end."""

    phi: PhiAirflow
    run_id: str
    failing_id: str
    deferred: dict[str, bytes]
    replied: dict[str, bytes]
    ended: dict[str, bytes]


@pytest.fixture(scope="module")
def story(
    tmp_path_factory: pytest.TempPathFactory, postgres_server: PostgresServer, ministack_server: MiniStack
) -> Iterator[Story]:
    """One run of the DAG that succeeds, and one of the DAG that fails."""
    seed = int(os.environ.get(SEED_VARIABLE) or secrets.randbits(32))
    print(f"{SEED_VARIABLE}={seed}")
    with phi_airflow(tmp_path_factory.mktemp("phi"), postgres_server, ministack_server, seed=seed) as phi:
        run_id = phi.api.trigger(DAG_ID)
        _wait_deferred(phi, DAG_ID, run_id, "ask", {"success"})
        phi.refuse_rows("checked", like="scored")
        failing_id = phi.api.trigger(FAILING)
        _wait_deferred(phi, FAILING, failing_id, "ask_strict", {"success", "failed", "upstream_failed"})
        deferred = phi.places()
        with phi.worker():
            sql = "SELECT COUNT(*) FROM ai_jobs WHERE state IN ('succeeded', 'failed')"
            wait_until(lambda: phi.jobs.query(sql) == [(2 * ROWS,)], deadline_seconds=60, what="the jobs have ended")
        replied = phi.places()
        with phi.dispatcher():
            phi.api.wait_for_run(DAG_ID, run_id, deadline_seconds=120)
            phi.api.wait_for_run(FAILING, failing_id, deadline_seconds=120, state="failed")
        ended = phi.places()
        yield Story(phi=phi, run_id=run_id, failing_id=failing_id, deferred=deferred, replied=replied, ended=ended)


def _wait_deferred(phi: PhiAirflow, dag_id: str, run_id: str, task_id: str, ends: set[str]) -> None:
    """Until a task waits in the triggerer, and all others have ended."""

    def waiting() -> bool:
        found = phi.api.task_instances(dag_id, run_id)
        [ask] = [ti for ti in found if ti["task_id"] == task_id]
        assert ask["state"] not in ("failed", "upstream_failed")
        others = {ti["state"] for ti in found if ti["task_id"] != task_id}
        assert "failed" in ends or "failed" not in others, sorted(map(str, others))
        return ask["state"] == "deferred" and bool(ask["triggerer_job"]) and others <= ends

    wait_until(waiting, deadline_seconds=120, what=f"{task_id} is deferred and the others have ended")


def test_everything_ran(story: Story) -> None:
    """The outputs are in the warehouse, their home; the model refused one record in each pattern."""
    phi = story.phi
    output = phi.canaries["output"]
    for table, rows in (("scored", GOOD), ("called", 1), ("replied", GOOD)):
        found = phi.rows(f"SELECT COUNT(*) FROM \"{table}\" t WHERE t::text LIKE '%{output}%'")
        assert (table, found) == (table, [(rows,)])
    answer = phi.api.xcom(DAG_ID, story.run_id, "call_refused")
    assert (json.loads(answer) if isinstance(answer, str) else answer)["degraded"] is True
    assert phi.jobs.query("SELECT COUNT(*) FROM ai_jobs WHERE state = 'failed'") == [(2,)]


def test_failures_say_why(story: Story) -> None:
    """Each task of the other DAG fails where it should, and of what it should; nothing of a record is told."""
    api = story.phi.api
    failed = {ti["task_id"]: ti for ti in api.task_instances(FAILING, story.failing_id) if ti["state"] == "failed"}
    assert set(failed) == set(FAILURES)
    told = {task_id: api.task_log(ti) for task_id, ti in failed.items()}
    assert [task_id for task_id, words in FAILURES.items() if words not in told[task_id]] == []
    assert story.phi.canaries.found({task_id: log.encode() for task_id, log in told.items()}) == {}


@pytest.mark.parametrize("when", ["deferred", "replied", "ended"])
def test_nothing_is_in_clear(story: Story, when: str) -> None:
    """Not in a table, a file, a log, an object, a message or an export: no mark of any field, id or output."""
    places: dict[str, bytes] = getattr(story, when)
    assert story.phi.canaries.found(places) == {}


def test_it_was_looked_everywhere(story: Story) -> None:
    """The places are there, and hold something: rows of a deferred task, messages, claim checks, checkpoints, logs."""
    phi = story.phi
    waiting = {place: data for place, data in story.deferred.items() if data}
    assert _like(waiting, "message phi_jobs-request")
    assert _like({place: data for place, data in story.replied.items() if data}, "message phi_jobs-result")
    assert len(_like(waiting, "metadata: table")) > 40
    for table, mark in (("trigger", b"AIJobsTrigger"), ("xcom", b"partition"), ("rendered_task_instance_fields", b"m")):
        assert mark in waiting[f"metadata: table {table} (binary)"]
    # Airflow encrypts what it keeps of triggers; the search reads it all the same.
    arguments = Canaries(marks={"arguments": '"phi_jobs"'}, fernet_key=phi.canaries.fernet_key)
    assert arguments.found({"trigger": waiting["metadata: table trigger (binary)"]}) == {"trigger": {"arguments"}}
    ended = story.ended
    for table in ("ai_jobs", "ai_good_answers", "ai_audit_events", "ai_audit_heads"):
        assert len(ended[f"store: table {table} (binary)"]) > 100
    for place in ("/checkpoints/", "/outputs/"):
        assert _like(ended, "object phi-", place)
    for place in ("/claims/", "/heads/", "scheduler.log", "triggerer.log", "api-server.log", "dispatcher.log"):
        assert _like(ended, "file ", place)
    assert len([place for place in _like(ended, "file ") if place.endswith(".log")]) > 10
    assert {place for place in ended if place.startswith("export ")} >= {"export jsonl", "export ocsf"}


def _like(places: dict[str, bytes], *parts: str) -> list[str]:
    return [place for place in places if all(part in place for part in parts)]


def test_the_model_saw_what_it_may(story: Story) -> None:
    """Notes as they are, tokens of record numbers, masks of phone numbers; no id, no name, and no own output."""
    phi = story.phi
    bodies = {f"request {number}": body for number, body in enumerate(phi.model.bodies)}
    assert len(bodies) >= 3 * ROWS + 3  # one batch for three tables, two submissions, three calls
    seen = set().union(*phi.canaries.found(bodies).values())
    assert seen <= {"note", "long"}, sorted(seen)
    assert seen >= {"note"}
    assert all(b"tok1_" in body and b"***" in body for body in bodies.values())
