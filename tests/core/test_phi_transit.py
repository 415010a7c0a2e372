"""What is protected on its way, told from settings: the rules of each part, and the ways around them."""

from __future__ import annotations

import pytest

from airflow_provider_ai.core.config import EndpointSettings, StorageOptions
from airflow_provider_ai.core.phi_transit import (
    database_refusals,
    endpoint_refusals,
    environment_refusals,
    storage_refusals,
    transport_refusals,
)
from airflow_provider_ai.core.transport_settings import TransportSettings

QUEUES = {"request_queue": "a", "result_queue": "b", "dead_letter_queue": "c"}

GOOD_DATABASES = [
    "postgresql://db.example.org/ai?sslmode=verify-full",
    "postgresql+psycopg://ai:p%40ss@db.example.org:5432/ai?sslmode=verify-full&sslrootcert=/ca.pem",
    "postgresql://a.example.org,b.example.org:5433/ai?sslmode=verify-full",
    "postgresql:///ai?host=a.example.org:5432&host=b.example.org&sslmode=verify-full",
    "postgresql+asyncpg://db.example.org/ai?ssl=verify-full",
    "postgresql://127.0.0.1/ai",
    "postgresql://[::1]:5432/ai",
    "postgresql://localhost/ai?sslmode=disable",
    "postgresql:///ai?host=/run/postgresql",
    "sqlite:////var/lib/ai.db",
    "sqlite:////var/lib/odd@name.db",
    "duckdb:////var/lib/w.duckdb",
    "mysql://localhost/ai",
]
BAD_DATABASES = [
    "postgresql://db.example.org/ai",
    "postgresql://db.example.org/ai?sslmode=require",
    "postgresql://db.example.org/ai?sslmode=verify-ca",
    "postgresql://db.example.org/ai?sslmode=VERIFY-FULL",
    "postgresql://db.example.org/ai?sslmode=verify-full&sslmode=disable",
    "postgresql://db.example.org/ai?sslmode=disable&sslmode=verify-full",
    "postgresql://db.example.org/ai?sslmode=disable&ssl=verify-full",
    "postgresql://localhost/ai?hostaddr=10.0.0.1",
    "postgresql://localhost/ai?host=db.example.org",
    "postgresql://localhost,db.example.org/ai",
    "postgresql:///ai?host=localhost&host=db.example.org",
    "postgresql:///ai?host=localhost,db.example.org",
    "postgresql:///ai",
    "postgresql:///ai?sslmode=verify-full",
    "postgresql:///?service=prod&host=localhost",
    "postgresql://localhost:5/w@db.example.org/ai",
    "postgresql://localhost:5?w@db.example.org/ai",
    "postgresql://localhost:5#w@db.example.org/ai",
    "postgresql://[::1/ai",
    "mysql://db.example.org/ai?ssl=true",
    "duckdb:///md:warehouse",
    "duckdb:///s3://bucket/w.duckdb",
    "sqlite://server/share.db",
    "nonsense",
]


@pytest.mark.parametrize("url", GOOD_DATABASES)
def test_databases_that_are_protected(url: str) -> None:
    """verify-full, loopback, a socket, or a local file."""
    assert list(database_refusals("store", url)) == []


@pytest.mark.parametrize("url", BAD_DATABASES)
def test_databases_that_are_not(url: str) -> None:
    """Everything weaker, and every way to hide another host behind this machine's name."""
    (refused,) = database_refusals("store", url)
    assert str(refused).startswith("store: ")
    assert url not in str(refused)


@pytest.mark.parametrize(
    ("url", "refused"),
    [
        ("https://models.example.org", False),
        ("HTTPS://models.example.org", False),
        ("http://127.0.0.9:8080", False),
        ("http://[::1]:8080", False),
        ("http://localhost", False),
        ("http://models.example.org", True),
        ("http://localhost.example.org", True),
        ("http://0.0.0.0:80", True),
    ],
)
def test_endpoints(url: str, refused: bool) -> None:
    """https, or this machine."""
    settings = EndpointSettings(url=url, protocol="json", model="m")
    assert bool(list(endpoint_refusals("endpoint", settings))) is refused


@pytest.mark.parametrize(
    ("endpoint_url", "uri", "refused"),
    [
        (None, "s3://b/k", False),
        ("https://s3.example.org", "s3://b/k", False),
        ("http://127.0.0.1:9000", "s3://b/k", False),
        ("http://s3.example.org", "s3://b/k", True),
        ("http://s3.example.org", "S3://b/k", True),
        ("http://s3.example.org", "/var/lib/k", False),
    ],
)
def test_folders(endpoint_url: str | None, uri: str, refused: bool) -> None:
    """S3 over https; an endpoint that nothing goes to does not matter."""
    options = StorageOptions(endpoint_url=endpoint_url)
    assert bool(list(storage_refusals("checkpoint", uri, options))) is refused


def test_the_environment_s_endpoints() -> None:
    """The AWS libraries take them from there, each service its own."""
    bad = {"AWS_ENDPOINT_URL": "http://x", "AWS_ENDPOINT_URL_S3": "https://s3.example.org", "OTHER": "http://x"}
    assert [str(one) for one in environment_refusals(bad)] == [
        "environment: AWS_ENDPOINT_URL is not https://; use https://"
    ]


@pytest.mark.parametrize(
    ("settings", "refused"),
    [
        ({"kind": "kafka", "bootstrap_servers": "b.example.org:9093"}, 0),
        ({"kind": "kafka", "bootstrap_servers": "127.0.0.1:9092"}, 0),
        (
            {"kind": "kafka", "bootstrap_servers": "127.0.0.1:1,b.example.org:9", "security_protocol": "plaintext"}
            | {"allow_plaintext": True},
            2,
        ),
        ({"kind": "sqs"}, 0),
        ({"kind": "sqs", "endpoint_url": "http://127.0.0.1:4566"}, 0),
        ({"kind": "sqs", "endpoint_url": "http://sqs.example.org", "allow_plaintext": True}, 2),
    ],
)
def test_transports(settings: dict[str, object], refused: int) -> None:
    """TLS, or every server on this machine."""
    transport = TransportSettings(**settings, **QUEUES)  # type: ignore[arg-type]
    assert len(list(transport_refusals("transport", transport))) == refused
