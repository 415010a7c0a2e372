"""``airflow-ai worker`` and ``airflow-ai dispatcher``: what they make of a spec, and how they end."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_ai.cli import main, worker_arguments
from airflow_provider_ai.exceptions import StoreSchemaError
from tests.support.processes import REPOSITORY

Shown = pytest.CaptureFixture[str]
SPEC = """\
[transport]
kind = "sqs"
endpoint_url = "http://127.0.0.1:4577"
region = "us-east-1"
request_queue = "ai-requests"
result_queue = "ai-results"
dead_letter_queue = "ai-dead"
[store]
url = "sqlite:///store.db"
[claim_check]
uri = "claims/"
inline_limit_bytes = 65536
[worker]
concurrency = 64
visibility_timeout_seconds = 30
max_attempts = 5
grace_seconds = 20
[endpoint]
url = "http://127.0.0.1:8080"
protocol = "json"
model = "m"
"""


class Runtime:
    """Keeps what it is called with, or raises."""

    def __init__(self, error: Exception | None = None) -> None:
        self.jobs: list[Any] = []
        self._error = error

    def __call__(self, job: Any, **more: Any) -> None:
        self.jobs.append(job)
        if self._error is not None:
            raise self._error


def spec(folder: Path, text: str = SPEC) -> str:
    path = folder / "jobs.toml"
    path.write_text(text)
    return str(path)


def test_the_documented_spec_makes_a_worker(tmp_path: Path) -> None:
    """Paths are below the spec's folder; the command line's port wins."""
    runtime = Runtime()
    assert main(["worker", spec(tmp_path), "--health-port", "8125"], runtime=runtime) == 0
    (job,) = runtime.jobs
    assert (job.worker.concurrency, job.worker.grace_seconds, job.worker.health_port) == (64, 20, 8125)
    assert job.store == f"sqlite:///{tmp_path}/store.db"
    assert job.claim_check.uri == f"{tmp_path}/claims/"
    assert job.endpoint.url == "http://127.0.0.1:8080"
    assert job.handler is None


def test_the_same_spec_makes_a_dispatcher(tmp_path: Path) -> None:
    """Without the secrets that only a worker needs."""
    runtime = Runtime()
    webhook = '[webhook]\nurl = "https://airflow.example.org"\nsecret_env = "NOT_SET"\n[dispatcher]\nlanes = 3\n'
    assert main(["dispatcher", spec(tmp_path, SPEC + webhook)], runtime=runtime) == 0
    (job,) = runtime.jobs
    assert (job.dispatcher.lanes, job.transport.result_queue) == (3, "ai-results")


def test_the_helps_example_is_a_spec(tmp_path: Path) -> None:
    """Word for word what users are shown; the webhook's secret comes from the environment."""
    notes = worker_arguments._NOTES
    text = notes[notes.index("  [transport]") : notes.index("A handler gets")]
    runtime = Runtime()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AI_WEBHOOK_SECRET", "whsec_" + "QUJD" * 8)
        assert main(["worker", spec(tmp_path, text)], runtime=runtime) == 0
    assert runtime.jobs[0].webhook.url_of("x") == "https://airflow.example.org/ai/webhooks/jobs/x"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("concurrency = 64", "concurrency = 0"), "[worker] concurrency must be an integer ≥ 1, got 0"),
        (("concurrency = 64", "concurency = 64"), "did you mean 'concurrency'"),
        (("[endpoint]", "[handler]\ntarget = 'no target'\n[endpoint]"), "[handler] target must be module:function"),
        (("[endpoint]", "[handler]\ntarget = 'a:b'\n[endpoint]"), "either an [endpoint] or a [handler]"),
        (("[store]", "[webhook]\nurl = 'https://x.example'\nsecret_env = 'NOT_SET'\n[store]"), "'NOT_SET'"),
    ],
)
def test_a_spec_that_cannot_be_right_ends_with_2(
    tmp_path: Path, capsys: Shown, change: tuple[str, str], words: str
) -> None:
    """It says where and what, and nothing was touched."""
    runtime = Runtime()
    assert main(["worker", spec(tmp_path, SPEC.replace(*change))], runtime=runtime) == 2
    assert words in capsys.readouterr().err
    assert runtime.jobs == []


def test_a_store_of_another_version_says_what_to_do(tmp_path: Path, capsys: Shown) -> None:
    """And ends with 1."""
    runtime = Runtime(StoreSchemaError("run `airflow-ai store upgrade`"))
    assert main(["dispatcher", spec(tmp_path)], runtime=runtime) == 1
    assert "airflow-ai store upgrade" in capsys.readouterr().err


def test_a_worker_needs_no_airflow_and_no_pyarrow() -> None:
    """A fleet starts fast: what it does not use is not imported."""
    code = (
        "import sys; import airflow_provider_ai.runtime.worker, airflow_provider_ai.runtime.dispatcher\n"
        "print([name for name in ('airflow', 'pyarrow', 'numpy', 'alembic', 'boto3', 'grpc') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
