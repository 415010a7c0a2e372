"""The connection type `ai_endpoint`: its form, what a connection means, and the Test button."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from airflow_provider_ai import get_provider_info
from airflow_provider_ai.core.config import PROTOCOLS
from airflow_provider_ai.exceptions import SpecError
from airflow_provider_ai.hooks import ai_endpoint
from airflow_provider_ai.hooks.ai_endpoint import AIEndpointHook, endpoint_settings
from benchmarks.stub import StubServer
from tests.support.processes import free_port

GRPC = '{"model": "m", "protocol": "open-inference-grpc"}'


@dataclass
class Fields:
    """An Airflow connection, as far as it is read."""

    host: str | None = "https://models.example.org"
    schema: str | None = None
    port: int | None = None
    password: str | None = None
    extra: str | None = '{"model": "m"}'
    conn_id: str = "risk_model"


@pytest.mark.parametrize(
    ("fields", "url"),
    [
        (Fields(host="https://models.example.org/base"), "https://models.example.org/base"),
        (Fields(host="models.example.org"), "https://models.example.org"),  # https unless told otherwise
        (Fields(host="models.example.org", schema="http", port=8080), "http://models.example.org:8080"),
        (Fields(host="http://127.0.0.1", port=8080), "http://127.0.0.1:8080"),
        (Fields(host="http://127.0.0.1:9090", port=8080), "http://127.0.0.1:9090"),  # the URL's own port wins
        (Fields(host="http://127.0.0.1/a", port=8080), "http://127.0.0.1:8080/a"),
        (Fields(host="http://[::1]/a", port=8080), "http://[::1]:8080/a"),
        (Fields(host="http://[::1]:9090/a"), "http://[::1]:9090/a"),
        # The port that is meant anyway changes nothing: checkpoints belong to the URL.
        (Fields(host="https://models.example.org", port=443), "https://models.example.org"),
        (Fields(host="https://models.example.org:443/base"), "https://models.example.org/base"),
        (Fields(host="http://models.example.org", port=443), "http://models.example.org:443"),
        (Fields(host="https://models.example.org", port=0), "https://models.example.org"),
        # gRPC has no port that is meant anyway.
        (Fields(host="grpc://127.0.0.1:8081", extra=GRPC), "grpc://127.0.0.1:8081"),
        (Fields(host="grpc://127.0.0.1", port=8081, extra=GRPC), "grpc://127.0.0.1:8081"),
        (Fields(host="models.example.org", port=443, extra=GRPC), "grpcs://models.example.org:443"),
        (Fields(host="127.0.0.1", schema="grpc", port=80, extra=GRPC), "grpc://127.0.0.1:80"),
    ],
)
def test_where_the_endpoint_is(fields: Fields, url: str) -> None:
    """A whole URL in the host field, or schema, host and port."""
    assert endpoint_settings(fields).url == url


def test_defaults() -> None:
    """What the form shows as default is what an absent extra means."""
    settings = endpoint_settings(Fields(extra='{"model": "m", "path": "", "price_per_call": null}'))
    form = get_provider_info.get_provider_info()["connection-types"][0]["conn-fields"]
    assert settings.protocol == form["protocol"]["schema"]["default"] == "open-inference"
    assert settings.verify_tls is form["verify_tls"]["schema"]["default"] is True
    assert (settings.path, settings.api_key, settings.price_per_call) == (None, None, 0.0)


def test_the_form_and_the_parser_know_the_same_fields() -> None:
    """A field in the form that nobody reads would be a lie, and so would one that cannot be filled in."""
    form = get_provider_info.get_provider_info()["connection-types"][0]
    assert set(form["conn-fields"]) == set(ai_endpoint.EXTRAS)
    assert form["connection-type"] == AIEndpointHook.conn_type
    assert form["hook-class-name"] == f"{AIEndpointHook.__module__}.{AIEndpointHook.__qualname__}"
    assert set(form["conn-fields"]["protocol"]["schema"]["enum"]) == set(PROTOCOLS)


EVERYTHING = {
    "protocol": "openai-chat",
    "model": "m",
    "path": "/chat",
    "headers": {"X-Tenant": "ward-7"},
    "verify_tls": False,
    "ca_file": "/etc/ca.pem",
    "client_cert_file": "/etc/cert.pem",
    "client_key_file": "/etc/key.pem",
    "price_per_million_input_tokens": 2.5,
    "price_per_million_output_tokens": 10,
    "price_per_call": 0.01,
    "p99_seconds": 1.5,
}


@pytest.mark.parametrize("as_text", [False, True], ids=["JSON values", "text, as in a connection URI"])
def test_every_extra_arrives(as_text: bool) -> None:
    """Also where Airflow hands all of them over as text."""
    text = {key: value if isinstance(value, str) else json.dumps(value) for key, value in EVERYTHING.items()}
    settings = endpoint_settings(Fields(extra=json.dumps(text if as_text else EVERYTHING), password="k"))
    assert {name: getattr(settings, name) for name in EVERYTHING} == EVERYTHING
    assert settings.api_key == "k"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (Fields(host=None), "the URL is missing"),
        (Fields(extra=None), "model must be a name"),
        (Fields(extra="not json"), "extra field must be a JSON object"),
        (Fields(extra="[1]"), "extra field must be a JSON object"),
        (Fields(extra='{"model": "m", "verfy_tls": false}'), "unknown extra 'verfy_tls'; did you mean 'verify_tls'?"),
        (Fields(extra='{"model": "m", "zzz": 1}'), "unknown extra 'zzz'; known are protocol, model"),
        (Fields(extra='{"model": "m", "verify_tls": "maybe"}'), "extra 'verify_tls' must be true or false"),
        (Fields(extra='{"model": "m", "price_per_call": "cheap"}'), "extra 'price_per_call' must be a number"),
        (Fields(extra='{"model": "m", "price_per_call": -1}'), "price_per_call must be a number ≥ 0"),
        (Fields(extra='{"model": "m", "headers": "x"}'), "extra 'headers' must be a JSON object"),
        (Fields(extra='{"model": "m", "protocol": "soap"}'), "protocol must be one of"),
        (Fields(extra='{"model": "m", "p99_seconds": "soon"}'), "extra 'p99_seconds' must be a number (seconds)"),
        (Fields(extra='{"model": "m", "p99_seconds": 0}'), "p99_seconds must be a number > 0 (seconds)"),
        (Fields(host="ftp://models.example.org"), "endpoint url must start with"),
        (Fields(host="grpc://models.example.org:1"), "must start with http:// or https:// for protocol 'open-infer"),
        (Fields(extra=GRPC), "must start with grpc:// or grpcs:// for protocol 'open-inference-grpc', got 'https'"),
        (Fields(host="models.example.org", extra=GRPC), "endpoint url must name a port: grpc://host:port"),
        (Fields(host="https://models.example.org:port"), "the endpoint URL must be scheme://host"),
        (Fields(host="https://[::1"), "the endpoint URL must be scheme://host"),
    ],
)
def test_what_cannot_be_right_is_refused(fields: Fields, message: str) -> None:
    """The message names the connection and the field, and says what it must be."""
    with pytest.raises(SpecError) as error:
        endpoint_settings(fields)
    assert message in str(error.value)
    assert "connection 'risk_model'" in str(error.value)


def test_no_message_shows_a_secret() -> None:
    """Neither a credential in the URL, nor the key, nor a header."""
    secret = "s3cr3t-value"
    bad = (
        Fields(host=f"https://user:{secret}@models.example.org", password=secret),
        Fields(extra=json.dumps({"model": "", "headers": {"Authorization": secret}}), password=secret),
        Fields(extra=json.dumps({"model": "m", "headers": f"{secret}"})),
    )
    for fields in bad:
        with pytest.raises(SpecError) as error:
            endpoint_settings(fields)
        assert secret not in str(error.value)
    good = Fields(extra=json.dumps({"model": "m", "headers": {"Authorization": secret}}), password=secret)
    assert secret not in repr(endpoint_settings(good))


@pytest.mark.parametrize(
    "value",
    [
        '{"conn_type": "ai_endpoint", "host": "http://127.0.0.1:8080", "password": "k", "extra": {"model": "m"}}',
        "ai-endpoint://:k@127.0.0.1:8080/http?model=m",
        "ai-endpoint://:k@http%3A%2F%2F127.0.0.1%3A8080/?model=m",
    ],
    ids=["JSON", "URI with schema, host and port", "URI with a whole URL as host"],
)
def test_connections_of_the_environment(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The forms in which Airflow reads connections from environment variables."""
    monkeypatch.setenv("AIRFLOW_CONN_RISK_MODEL", value)
    settings = AIEndpointHook("risk_model").get_conn()
    assert (settings.url, settings.model, settings.api_key) == ("http://127.0.0.1:8080", "m", "k")


