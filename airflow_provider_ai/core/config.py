"""Settings of a batch: frozen, keyword-only, checked where they are made. One set serves operators and command line."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import SplitResult, urlsplit

from airflow_provider_ai.core.manifest import DatasetFormat
from airflow_provider_ai.exceptions import SpecError

Protocol = Literal["json", "open-inference", "open-inference-grpc", "openai-chat", "openai-embeddings"]
PROTOCOLS: tuple[Protocol, ...] = (
    "json",
    "open-inference",
    "open-inference-grpc",
    "openai-chat",
    "openai-embeddings",
)
Verb = Literal["resume", "retry_failed", "recompute"]
VERBS: tuple[Verb, ...] = ("resume", "retry_failed", "recompute")
FORMATS: tuple[DatasetFormat, ...] = ("parquet", "csv", "jsonl")

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # token, RFC 9110 §5.6.2


def require(condition: bool, what: str, got: object) -> None:
    """Raise :class:`SpecError` "``what``, got ``got``" unless the condition holds."""
    if not condition:
        raise SpecError(f"{what}, got {got!r}")


def is_number(value: object) -> bool:
    """Whether a setting is a finite number; true and false are none."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def is_whole(value: object, least: int) -> bool:
    """Whether a setting is an integer ≥ ``least``."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _names(value: object) -> bool:
    is_list = isinstance(value, Sequence) and not isinstance(value, str)
    return is_list and all(isinstance(name, str) and name for name in value)  # type: ignore[attr-defined]


@dataclass(frozen=True, slots=True, kw_only=True)
class StorageOptions:
    """How to reach S3. All optional: what is absent comes from the usual AWS environment. Local paths need none.

    :param ca_file: PEM bundle to trust instead of the system's, for an endpoint of a private authority
    """

    access_key: str | None = field(default=None, repr=False)
    secret_key: str | None = field(default=None, repr=False)
    session_token: str | None = field(default=None, repr=False)
    region: str | None = None
    endpoint_url: str | None = None
    ca_file: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class InputSettings:
    """The dataset.

    :param uri: file, folder or glob; local path, ``file://`` or ``s3://``
    :param id_column: the column that names a record; unique and never null
    :param columns: columns to read besides the id; ``None`` for all
    :param format: ``None`` tells it from the file names
    :param rows_per_partition: target rows of a partition
    :param max_partitions: cap on partitions (Airflow: mapped tasks); partitions grow beyond the target to keep it
    """

    uri: str
    id_column: str
    columns: tuple[str, ...] | None = None
    format: DatasetFormat | None = None
    rows_per_partition: int = 100_000
    max_partitions: int = 256

    def __post_init__(self) -> None:
        require(isinstance(self.uri, str) and bool(self.uri.strip()), "input uri must be a path or URI", self.uri)
        require(isinstance(self.id_column, str) and bool(self.id_column), "id_column must be a name", self.id_column)
        columns = self.columns
        require(columns is None or _names(columns), "columns must be a sequence of names or absent", columns)
        require(self.format is None or self.format in FORMATS, f"format must be one of {FORMATS}", self.format)
        require(
            is_whole(self.rows_per_partition, 1), "rows_per_partition must be an integer ≥ 1", self.rows_per_partition
        )
        in_range = is_whole(self.max_partitions, 1) and self.max_partitions <= 1024
        require(
            in_range, "max_partitions must be an integer in [1, 1024] (Airflow's max_map_length)", self.max_partitions
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointSettings:
    """A model endpoint.

    :param url: base URL, ``http://`` or ``https://``; over gRPC ``grpc://host:port``, or ``grpcs://host:port`` for TLS
    :param path: overrides the protocol's path; not over gRPC, where the method is always the same
    :param headers: of every request; over gRPC they are metadata
    :param verify_tls: over gRPC always true: gRPC for Python cannot switch it off
    :param ca_file: PEM bundle to trust instead of the system's
    :param client_cert_file: PEM certificate for mutual TLS, with ``client_key_file``
    :param price_per_million_input_tokens: USD; likewise ``…_output_tokens`` and ``price_per_call``
    :param p99_seconds: what 99 of 100 answers take at most, where known: a shorter deadline is then refused
    :param phi: health data goes there: the whole policy of :mod:`airflow_provider_ai.core.phi_policy` holds
    """

    url: str
    protocol: Protocol
    model: str
    path: str | None = None
    api_key: str | None = field(default=None, repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    verify_tls: bool = True
    ca_file: str | None = None
    client_cert_file: str | None = None
    client_key_file: str | None = None
    price_per_million_input_tokens: float = 0.0
    price_per_million_output_tokens: float = 0.0
    price_per_call: float = 0.0
    p99_seconds: float | None = None
    phi: bool = False

    def __post_init__(self) -> None:
        require(isinstance(self.phi, bool), "phi must be true or false", self.phi)
        require(self.protocol in PROTOCOLS, f"protocol must be one of {PROTOCOLS}", self.protocol)
        self._check_url(_split(self.url))
        rooted = self.path is None or (isinstance(self.path, str) and self.path.startswith("/"))
        require(rooted, "endpoint path must start with /", self.path)
        keyed = self.client_key_file is None or self.client_cert_file is not None
        require(keyed, "client_key_file must come with client_cert_file", "the key alone")
        require(isinstance(self.model, str) and bool(self.model), "model must be a name", self.model)
        seconds = self.p99_seconds
        known = seconds is None or (is_number(seconds) and seconds > 0)
        require(known, "p99_seconds must be a number > 0 (seconds) or absent", seconds)
        self._check_headers()
        for name in ("price_per_million_input_tokens", "price_per_million_output_tokens", "price_per_call"):
            value = getattr(self, name)
            require(is_number(value) and value >= 0, f"{name} must be a number ≥ 0 (USD)", value)

    @property
    def over_grpc(self) -> bool:
        """Whether the protocol is spoken over gRPC and not over HTTP."""
        return self.protocol == "open-inference-grpc"

    def _check_url(self, parts: SplitResult) -> None:
        schemes = ("grpc", "grpcs") if self.over_grpc else ("http", "https")
        start = f"endpoint url must start with {schemes[0]}:// or {schemes[1]}:// for protocol {self.protocol!r}"
        require(parts.scheme in schemes, start, parts.scheme or "no scheme")
        require(bool(parts.hostname), "endpoint url must name a host", parts.hostname)
        require(parts.username is None, "endpoint url must carry no credentials (use the API key)", "user info")
        extra = parts.query or parts.fragment
        require(not extra, "endpoint url must have no query or fragment (put a query into path)", "one")
        if self.over_grpc:
            self._check_grpc(parts)

    def _check_grpc(self, parts: SplitResult) -> None:
        port = "endpoint url must name a port: grpc://host:port (Triton listens on 8001, MLServer on 8081)"
        require(parts.port is not None, port, "none")
        only = "endpoint url and path must name no path over gRPC, where the method is always ModelInfer"
        require(self.path is None and parts.path in ("", "/"), only, "one")
        require(self.verify_tls, "verify_tls must be true over gRPC (set ca_file to trust a server)", self.verify_tls)

    def _check_headers(self) -> None:
        """Now and not in every call; the usual culprit is the newline at the end of a mounted secret."""
        named = all(isinstance(name, str) and _HEADER_NAME.fullmatch(name) for name in self.headers)
        require(named, "headers must be named by HTTP tokens", "other names")
        values = list(self.headers.values())
        clean = all(isinstance(value, str) and not _CONTROL.search(value) for value in values)
        require(clean, "headers must hold no control characters, only text", "others")
        require(not _CONTROL.search(self.api_key or ""), "api_key must hold no control characters", "some (a newline?)")

    def url_of(self, path: str) -> str:
        """The URL of a path; a base URL that ends with ``/v1`` or ``/v2`` may be given with or without it."""
        base = self.url.rstrip("/")
        version = path[:3]
        if version in ("/v1", "/v2") and path[3:4] == "/" and base.endswith(version):
            base = base[:-3]
        return base + path

    def identity(self) -> dict[str, Any]:
        """What makes it this endpoint and not another; part of the checkpoint key. No secret."""
        return {"url": self.url.rstrip("/"), "protocol": self.protocol, "model": self.model, "path": self.path}


def _split(url: object) -> SplitResult:
    try:
        parts = urlsplit(url if isinstance(url, str) else "")
        _ = parts.port
    except ValueError:
        raise SpecError(
            "endpoint url must be a URL such as https://host:8080/path, got one with a bad host or port"
        ) from None
    return parts


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How hard to push, how long to try, when to give up.

    :param concurrency: most calls in flight; the engine starts there, backs off on 429 and timeouts, and recovers
    :param requests_per_minute: request budget; ``None`` for none
    :param tokens_per_minute: token budget over prompt and completion; ``None`` for none
    :param request_deadline_seconds: total time of one call, connect to last byte
    :param max_attempts: tries of one record before quarantine; a 429 does not count
    :param max_quarantined_fraction: of all input rows of the run, ``[0, 1]``; more fails the task
    :param backoff_base_seconds: first full-jitter ceiling; doubles each attempt up to ``backoff_cap_seconds``. After a
        5xx, a timeout or a lost connection a retry also waits two usual round trips: by then the breaker knows
    :param max_outage_seconds: how long to wait for an endpoint that is down before failing the task
    :param max_response_bytes: larger answers are refused
    :param stop_grace_seconds: on SIGTERM, how long in-flight calls may still finish
    """

    concurrency: int = 64
    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None
    request_deadline_seconds: float = 30.0
    max_attempts: int = 5
    max_quarantined_fraction: float = 0.01
    backoff_base_seconds: float = 0.5
    backoff_cap_seconds: float = 30.0
    max_outage_seconds: float = 300.0
    max_response_bytes: int = 16 * 1024 * 1024
    stop_grace_seconds: float = 5.0

    def __post_init__(self) -> None:
        require(is_whole(self.concurrency, 1), "concurrency must be an integer ≥ 1", self.concurrency)
        require(is_whole(self.max_attempts, 1), "max_attempts must be an integer ≥ 1", self.max_attempts)
        require(
            is_whole(self.max_response_bytes, 1), "max_response_bytes must be an integer ≥ 1", self.max_response_bytes
        )
        for name in ("requests_per_minute", "tokens_per_minute"):
            rate = getattr(self, name)
            require(rate is None or (is_number(rate) and rate > 0), f"{name} must be a number > 0 or absent", rate)
        for name in ("request_deadline_seconds", "backoff_base_seconds", "backoff_cap_seconds", "max_outage_seconds"):
            seconds = getattr(self, name)
            require(is_number(seconds) and seconds > 0, f"{name} must be a number > 0 (seconds)", seconds)
        grace = self.stop_grace_seconds
        require(is_number(grace) and grace >= 0, "stop_grace_seconds must be a number ≥ 0 (seconds)", grace)
        fraction = self.max_quarantined_fraction
        require(is_number(fraction) and 0 <= fraction <= 1, "max_quarantined_fraction must be in [0, 1]", fraction)

    def quarantine_allowance(self, rows: int) -> int:
        """How many of ``rows`` input rows may be quarantined."""
        return math.floor(self.max_quarantined_fraction * rows + 1e-9)


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointSettings:
    """Where checkpoints live. ``interval_seconds``: fsync (local) or PUT (S3) period."""

    uri: str
    interval_seconds: float = 1.0

    def __post_init__(self) -> None:
        require(isinstance(self.uri, str) and bool(self.uri.strip()), "checkpoint uri must be a path or URI", self.uri)
        ok = is_number(self.interval_seconds) and self.interval_seconds > 0
        require(ok, "checkpoint interval_seconds must be a number > 0", self.interval_seconds)


@dataclass(frozen=True, slots=True, kw_only=True)
class SinkSettings:
    """The target table. ``url``: any SQLAlchemy URL; it may hold a password, so it is never shown. ``phi``: health data
    goes there, so the whole policy of :mod:`airflow_provider_ai.core.phi_policy` holds."""

    url: str = field(repr=False)
    table: str
    schema: str | None = None
    phi: bool = False

    def __post_init__(self) -> None:
        require(isinstance(self.url, str) and "://" in self.url, "sink url must be a SQLAlchemy URL", "something else")
        require(isinstance(self.table, str) and bool(self.table), "sink table must be a name", self.table)
