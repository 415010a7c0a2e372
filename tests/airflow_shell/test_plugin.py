"""The plugin that shows the progress of a batch on its DAG run."""

from __future__ import annotations

import importlib.util
from types import ModuleType

import httpx
import pytest

from tests.support.processes import REPOSITORY


@pytest.fixture(scope="module")
def plugin() -> ModuleType:
    path = REPOSITORY / "plugins" / "ai_patterns_plugin.py"
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_tab_leads_to_the_page(plugin: ModuleType) -> None:
    """What is registered fits together, and the page is there."""
    [view] = plugin.AIPatternsPlugin.external_views
    registered, _webhooks = plugin.AIPatternsPlugin.fastapi_apps
    assert view["destination"] == "dag_run"
    assert view["href"].startswith(f"{registered['url_prefix']}/batch-progress?")
    assert "{DAG_ID}" in view["href"]
    assert "{RUN_ID}" in view["href"]
    assert plugin.PAGE.is_file()


async def test_strangers_are_refused(plugin: ModuleType) -> None:
    """Sub-applications are open unless they say otherwise."""
    transport = httpx.ASGITransport(app=plugin.app)
    async with httpx.AsyncClient(transport=transport, base_url="http://airflow") as client:
        for path, status in (("/batch-progress", 401), ("/docs", 404), ("/openapi.json", 404)):
            assert (await client.get(path)).status_code == status


def test_the_page_writes_text_and_never_markup(plugin: ModuleType) -> None:
    """Names of files and tasks come from outside."""
    page = plugin.PAGE.read_text()
    assert not any(word in page for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("))
