"""Spans of synchronous calls, with the real OpenTelemetry SDK."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from airflow_provider_ai.core.answer import Answer
from airflow_provider_ai.core.config import EndpointSettings
from airflow_provider_ai.core.fallback import Static
from airflow_provider_ai.core.requests import JsonRequest
from airflow_provider_ai.patterns.daemon_threads import DaemonThreads
from airflow_provider_ai.runtime.sync_call import SyncCaller
from airflow_provider_ai.runtime.telemetry import CallSpan
from tests.support.processes import REPOSITORY, child_environment, free_port

trace = pytest.importorskip("opentelemetry.trace")
sdk = pytest.importorskip("opentelemetry.sdk.trace")
export = pytest.importorskip("opentelemetry.sdk.trace.export")
memory = pytest.importorskip("opentelemetry.sdk.trace.export.in_memory_span_exporter")

CANARY = "PHI-30cf9d"


class Exporter(memory.InMemorySpanExporter):  # type: ignore[misc, name-defined]
    """Holds spans; ``hang`` makes it take as long as a dead collector."""

    def __init__(self) -> None:
        super().__init__()
        self.hang: threading.Event | None = None

    def export(self, spans: Any) -> Any:
        if self.hang is not None:
            self.hang.wait(30)
        return super().export(spans)


@pytest.fixture
def exporter(monkeypatch: pytest.MonkeyPatch) -> Iterator[Exporter]:
    """Of a provider in place of the process's own, which exports each span when it ends."""
    exporter = Exporter()
    provider = sdk.TracerProvider()
    provider.add_span_processor(export.SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "get_tracer", provider.get_tracer)
    yield exporter
    if exporter.hang is not None:
        exporter.hang.set()


def call() -> Answer:
    endpoint = EndpointSettings(url=f"http://127.0.0.1:{free_port()}", protocol="json", model="m")
    with SyncCaller(endpoint=endpoint, request=JsonRequest(), fallback=[Static({"x": CANARY})]) as caller:
        return caller.call({"note": CANARY})


def test_a_call_is_a_span_that_says_what_the_answer_is(exporter: Exporter) -> None:
    """And holds neither input nor output."""
    call()
    (span,) = exporter.get_finished_spans()
    attributes = dict(span.attributes)
    assert span.name == "ai.sync_call"
    assert attributes.pop("ai.endpoint").startswith("127.0.0.1:")
    assert attributes == {
        "ai.deadline_seconds": 3.0,
        "ai.degraded": True,
        "ai.reason": "connect",
        "ai.source": "static",
        "ai.attempts": 1,
        "ai.breaker_state": "unknown",
    }
    assert CANARY not in span.to_json()


def test_a_collector_that_hangs_holds_no_call(exporter: Exporter) -> None:
    """The span is left behind."""
    exporter.hang = threading.Event()
    began = time.monotonic()
    assert call().reason == "connect"
    assert time.monotonic() - began < 2


@pytest.mark.parametrize("where", ["start", "set", "end"])
def test_a_broken_tracer_changes_nothing(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever it raises, and wherever."""

    class Span:
        def is_recording(self) -> bool:
            return True

        def set_attributes(self, _attributes: Any) -> None:
            if where == "set":
                raise RuntimeError

        def end(self) -> None:
            raise RuntimeError

    class Tracer:
        def start_span(self, *_: Any, **__: Any) -> Span:
            if where == "start":
                raise RuntimeError
            return Span()

    monkeypatch.setattr(trace, "get_tracer", lambda _name: Tracer())
    assert call().reason == "connect"


def test_a_call_that_is_interrupted_ends_its_span(exporter: Exporter) -> None:
    """Without an answer there is nothing to say."""
    span = CallSpan(endpoint="e", deadline_seconds=1.0, threads=DaemonThreads())
    span.end(None)
    (ended,) = exporter.get_finished_spans()
    assert set(ended.attributes) == {"ai.endpoint", "ai.deadline_seconds"}


def test_without_opentelemetry_nothing_is_imported() -> None:
    """A service that does not trace does not pay."""
    code = """
import json, sys
from airflow_provider_ai.core.config import EndpointSettings
from airflow_provider_ai.core.fallback import Static
from airflow_provider_ai.core.requests import JsonRequest
from airflow_provider_ai.runtime.sync_call import SyncCaller
endpoint = EndpointSettings(url="http://127.0.0.1:1", protocol="json", model="m")
with SyncCaller(endpoint=endpoint, request=JsonRequest(), fallback=[Static(1)]) as caller:
    answer = caller.call({"a": 1})
print(json.dumps([answer.source, "opentelemetry" in sys.modules]))
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=REPOSITORY,
        env=child_environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout) == ["static", False]
