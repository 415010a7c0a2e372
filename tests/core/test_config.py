"""Settings refuse what cannot be right, where it is written, and say what was wrong without showing a secret."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from airflow_provider_ai.core.config import (
    CheckpointSettings,
    EndpointSettings,
    InputSettings,
    Limits,
    SinkSettings,
    StorageOptions,
)
from airflow_provider_ai.exceptions import SpecError

GOOD: dict[type, dict[str, Any]] = {
    InputSettings: {"uri": "data/", "id_column": "id"},
    EndpointSettings: {"url": "http://localhost:8080", "protocol": "json", "model": "m"},
    Limits: {},
    CheckpointSettings: {"uri": "checkpoints/"},
    SinkSettings: {"url": "duckdb:///w.duckdb", "table": "t"},
}
GRPC = {"url": "grpc://localhost:8081", "protocol": "open-inference-grpc"}
NAN, INFINITE = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("kind", "change", "message"),
    [
        (InputSettings, {"uri": ""}, "input uri must be a path or URI, got ''"),
        (InputSettings, {"uri": "  "}, "input uri must be a path or URI"),
        (InputSettings, {"uri": None}, "input uri must be a path or URI, got None"),
        (InputSettings, {"id_column": ""}, "id_column must be a name, got ''"),
        (InputSettings, {"id_column": 3}, "id_column must be a name, got 3"),
        (InputSettings, {"columns": "note"}, "columns must be a sequence of names or absent, got 'note'"),  # not n, o…
        (InputSettings, {"columns": ("a", 1)}, "columns must be a sequence of names"),
        (InputSettings, {"format": "xml"}, "format must be one of"),
        (InputSettings, {"rows_per_partition": 0}, "rows_per_partition must be an integer ≥ 1, got 0"),
        (InputSettings, {"rows_per_partition": 1.5}, "rows_per_partition must be an integer ≥ 1"),
        (InputSettings, {"rows_per_partition": True}, "rows_per_partition must be an integer ≥ 1"),  # True is 1
        (InputSettings, {"max_partitions": 0}, r"max_partitions must be an integer in \[1, 1024\]"),
        (InputSettings, {"max_partitions": 1025}, "Airflow's max_map_length"),
        (EndpointSettings, {"url": "localhost:8080"}, "endpoint url must start with http:// or https://"),
        (EndpointSettings, {"url": "grpc://h:1"}, "start with http:// or https:// for protocol 'json', got 'grpc'"),
        (EndpointSettings, {**GRPC, "url": "https://h:1"}, "start with grpc:// or grpcs:// for protocol 'open-infer"),
        (EndpointSettings, {**GRPC, "url": "h:1"}, "start with grpc:// or grpcs:// for protocol"),
        (EndpointSettings, {**GRPC, "url": "grpc://:8001"}, "endpoint url must name a host"),
        (EndpointSettings, {**GRPC, "url": "grpc://h"}, "endpoint url must name a port: grpc://host:port"),
        (EndpointSettings, {**GRPC, "url": "grpcs://h/"}, "endpoint url must name a port: grpc://host:port"),
        (EndpointSettings, {**GRPC, "url": "grpc://h:99999"}, "endpoint url must be a URL"),
        (EndpointSettings, {**GRPC, "url": "grpc://h:1/v2"}, "must name no path over gRPC"),
        (EndpointSettings, {**GRPC, "path": "/v2"}, "must name no path over gRPC, where the method is always ModelInf"),
        (EndpointSettings, {**GRPC, "verify_tls": False}, "verify_tls must be true over gRPC .set ca_file"),
        (EndpointSettings, {"p99_seconds": 0}, r"p99_seconds must be a number > 0 \(seconds\) or absent, got 0"),
        (EndpointSettings, {"p99_seconds": "1"}, "p99_seconds must be a number > 0"),
        (EndpointSettings, {"p99_seconds": NAN}, "p99_seconds must be a number > 0"),
        (EndpointSettings, {"url": None}, "endpoint url must start with http://"),
        (EndpointSettings, {"url": "http://"}, "endpoint url must name a host"),
        (EndpointSettings, {"url": "http://[::1"}, "endpoint url must be a URL"),  # urlsplit raises on its own
        (EndpointSettings, {"url": "http://h:port"}, "endpoint url must be a URL"),
        (EndpointSettings, {"url": "http://h:99999"}, "endpoint url must be a URL"),
        (EndpointSettings, {"url": "http://u:hunter2@h"}, "endpoint url must carry no credentials"),
        (EndpointSettings, {"url": "http://h/base?x=1"}, "endpoint url must have no query or fragment"),
        (EndpointSettings, {"url": "http://h/base#x"}, "endpoint url must have no query or fragment"),
        (EndpointSettings, {"path": "predict"}, "endpoint path must start with /, got 'predict'"),
        (EndpointSettings, {"path": "@evil.example/x"}, "endpoint path must start with /"),  # another host
        (EndpointSettings, {"client_key_file": "key.pem"}, "client_key_file must come with client_cert_file"),
        (EndpointSettings, {"protocol": "soap"}, "protocol must be one of"),
        (EndpointSettings, {"model": ""}, "model must be a name"),
        (EndpointSettings, {"api_key": "hunter2\n"}, "api_key must hold no control characters"),  # a mounted secret
        (EndpointSettings, {"headers": {"X-Key": "hunter2\r\nX: y"}}, "headers must hold no control characters"),
        (EndpointSettings, {"headers": {"X Key:": "v"}}, "headers must be named by HTTP tokens"),
        (EndpointSettings, {"price_per_call": -0.1}, r"price_per_call must be a number ≥ 0 \(USD\), got -0.1"),
        (EndpointSettings, {"price_per_million_input_tokens": NAN}, "price_per_million_input_tokens must be"),
        (EndpointSettings, {"price_per_million_output_tokens": "1"}, "price_per_million_output_tokens must be"),
        (Limits, {"concurrency": 0}, "concurrency must be an integer ≥ 1, got 0"),
        (Limits, {"concurrency": 2.0}, "concurrency must be an integer ≥ 1, got 2.0"),
        (Limits, {"max_attempts": 0}, "max_attempts must be an integer ≥ 1"),
        (Limits, {"max_response_bytes": 0}, "max_response_bytes must be an integer ≥ 1"),
        (Limits, {"requests_per_minute": 0}, "requests_per_minute must be a number > 0 or absent"),
        (Limits, {"tokens_per_minute": INFINITE}, "tokens_per_minute must be a number > 0 or absent"),
        (Limits, {"request_deadline_seconds": 0}, r"request_deadline_seconds must be a number > 0 \(seconds\)"),
        (Limits, {"backoff_base_seconds": -1}, "backoff_base_seconds must be"),
        (Limits, {"backoff_cap_seconds": NAN}, "backoff_cap_seconds must be"),
        (Limits, {"max_outage_seconds": "300"}, "max_outage_seconds must be"),
        (Limits, {"stop_grace_seconds": -1}, "stop_grace_seconds must be a number ≥ 0"),
        (Limits, {"max_quarantined_fraction": 1.01}, r"max_quarantined_fraction must be in \[0, 1\]"),
        (Limits, {"max_quarantined_fraction": -0.01}, "max_quarantined_fraction must be"),
        (CheckpointSettings, {"uri": ""}, "checkpoint uri must be a path or URI"),
        (CheckpointSettings, {"interval_seconds": 0}, "checkpoint interval_seconds must be a number > 0"),
        (SinkSettings, {"url": "hunter2"}, "sink url must be a SQLAlchemy URL, got 'something else'"),
        (SinkSettings, {"table": ""}, "sink table must be a name"),
    ],
)
def test_a_wrong_setting_is_refused_by_name(kind: type, change: dict[str, Any], message: str) -> None:
    """Each with what it must be and what it was; no secret is shown."""
    with pytest.raises(SpecError, match=message) as caught:
        kind(**{**GOOD[kind], **change})
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("kind", GOOD)
def test_the_least_settings_are_enough_and_frozen(kind: type) -> None:
    """Everything else has a default; nothing changes under a running batch."""
    settings = kind(**GOOD[kind])
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(settings, dataclasses.fields(settings)[0].name, "x")
    with pytest.raises(TypeError):
        kind("positional")


@pytest.mark.parametrize(
    "settings",
    [
        EndpointSettings(**GOOD[EndpointSettings], api_key="hunter2", headers={"X-Key": "hunter2"}),
        SinkSettings(url="postgresql://u:hunter2@h/d", table="t"),
        StorageOptions(access_key="hunter2", secret_key="hunter2", session_token="hunter2"),
    ],
    ids=lambda settings: type(settings).__name__,
)
def test_no_secret_is_shown(settings: object) -> None:
    """Settings end up in logs and tracebacks."""
    assert "hunter2" not in repr(settings)
    assert "hunter2" not in str(settings)


@pytest.mark.parametrize(
    ("url", "path", "expected"),
    [
        ("http://h", "/predict", "http://h/predict"),
        ("http://h/", "/predict", "http://h/predict"),
        ("http://h/v1", "/v1/chat/completions", "http://h/v1/chat/completions"),  # as OpenAI clients are configured
        ("http://h/v1/", "/v1/models", "http://h/v1/models"),
        ("http://h/v2", "/v2/models/m/infer", "http://h/v2/models/m/infer"),
        ("http://h/v1", "/v2/models/m/infer", "http://h/v1/v2/models/m/infer"),  # another version is a folder
        ("http://h/proxy/v1", "/v1/models", "http://h/proxy/v1/models"),
        ("http://h/v1", "/v1x", "http://h/v1/v1x"),
    ],
)
def test_a_base_url_may_hold_the_version(url: str, path: str, expected: str) -> None:
    """It is not doubled."""
    assert EndpointSettings(url=url, protocol="json", model="m").url_of(path) == expected


def test_the_identity_of_an_endpoint_is_what_decides_the_answer() -> None:
    """URL, protocol, model, path; neither secrets nor prices nor latency: a new key must not cost all answers."""
    plain = EndpointSettings(**GOOD[EndpointSettings])
    other = dataclasses.replace(plain, api_key="hunter2", headers={"X": "y"}, p99_seconds=1.0, url=f"{plain.url}/")
    other = dataclasses.replace(other, price_per_call=1.0)
    assert other.identity() == plain.identity()
    assert dataclasses.replace(plain, model="n").identity() != plain.identity()


@pytest.mark.parametrize(
    ("fraction", "rows", "allowed"),
    [
        (0.01, 100, 1),
        (0.01, 99, 0),  # rounded down: 1 of 99 is more than 1 %
        (0.0, 10**9, 0),
        (1.0, 7, 7),
        (0.29, 100, 29),  # 0.29 * 100 is 28.999999999999996
        (0.07, 100, 7),  # 0.07 * 100 is 7.000000000000001
        (0.5, 0, 0),
    ],
)
def test_the_quarantine_allowance_is_exact(fraction: float, rows: int, allowed: int) -> None:
    """Floating point does not take a record away."""
    assert Limits(max_quarantined_fraction=fraction).quarantine_allowance(rows) == allowed
