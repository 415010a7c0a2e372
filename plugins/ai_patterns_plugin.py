"""Adds the tab "AI batch" to DAG runs, and takes the webhooks of workers.

The tab shows how far the mapped inference tasks are, all of them on one page. It holds no data: its script asks
Airflow's public API as the person who looks at it, so it shows what that person may see: task instances, and the
counters that the tasks keep in the task state store.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from airflow.api_fastapi.core_api.security import GetUserDep
from airflow.plugins_manager import AirflowPlugin
from fastapi import FastAPI
from fastapi.responses import FileResponse

from airflow_provider_ai.plugin import webhooks

PAGE = Path(__file__).with_name("ai_batch_progress.html")
PREFIX = "/ai-patterns"

app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)


@app.get("/batch-progress")
def batch_progress(_user: GetUserDep) -> FileResponse:
    """The page; 401 for whom Airflow does not know."""
    return FileResponse(PAGE, media_type="text/html", headers={"Cache-Control": "no-store"})


class AIPatternsPlugin(AirflowPlugin):
    """What Airflow registers."""

    name = "ai_patterns"
    fastapi_apps: list[Any] = [  # noqa: RUF012 - read by Airflow
        {"app": app, "url_prefix": PREFIX, "name": "AI patterns"},
        # Open on purpose: workers have no login. What is not signed is refused.
        {"app": webhooks.make_app(), "url_prefix": webhooks.PREFIX, "name": "AI webhooks"},
    ]
    external_views: list[Any] = [  # noqa: RUF012 - read by Airflow
        {
            "name": "AI batch",
            "href": f"{PREFIX}/batch-progress?dag={{DAG_ID}}&run={{RUN_ID}}",
            "destination": "dag_run",
            "url_route": "ai_batch",
        }
    ]
