"""A small client of Airflow's public REST API, for tests and the demo: trigger, wait, clear, look inside.

Calls are made one at a time on purpose: concurrent writes break an Airflow on SQLite.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import httpx

from tests.support.processes import ServiceError

PAGE = 100
POLL_SECONDS = 0.25
FINISHED_RUN_STATES = frozenset({"success", "failed"})


class AirflowApi:
    """The REST API at ``url``, as an administrator (simple auth manager, all admins)."""

    def __init__(self, client: httpx.Client) -> None:
        self._client = client

    def get(self, path: str, **params: Any) -> Any:
        """GET ``/api/v2`` + ``path``; the decoded body."""
        return self.request("GET", path, params=params)

    def post(self, path: str, body: Mapping[str, Any]) -> Any:
        """POST a JSON body; the decoded answer."""
        return self.request("POST", path, json=dict(body))

    def patch(self, path: str, body: Mapping[str, Any]) -> Any:
        """PATCH a JSON body; the decoded answer."""
        return self.request("PATCH", path, json=dict(body))

    def request(self, method: str, path: str, **options: Any) -> Any:
        """Any call; :class:`ServiceError` with Airflow's own words on an error status."""
        if "Authorization" not in self._client.headers:
            self._client.headers["Authorization"] = f"Bearer {self._token()}"
        answer = self._client.request(method, f"/api/v2{path}", **options)
        if answer.is_error:
            raise ServiceError(f"{method} {path}: {answer.status_code} {answer.text[:2000]}")
        return answer.json() if answer.content else None

    def _token(self) -> str:
        answer = self._client.get("/auth/token")
        answer.raise_for_status()
        return str(answer.json()["access_token"])

    def pages(self, path: str, key: str, **params: Any) -> Iterator[dict[str, Any]]:
        """Every entry of a paged collection."""
        offset = 0
        while entries := self.get(path, limit=PAGE, offset=offset, **params)[key]:
            yield from entries
            offset += len(entries)

    def healthy(self) -> bool:
        """Whether database, scheduler, triggerer and dag processor all report healthy."""
        try:
            health = self._client.get("/api/v2/monitor/health").raise_for_status().json()
        except (httpx.HTTPError, ValueError):
            return False
        parts = ("metadatabase", "scheduler", "triggerer", "dag_processor")
        return all((health.get(part) or {}).get("status") == "healthy" for part in parts)

    def has_dag(self, dag_id: str) -> bool:
        """Whether the dag processor has parsed ``dag_id``; :class:`ServiceError` when its file does not import."""
        if errors := self.get("/importErrors")["import_errors"]:
            raise ServiceError("\n".join(f"{error['filename']}: {error['stack_trace']}" for error in errors))
        return dag_id in {dag["dag_id"] for dag in self.pages("/dags", "dags")}

    def wait_for_dag(self, dag_id: str, *, deadline_seconds: float = 60.0) -> None:
        """Wait until ``dag_id`` has been parsed."""
        deadline = time.monotonic() + deadline_seconds
        while not self.has_dag(dag_id):
            if time.monotonic() >= deadline:
                raise ServiceError(f"DAG {dag_id} was not parsed within {deadline_seconds:g} s")
            time.sleep(POLL_SECONDS)

    def trigger(self, dag_id: str, *, conf: Mapping[str, Any] | None = None, **body: Any) -> str:
        """Start a run; its id. ``body`` may carry ``dag_run_id``, ``logical_date`` (ISO), ``partition_key``…"""
        run = self.post(f"/dags/{dag_id}/dagRuns", {"logical_date": None, "conf": dict(conf or {}), **body})
        return str(run["dag_run_id"])

    def dag_runs(self, dag_id: str, **filters: Any) -> list[dict[str, Any]]:
        """The runs of a DAG, e.g. ``run_type="backfill"``."""
        return list(self.pages(f"/dags/{dag_id}/dagRuns", "dag_runs", order_by="run_after", **filters))

    def wait_for_run(self, dag_id: str, run_id: str, *, deadline_seconds: float, state: str = "success") -> None:
        """Wait until a run ends in ``state``; :class:`ServiceError` with its tasks when it ends otherwise, or not."""
        deadline = time.monotonic() + deadline_seconds
        while (now := self.get(f"/dags/{dag_id}/dagRuns/{run_id}")["state"]) not in FINISHED_RUN_STATES:
            if time.monotonic() >= deadline:
                break
            time.sleep(POLL_SECONDS)
        if now != state:
            raise ServiceError(f"run {run_id} of {dag_id} is {now}, expected {state}:\n{self._story(dag_id, run_id)}")

    def wait_for_backfill(self, dag_id: str, *, runs: int, deadline_seconds: float) -> list[dict[str, Any]]:
        """Wait until ``runs`` backfill runs of a DAG have succeeded; the runs."""
        deadline = time.monotonic() + deadline_seconds
        while len(found := self.dag_runs(dag_id, run_type="backfill")) < runs:
            if time.monotonic() >= deadline:
                raise ServiceError(f"the backfill of {dag_id} made {len(found)} runs of {runs}")
            time.sleep(POLL_SECONDS)
        for run in found:
            self.wait_for_run(dag_id, run["dag_run_id"], deadline_seconds=deadline - time.monotonic())
        return self.dag_runs(dag_id, run_type="backfill")

    def task_instances(self, dag_id: str, run_id: str) -> list[dict[str, Any]]:
        """Every task instance of a run, mapped ones one by one."""
        return list(self.pages(f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances", "task_instances"))

    def clear(self, dag_id: str, run_id: str, task_ids: Sequence[str | tuple[str, int]], **flags: Any) -> None:
        """Clear task instances as the UI does; ``("infer", 3)`` is one mapped index."""
        body = {"dry_run": False, "only_failed": False, "reset_dag_runs": True, "dag_run_id": run_id}
        self.post(f"/dags/{dag_id}/clearTaskInstances", {**body, "task_ids": list(task_ids), **flags})

    def clear_run(self, dag_id: str, run_id: str) -> None:
        """Clear every task of a run, as the UI's Clear on a run does."""
        self.post(f"/dags/{dag_id}/dagRuns/{run_id}/clear", {"dry_run": False, "only_failed": False})

    def xcom(self, dag_id: str, run_id: str, task_id: str, *, key: str = "return_value", map_index: int = -1) -> Any:
        """An XCom value as stored."""
        path = f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/xcomEntries/{key}"
        return self.get(path, map_index=map_index, deserialize=False)["value"]

    def task_state(self, dag_id: str, run_id: str, task_id: str, *, map_index: int = -1) -> dict[str, Any]:
        """The task state store of a task instance, key to value."""
        path = f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/state-store"
        entries = self.pages(path, "task_state_store", map_index=map_index)
        return {entry["key"]: entry["value"] for entry in entries}

    def task_log(self, instance: Mapping[str, Any]) -> str:
        """The log of the last try of a task instance, as one text of JSON lines."""
        path = f"/dags/{instance['dag_id']}/dagRuns/{instance['dag_run_id']}/taskInstances/{instance['task_id']}"
        answer = self.get(f"{path}/logs/{max(1, instance['try_number'])}", map_index=instance["map_index"])
        return "\n".join(json.dumps(line) for line in answer["content"])

    def _story(self, dag_id: str, run_id: str) -> str:
        lines = []
        for instance in self.task_instances(dag_id, run_id):
            name, state, tries = instance["task_id"], instance["state"], instance["try_number"]
            lines.append(f"{name}[{instance['map_index']}] is {state} at try {tries}")
            if state in ("failed", "up_for_retry"):
                lines.append(self.task_log(instance)[-4000:])
        return "\n".join(lines)


@contextmanager
def airflow_api(url: str) -> Iterator[AirflowApi]:
    """A client of the api-server at ``url``; proxies of the environment are not used."""
    with httpx.Client(base_url=url, trust_env=False, timeout=60.0) as client:
        yield AirflowApi(client)
