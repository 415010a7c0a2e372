"""The application that takes webhooks, asked over ASGI as the API server asks it."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest

from airflow_provider_ai.adapters.store.overview import overview
from airflow_provider_ai.core.jobs import job_id
from airflow_provider_ai.plugin import webhooks
from airflow_provider_ai.runtime.webhook_inbox import MOST_BYTES
from tests.airflow_shell.job_deployment import JobDeployment, jobs
from tests.airflow_shell.test_jobs_trigger import submit
from tests.runtime.test_webhook_inbox import KEY, OTHER, body, signed

__all__ = ["jobs"]
JOB = job_id("s", 0)


@pytest.fixture
async def client(jobs: JobDeployment, set_connection: Callable[..., None]) -> AsyncIterator[httpx.AsyncClient]:
    extra = {**jobs.extra, "webhook_secret": KEY}
    set_connection("ai_jobs", conn_type="ai_jobs", host="http://127.0.0.1:9", extra=extra)
    submit(jobs, "s")
    async with app_client() as made:
        yield made


def app_client() -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app=webhooks.make_app()), base_url="http://airflow")


def completed(jobs: JobDeployment) -> int:
    with jobs.store() as store:
        return store.jobs().counts(["s"])["s"].completed


async def deliver(client: httpx.AsyncClient, data: Any, headers: dict[str, str], job: str = JOB) -> httpx.Response:
    return await client.post(f"/jobs/{job}", content=data, headers=headers)


async def test_a_signed_reply_is_durable_when_it_is_acknowledged(
    client: httpx.AsyncClient, jobs: JobDeployment
) -> None:
    """Without a login."""
    data = body()
    answer = await deliver(client, data, signed(data))
    assert (answer.status_code, answer.content) == (204, b"")
    assert completed(jobs) == 1


async def test_every_refusal_looks_the_same(client: httpx.AsyncClient, jobs: JobDeployment) -> None:
    """Unsigned, wrongly signed, stale, for another job, too large: nobody learns which."""
    data, large = body(), b"x" * (MOST_BYTES + 1)

    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b"x" * 65_536

    other = "whsec_" + base64.b64encode(b"9" * 32).decode()
    answers = [
        await deliver(client, data, {}),
        await deliver(client, data, signed(data, key=other)),
        await deliver(client, data, signed(data, ago=400)),
        await deliver(client, data, signed(data), job=job_id("s", 1)),
        await deliver(client, data, signed(data), job="..%2f..%2fetc"),
        await deliver(client, large, signed(data)),
        await deliver(client, endless(), signed(data)),
        await deliver(client, data, {"content-length": "many", **signed(data)}),
    ]
    assert {(answer.status_code, answer.content, tuple(answer.headers.items())) for answer in answers[:4]} == {
        (401, b"", (("content-length", "0"),))
    }
    assert {answer.status_code for answer in answers} <= {401, 404}
    assert completed(jobs) == 0
    with jobs.store() as store:
        found = overview(store).jobs
    assert found is not None
    assert set(found.unknown_replies) == {"unsigned", "wrong_signature", "stale", "wrong_job", "oversized"}


async def test_a_replay_is_refused_and_audited(client: httpx.AsyncClient, jobs: JobDeployment) -> None:
    """Somebody sends what he has overheard: nothing arrives a second time."""
    data = body()
    headers = signed(data)
    assert [(await deliver(client, data, headers)).status_code for _ in range(2)] == [204, 401]
    with jobs.store() as store:
        assert completed(jobs) == 1
        found = overview(store).jobs
    assert found is not None
    assert found.unknown_replies == {"replayed": 1}


async def test_two_keys_are_active_while_they_are_rotated(
    client: httpx.AsyncClient, jobs: JobDeployment, set_connection: Callable[..., None]
) -> None:
    """Workers may still sign with the old one."""
    extra = {**jobs.extra, "webhook_secret": OTHER, "webhook_second_secret": KEY}
    set_connection("ai_jobs", conn_type="ai_jobs", host="http://127.0.0.1:9", extra=extra)
    submit(jobs, "r")
    for number, key in enumerate((KEY, OTHER)):
        name = job_id("r", number)
        data = body(name)
        assert (await deliver(client, data, signed(data, key=key, job=name), job=name)).status_code == 204


async def test_nothing_is_acknowledged_while_the_store_is_down(client: httpx.AsyncClient, jobs: JobDeployment) -> None:
    """It may be delivered again; and then it is taken."""
    data = body()
    headers = signed(data)
    jobs.store_file.rename(jobs.folder / "away.db")
    jobs.store_file.mkdir()
    assert (await deliver(client, data, headers)).status_code == 503
    jobs.store_file.rmdir()
    (jobs.folder / "away.db").rename(jobs.store_file)
    assert (await deliver(client, data, headers)).status_code == 204
    assert completed(jobs) == 1


async def test_nothing_else_is_served(client: httpx.AsyncClient) -> None:
    """No documentation, no listing, nothing to read."""
    for path, status in (("/docs", 404), ("/openapi.json", 404), ("/jobs/", 404), (f"/jobs/{JOB}", 405)):
        assert (await client.get(path)).status_code == status


async def test_a_receiver_without_a_connection_asks_for_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """And looks it up again, though not for everyone who asks."""
    looked: list[str] = []

    def connection(self: Any) -> Any:
        looked.append(self.transport_conn_id)
        raise RuntimeError("nowhere")

    monkeypatch.setattr(webhooks.AIJobsHook, "connection", connection)
    data = body()
    async with app_client() as client:
        assert [(await deliver(client, data, signed(data))).status_code for _ in range(3)] == [503] * 3
    assert looked == ["ai_jobs"]
