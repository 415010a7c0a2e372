"""The spec of the asynchronous pattern: one file for everyone, and the first thing that is wrong with it is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from airflow_provider_ai.cli.job_spec import JobSpec, load_job_spec
from airflow_provider_ai.exceptions import SpecError

WHOLE = """
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
KAFKA = """
[transport]
kind = "kafka"
bootstrap_servers = "kafka-1.example.org:9093,kafka-2.example.org:9093"
sasl_mechanism = "SCRAM-SHA-512"
sasl_username = "ai"
sasl_password_env = "KAFKA_PASSWORD"
ca_file = "tls/ca.pem"
request_queue = "ai.requests"
result_queue = "ai.results"
dead_letter_queue = "ai.dead"
[store]
url = "postgresql+psycopg://ai@db.example.org/airflow"
"""


def load(folder: Path, text: str, environ: dict[str, str] | None = None) -> JobSpec:
    file = folder / "jobs.toml"
    file.write_text(text)
    return load_job_spec(file, environ=environ or {})


def test_one_spec_serves_everyone(tmp_path: Path) -> None:
    """Worker, dispatcher, submitters and waiters; paths are below its folder."""
    spec = load(tmp_path, WHOLE)
    assert spec.transport.queues == ("ai-requests", "ai-results", "ai-dead")
    assert spec.store == f"sqlite:///{tmp_path}/store.db"
    assert spec.claim_check.uri == f"{tmp_path}/claims/"
    assert (spec.worker.concurrency, spec.worker.max_attempts) == (64, 5)
    assert spec.endpoint is not None
    assert spec.endpoint.url == "http://127.0.0.1:8080"
    assert (spec.handler, spec.webhook) == (None, None)


def test_transport_and_store_are_enough_to_submit(tmp_path: Path) -> None:
    """What only a worker needs may be absent; a password comes from the environment, and files from beside the spec."""
    spec = load(tmp_path, KAFKA, {"KAFKA_PASSWORD": "SECRET"})
    assert spec.transport.security == "sasl_ssl"
    assert spec.transport.sasl_password == "SECRET"
    assert spec.transport.ca_file == f"{tmp_path}/tls/ca.pem"
    assert spec.endpoint is None
    assert "SECRET" not in repr(spec)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (WHOLE.replace("[transport]", "[transporter]"), r"unknown table \[transporter\]; did you mean \[transport\]"),
        (WHOLE.replace("result_queue", "reply_queue"), "unknown key 'reply_queue' in .transport.; did you mean"),
        (WHOLE.replace('region = "us-east-1"', "region = 1"), "'region' in .transport. must be a string"),
        (WHOLE.replace('kind = "sqs"', 'kind = "nats"'), "kind must be one of"),
        (WHOLE.replace('region = "us-east-1"', 'access_key = "SECRET"'), "'access_key' must not be in .transport."),
        (WHOLE.replace('dead_letter_queue = "ai-dead"', ""), "missing key 'dead_letter_queue' in .transport."),
        (WHOLE.replace("concurrency = 64", "concurrency = 0"), ".worker. concurrency must be an integer ≥ 1"),
        (WHOLE.replace('url = "sqlite:///store.db"', ""), "missing key 'url' in .store."),
        (WHOLE.replace("127.0.0.1:4577", "sqs.example.org"), ".transport. endpoint_url must be https://"),
        (KAFKA, "'sasl_password_env' names the environment variable 'KAFKA_PASSWORD', which is not set"),
        (KAFKA.replace("_env", ""), "did you mean 'sasl_password_env'"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(tmp_path: Path, text: str, said: str) -> None:
    """With file, table and key; no value of a secret is shown."""
    with pytest.raises(SpecError, match=said) as refused:
        load(tmp_path, text)
    assert str(refused.value).startswith(f"{tmp_path}/jobs.toml: ")
    assert "SECRET" not in str(refused.value)
