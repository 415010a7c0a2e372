"""Whether a connection is protected on its way: TLS with verification, or no way at all (loopback, files).

Told from settings alone, in words that name the part and what to do, never a URL: it may hold a password. What it takes
was measured: PostgreSQL accepts a rogue authority with ``sslmode=require`` and another host with ``verify-ca``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import SplitResult, parse_qs, urlsplit

from airflow_provider_ai.core.config import EndpointSettings, StorageOptions
from airflow_provider_ai.core.hosts import is_loopback
from airflow_provider_ai.core.job_settings import WebhookSettings
from airflow_provider_ai.core.transport_settings import TransportSettings

_POSTGRESQL = ("postgresql", "postgres", "redshift", "cockroachdb")
_FILES = ("sqlite", "duckdb")
_REMOTE_FILE = re.compile(r"/*(md:|motherduck:|[A-Za-z][A-Za-z0-9+.-]*://)", re.IGNORECASE)
_VERIFIED = ["verify-full"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """``what`` is wrong with which part, and what to do (``fix``)."""

    part: str
    what: str
    fix: str

    def __str__(self) -> str:
        return f"{self.part}: {self.what}; {self.fix}"


def endpoint_refusals(part: str, endpoint: EndpointSettings) -> Iterator[Refusal]:
    """A model endpoint: ``https``, ``grpcs`` with the certificate verified, or loopback."""
    parts = urlsplit(endpoint.url)
    if is_loopback(parts.hostname or ""):
        return
    if parts.scheme in ("http", "grpc"):
        yield Refusal(part=part, what=f"{parts.scheme}:// sends records in clear", fix=f"use {parts.scheme}s://")
    elif not endpoint.verify_tls:
        fix = "set verify_tls to true, and ca_file for a private authority"
        yield Refusal(part=part, what="verify_tls is off, so anybody can be the endpoint", fix=fix)


def transport_refusals(part: str, transport: TransportSettings) -> Iterator[Refusal]:
    """SQS over https, Kafka over ``ssl`` or ``sasl_ssl``, or loopback."""
    if transport.local:
        return
    if transport.allow_plaintext:
        yield Refusal(part=part, what="allow_plaintext is set", fix="remove it")
    if transport.kind == "kafka" and not transport.security.endswith("ssl"):
        fix = "set security_protocol to ssl or sasl_ssl"
        yield Refusal(part=part, what=f"security_protocol is {transport.security}", fix=fix)
    if transport.endpoint_url is not None:
        yield from https_refusals(part, "endpoint_url", transport.endpoint_url)


def webhook_refusals(part: str, webhook: WebhookSettings) -> Iterator[Refusal]:
    """Where results are delivered: https, or loopback."""
    yield from https_refusals(part, "url", webhook.url)


def database_refusals(part: str, url: str) -> Iterator[Refusal]:
    """A SQLAlchemy URL: PostgreSQL with ``sslmode=verify-full``, a local file, or loopback."""
    parts = _split(url)
    if parts is None:
        yield Refusal(part=part, what="its URL cannot be parsed", fix="quote special characters (%40 for @)")
        return
    backend = parts.scheme.partition("+")[0]
    if backend in _FILES:
        if _REMOTE_FILE.match(parts.path) or parts.netloc:
            yield Refusal(part=part, what="the database is no local file", fix="use one, or PostgreSQL")
    elif "@" in parts.path + parts.query + parts.fragment:
        # SQLAlchemy takes what stands before it for a password, and so another host than the one seen here.
        yield Refusal(part=part, what="its URL can be read in two ways", fix="quote special characters (%40 for @)")
    elif backend in _POSTGRESQL:
        yield from _postgresql(part, parts)
    elif not is_loopback(parts.hostname or ""):
        what = f"it is not known how {backend!r} is made to verify its server"
        yield Refusal(part=part, what=what, fix="use PostgreSQL with sslmode=verify-full")


def storage_refusals(part: str, uri: str, options: StorageOptions | None) -> Iterator[Refusal]:
    """Files: a local path, or S3 at AWS or at an endpoint that is https or loopback."""
    if uri.lower().startswith("s3://") and options is not None and options.endpoint_url:
        yield from https_refusals(part, "the S3 endpoint_url", options.endpoint_url)


def environment_refusals(environ: Mapping[str, str]) -> Iterator[Refusal]:
    """Where the AWS libraries (SQS, S3, KMS) go when settings name no endpoint of theirs."""
    for name in sorted(environ):
        if name.startswith("AWS_ENDPOINT_URL") and environ[name]:
            yield from https_refusals("environment", name, environ[name])


def https_refusals(part: str, name: str, url: str) -> Iterator[Refusal]:
    """A URL of a setting called ``name``: https, or loopback."""
    parts = _split(url)
    secure = parts is not None and (parts.scheme == "https" or is_loopback(parts.hostname or ""))
    if not secure:
        yield Refusal(part=part, what=f"{name} is not https://", fix="use https://")


def _postgresql(part: str, parts: SplitResult) -> Iterator[Refusal]:
    arguments = parse_qs(parts.query, keep_blank_values=True)
    if "service" in arguments:
        fix = "write host and sslmode into the URL"
        yield Refusal(part=part, what="a libpq service may name any host", fix=fix)
    hosts = _hosts(parts, arguments)
    if not hosts:
        fix = "write localhost, a host name, or host=/folder for a socket"
        yield Refusal(part=part, what="it names no host, so PGHOST would decide", fix=fix)
        return
    modes = arguments.get("sslmode") or arguments.get("ssl") or ["prefer"]
    if modes != _VERIFIED and not all(map(_is_here, hosts)):
        fix = "set sslmode=verify-full, and sslrootcert for a private authority"
        what = f"sslmode is {modes[-1]!r}, which takes a rogue server for the right one"
        yield Refusal(part=part, what=what, fix=fix)


def _hosts(parts: SplitResult, arguments: Mapping[str, list[str]]) -> list[str]:
    """Every host a connection may go to. ``hostaddr`` wins over the name beside it, so it counts as well."""
    named = [host.rpartition(":")[0] if host.count(":") == 1 else host for host in arguments.get("host", ())]
    listed = [host for entry in (*named, *arguments.get("hostaddr", ())) for host in entry.split(",")]
    return [host for host in (_authority_hosts(parts) + listed) if host]


def _authority_hosts(parts: SplitResult) -> list[str]:
    place = parts.netloc.rpartition("@")[2]
    if "," in place:  # libpq's own form; no host of it is taken for this machine unseen
        return [re.sub(r":\d*$", "", entry) for entry in place.split(",")]
    return [parts.hostname] if parts.hostname else []


def _is_here(host: str) -> bool:
    return host.startswith(("/", "@")) or is_loopback(host)


def _split(url: str) -> SplitResult | None:
    try:
        parts = urlsplit(url)
        _ = parts.port, parts.hostname
    except ValueError:
        try:
            place = urlsplit(url).netloc
        except ValueError:
            return None
        return urlsplit(url) if "," in place else None
    return parts
