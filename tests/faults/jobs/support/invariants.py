"""What must hold after any fault, counted at the far ends: in the store, at the model, on the wire, at the waiter.

:func:`problems` says everything that is wrong; it is a list so that a mutant can be shown to be caught, and for what.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator

from airflow_provider_ai.core.jobs import JobState
from benchmarks.stub import label_of, score_of
from tests.faults.jobs.support.handler import effects
from tests.faults.jobs.support.ledger import Claim, pid_of
from tests.faults.jobs.support.pack import CANARY, MOST_HELD, Pack


def problems(pack: Pack, *, outages: int = 0, crashes: int = 0, deaths: int = 0) -> list[str]:
    """What is wrong, one line each.

    :param outages: how often a store or a pause may have cost those their leases that were not struck
    :param crashes: how often the store may have lost claims: each may be granted once more under the same fence
    :param deaths: of workers by their own hand, which no strike has counted
    """
    pack.listen()
    found = [*_states(pack), *_replies(pack), *_results(pack), *_effects(pack), *_calls(pack, outages, crashes, deaths)]
    return [*found, *_leaks(pack), *pack.auditor.violations]


def lapses(pack: Pack) -> int:
    """Leases that were lost by workers that nobody had struck."""
    struck = {strike.pid for strike in pack.strikes}
    return sum(pid_of(claim.owner_before) not in struck for claim in again(pack))


def again(pack: Pack) -> list[Claim]:
    """Claims of jobs that another claim had been granted for."""
    return [claim for claim in pack.ledger.claims() if claim.before == JobState.RUNNING.value or claim.fence > 1]


def _states(pack: Pack) -> Iterator[str]:
    for key, ids in pack.inputs.items():
        states = Counter(job.state.value for job in pack.jobs(key))
        if states != {JobState.SUCCEEDED.value: len(ids)}:
            yield f"lost: the jobs of {key} are {dict(states)}, not {len(ids)} succeeded"


def _replies(pack: Pack) -> Iterator[str]:
    """Each submission's file holds its own replies, each in its place."""
    for key, ids in pack.inputs.items():
        file = pack.output(key)
        lines = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
        if len(lines) != len(ids):
            yield f"lost: {len(lines)} replies to {len(ids)} requests of {key}"
        named = [job.job_id for job in pack.jobs(key)]
        for number, name, line in zip(ids, named, lines, strict=False):
            output = line.get("output") or {}
            right = (number, score_of(number), label_of(number), name, name)
            if (output.get("id"), output.get("score"), output.get("label"), output.get("key"), line["job_id"]) != right:
                yield f"misdelivered: line {line['position']} of {key}"


def _results(pack: Pack) -> Iterator[str]:
    endings = pack.ledger.endings()
    if more := sum(count > 1 for count in endings.values()):
        yield f"overwritten: {more} jobs have ended more than once"
    if more := sum(len(outcomes) > 1 for outcomes in pack.auditor.published.values()):
        yield f"two results: for {more} jobs different results were published"
    recorded = {job.job_id: job.result.sha256 for key in pack.inputs for job in pack.jobs(key) if job.result}
    published = pack.auditor.published
    other = sum({sha for _, sha, _ in published[name]} not in (set(), {sha256}) for name, sha256 in recorded.items())
    if other:
        yield f"two results: {other} jobs were answered with another result than the recorded one"


def _effects(pack: Pack) -> Iterator[str]:
    wanted = {job.job_id: pack.inputs[key][job.position] for key in pack.inputs for job in pack.jobs(key)}
    there = effects(pack.effects)
    if there != wanted:
        missing, foreign = len(wanted.keys() - there.keys()), len(there.keys() - wanted.keys())
        yield f"effects: {missing} missing, {foreign} of no job, of {len(wanted)}"


def _calls(pack: Pack, outages: int, crashes: int, deaths: int) -> Iterator[str]:
    """Every call of the model has a claim of its own, and every claim beyond the first an owner that was struck."""
    claims = Counter(claim.job_id for claim in pack.ledger.claims())
    called = pack.stub.counts("called")
    jobs = {job.job_id: str(pack.inputs[key][job.position]) for key in pack.inputs for job in pack.jobs(key)}
    if never := sum(record not in called for record in jobs.values()):
        yield f"never called: {never} records"
    if wild := sum(called.get(record, 0) > claims[name] + crashes for name, record in jobs.items()):
        yield f"calls: {wild} jobs were called more often than claimed"
    allowed = sum(MOST_HELD if strike.held is None else strike.held for strike in pack.strikes)
    lost = lapses(pack)
    workers = sum(name.startswith("worker") for name in pack.processes)
    if lost > (outages * workers + deaths) * MOST_HELD:
        yield f"leases: {lost} were lost by workers that nobody struck"
    total = sum(called.values())
    if total > len(jobs) + allowed + lost + crashes * workers * MOST_HELD:
        yield f"calls: {total} for {len(jobs)} jobs, {allowed} in flight when their worker was struck, {lost} lost"
    if most := max((strike.held or 0 for strike in pack.strikes), default=0) > MOST_HELD:
        yield f"slots: a worker had {most} jobs, the bound is {MOST_HELD}"


def _leaks(pack: Pack) -> Iterator[str]:
    for log in pack.fleet.folder.glob("*.log"):
        if CANARY in log.read_text(errors="replace"):
            yield f"leak: {log.name} holds a payload"