@pytest.fixture(scope="module")
def stub() -> Iterator[StubServer]:
    with StubServer(latency_ms=0) as server:
        yield server


def test_the_test_button_says_ready(stub: StubServer, set_connection: Callable[..., None]) -> None:
    """It asks the endpoint itself."""
    set_connection("risk_model", conn_type="ai_endpoint", host=stub.url, extra={"model": "m"})
    assert AIEndpointHook("risk_model").test_connection() == (True, "model 'm' is ready.")


def test_the_test_button_asks_over_grpc(set_connection: Callable[..., None]) -> None:
    """In the protocol of the connection."""
    from airflow_provider_ai.adapters.endpoints.open_inference_messages import ModelReadyResponse
    from tests.adapters.endpoints.grpc_servers import serve_grpc

    with serve_grpc(lambda *_: ModelReadyResponse(ready=True).SerializeToString()) as server:
        extra = {"model": "m", "protocol": "open-inference-grpc"}
        set_connection("risk_model", conn_type="ai_endpoint", host=server.url, extra=extra)
        assert AIEndpointHook("risk_model").test_connection() == (True, "model 'm' is ready.")


@pytest.mark.parametrize(
    ("connection", "message"),
    [
        ({"extra": {}}, "model must be a name"),
        ({"extra": {"model": "m"}, "port": "free"}, "cannot connect"),
        ({"extra": {"model": "other", "protocol": "openai-chat"}}, "does not list model 'other'"),
    ],
    ids=["a connection that cannot be right", "nothing listens", "another model is served"],
)
def test_the_test_button_says_what_to_do(
    connection: dict[str, Any], message: str, stub: StubServer, set_connection: Callable[..., None]
) -> None:
    """It never raises and never says just 'failed'."""
    url = f"http://127.0.0.1:{free_port()}" if connection.pop("port", None) else stub.url
    set_connection("risk_model", conn_type="ai_endpoint", host=url, password="s3cr3t-value", **connection)
    ready, told = AIEndpointHook("risk_model").test_connection()
    assert not ready
    assert message in told
    assert "s3cr3t-value" not in told


