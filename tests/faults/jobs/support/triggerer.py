"""A triggerer without Airflow: ``python -m tests.faults.jobs.support.triggerer SPEC KEY JOBS``.

The hub that looks for all waits of the process, and the dispatcher beside it, as hasty as the others: of its own accord
it hides replies for a minute, and a test would have to wait for those that it was killed with. The verdict goes to
``KEY.verdict.json`` beside the spec: as an event goes to Airflow's database, and may be fired again.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from contextlib import AsyncExitStack
from dataclasses import asdict
from functools import partial
from pathlib import Path

from airflow_provider_ai.cli.job_spec import load_job_spec
from airflow_provider_ai.core.job_waiting import WaitPolicy
from airflow_provider_ai.core.jobs import submission_key
from airflow_provider_ai.patterns.waiting_hub import shared_hub
from airflow_provider_ai.runtime import dispatcher
from airflow_provider_ai.runtime.embedded_dispatcher import embedded_dispatcher
from airflow_provider_ai.runtime.job_service import JobSettings, open_jobs

POLICY = WaitPolicy(on_failed_jobs="fail", max_quarantined_fraction=0.0)


async def wait(spec_file: Path, key: str, expected: int) -> None:
    """Until all jobs have ended."""
    spec = load_job_spec(spec_file, need_secrets=False)
    dispatcher.DispatcherJob = partial(  # type: ignore[assignment, misc]
        dispatcher.DispatcherJob, dispatcher=spec.dispatcher
    )
    settings = JobSettings(transport=spec.transport, store=spec.store, claim_check=spec.claim_check)
    async with AsyncExitStack() as stack:
        stack.enter_context(embedded_dispatcher(settings))
        hub = await stack.enter_async_context(shared_hub(spec.store, partial(open_jobs, spec.store)))
        waiting = await stack.enter_async_context(hub.waiting(submission_key("jobs", key)))
        verdict = await waiting.over(POLICY, expected=expected)
    whole = {"state": verdict.state.value, "reason": verdict.reason, **asdict(verdict.counts)}
    (spec_file.parent / f"{key}.verdict.json").write_text(json.dumps(whole))


if __name__ == "__main__":
    asyncio.run(wait(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])))
    os._exit(0)
