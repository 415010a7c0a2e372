"""The health endpoint: what supervisors and Prometheus ask."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections import Counter

import pytest

from airflow_provider_ai.adapters.health import HealthServer
from airflow_provider_ai.core.job_metrics import DispatcherMetrics, WorkerMetrics
from airflow_provider_ai.exceptions import SpecError


def get(server: HealthServer, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{server.port}{path}", timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_it_says_whether_the_process_lives_and_is_ready() -> None:
    """200 or 503; nothing else is served."""
    state = {"live": True, "ready": False}
    server = HealthServer(
        "127.0.0.1", 0, live=lambda: state["live"], ready=lambda: state["ready"], metrics=lambda: "m 1\n"
    )
    try:
        assert get(server, "/health/live") == (200, "ok\n")
        assert get(server, "/health/ready") == (503, "not ok\n")
        state.update(live=False, ready=True)
        assert get(server, "/health/live?verbose") == (503, "not ok\n")
        assert get(server, "/health/ready") == (200, "ok\n")
        assert get(server, "/metrics") == (200, "m 1\n")
        assert get(server, "/")[0] == 404
        with pytest.raises(SpecError, match="health_port"):
            HealthServer("127.0.0.1", server.port, live=bool, ready=bool, metrics=str)
    finally:
        server.close()


def test_a_workers_metrics_are_what_prometheus_reads() -> None:
    """Counters by label, a cumulative histogram, a line of help and type for each."""
    metrics = WorkerMetrics(outcomes=Counter(succeeded=3, failed=1), receives=5, in_flight=2)
    for seconds in (0.004, 0.03, 0.3, 400.0):
        metrics.durations.add(seconds)
    lines = metrics.text().splitlines()
    assert "# TYPE ai_worker_jobs_total counter" in lines
    assert 'ai_worker_jobs_total{outcome="failed"} 1' in lines
    assert 'ai_worker_jobs_total{outcome="succeeded"} 3' in lines
    assert "ai_worker_receives_total 5" in lines
    assert "# TYPE ai_worker_in_flight gauge" in lines
    assert 'ai_worker_handler_seconds_bucket{le="0.01"} 1' in lines
    assert 'ai_worker_handler_seconds_bucket{le="0.5"} 3' in lines
    assert 'ai_worker_handler_seconds_bucket{le="300"} 3' in lines
    assert 'ai_worker_handler_seconds_bucket{le="+Inf"} 4' in lines
    assert "ai_worker_handler_seconds_count 4" in lines
    assert "ai_worker_handler_seconds_sum 400.334000" in lines
    assert metrics.text().endswith("\n")


def test_a_dispatchers_metrics_likewise() -> None:
    """By the way outcomes came."""
    lines = DispatcherMetrics(arrived=Counter(queue=7), resent=2).text().splitlines()
    assert 'ai_dispatcher_arrived_total{via="queue"} 7' in lines
    assert "ai_dispatcher_resent_total 2" in lines