def test_the_test_button_warns_of_open_transport(
    monkeypatch: pytest.MonkeyPatch, set_connection: Callable[..., None]
) -> None:
    """Plain http beyond the own machine works, and says what it means; so does a certificate nobody checks."""
    from airflow_provider_ai.adapters.endpoints import readiness

    monkeypatch.setattr(readiness, "check_ready", lambda *_, **__: readiness.Readiness(True, "up"))
    told = {}
    for host, verify in (
        ("http://models.example.org", True),
        ("https://models.example.org", False),
        ("grpc://models.example.org:1", True),
    ):
        protocol = "open-inference-grpc" if host.startswith("grpc") else "open-inference"
        extra = {"model": "m", "verify_tls": verify, "protocol": protocol}
        set_connection("risk_model", conn_type="ai_endpoint", host=host, extra=extra)
        ready, told[host] = AIEndpointHook("risk_model").test_connection()
        assert ready
    assert "unencrypted over http: use https" in told["http://models.example.org"]
    assert "unencrypted over grpc: use grpcs" in told["grpc://models.example.org:1"]
    assert "not verified" in told["https://models.example.org"]


def test_airflow_lists_the_connection_type() -> None:
    """The providers manager accepts the declaration: hook, form and field behaviour."""
    from airflow.providers_manager import ProvidersManager

    manager = ProvidersManager()
    assert manager.hooks["ai_endpoint"].hook_name == "AI endpoint"
    assert manager.field_behaviours["ai_endpoint"]["relabeling"]["host"] == "Endpoint URL"
    widgets = {name for name in manager.connection_form_widgets if name.startswith("extra__ai_endpoint__")}
    assert widgets == {f"extra__ai_endpoint__{name}" for name in ai_endpoint.EXTRAS}
