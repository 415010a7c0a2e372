"""The TLS files, the API key and the headers of an endpoint, as gRPC takes them."""

from __future__ import annotations

import re
import ssl
from pathlib import Path
from urllib.parse import urlsplit

import grpc

from airflow_provider_ai.adapters.endpoints.headers import request_headers
from airflow_provider_ai.adapters.endpoints.tls import tls_context
from airflow_provider_ai.core.config import EndpointSettings
from airflow_provider_ai.exceptions import SpecError

_KEY = re.compile(r"(?!grpc-)[0-9a-z_.-]+(?<!-bin)")
_VALUE = re.compile(r"[ -~]*")


def channel_credentials(settings: EndpointSettings) -> grpc.ChannelCredentials | None:
    """For ``grpcs://``; None for ``grpc://``. SpecError for files that cannot be loaded."""
    if urlsplit(settings.url).scheme != "grpcs":
        return None
    tls_context(settings)  # which refuses at once, and with reasons, what gRPC would fail on in every call
    certificate, key = settings.client_cert_file, settings.client_key_file or settings.client_cert_file
    return grpc.ssl_channel_credentials(
        root_certificates=_authorities(settings.ca_file),
        private_key=Path(key).read_bytes() if key else None,
        certificate_chain=Path(certificate).read_bytes() if certificate else None,
    )


def _authorities(ca_file: str | None) -> bytes | None:
    """Whom to trust: the file given, or the system's as for HTTP, or else those that come with gRPC."""
    path = ca_file or ssl.get_default_verify_paths().cafile
    return Path(path).read_bytes() if path else None


def metadata_of(settings: EndpointSettings) -> list[tuple[str, str]]:
    """The headers and the API key; SpecError for what is allowed in HTTP and not in gRPC. No value is shown."""
    metadata = [(name.lower(), value) for name, value in request_headers(settings, {}).items()]
    for name, value in metadata:
        if not _KEY.fullmatch(name):
            raise SpecError(f"header {name!r} cannot be sent over gRPC: use letters, digits, '_', '-', no 'grpc-…'")
        if not _VALUE.fullmatch(value):
            what = "the API key" if name == "authorization" and settings.api_key else f"header {name!r}"
            raise SpecError(f"{what} cannot be sent over gRPC: it must be printable ASCII")
    return metadata
