"""From a URI to a file system and a path in it: the one place that knows how storage is reached.

Two kinds: local (plain paths, ``file://``) and S3 (``s3://bucket/key``), both through ``pyarrow.fs``, which needs
neither boto3 nor s3fs. Nothing of S3 is initialised before the first S3 URI is opened: it costs threads and memory
that a local run should not pay.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from airflow_provider_ai.core.config import StorageOptions
from airflow_provider_ai.exceptions import SpecError

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem

CONNECT_TIMEOUT_SECONDS = 10
REQUEST_TIMEOUT_SECONDS = 60


def open_filesystem(uri: str, options: StorageOptions | None = None) -> tuple[FileSystem, str]:
    """The file system of ``uri`` and the path inside it, without a trailing slash.

    Relative paths start at the current directory. An S3 path is ``bucket/key``, taken as written: no character of a
    key is special. What ``options`` leave out comes from the AWS environment (``AWS_*``, profile, instance role).

    :raises SpecError: for another scheme, a ``file://`` URI of another host, or an S3 URI without bucket
    """
    path = local_path(uri)
    if path is not None:
        from pyarrow.fs import LocalFileSystem

        return LocalFileSystem(), path
    scheme, _, rest = uri.partition("://")
    if scheme.lower() == "s3":
        return _s3(rest, options or StorageOptions())
    raise SpecError(f"unknown scheme {scheme!r}: use a local path, file:// or s3://")


def local_path(uri: str) -> str | None:
    """The absolute path that a URI names on this machine; None for one that is elsewhere. Costs no ``pyarrow``."""
    scheme, separator, _ = uri.partition("://")
    if not separator or not re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]*", scheme):
        path = uri
    elif scheme.lower() == "file":
        path = _file_uri_path(uri)
    else:
        return None
    return os.path.abspath(Path(path).expanduser())  # noqa: PTH100 - resolve() would follow links


def is_local(filesystem: FileSystem) -> bool:
    """Whether paths of the file system are paths of this machine."""
    return str(filesystem.type_name) == "local"


def _file_uri_path(uri: str) -> str:
    parts = urlsplit(uri.replace("?", "%3F").replace("#", "%23"))
    if parts.netloc not in ("", "localhost"):
        raise SpecError(f"a file:// URI must name no other host, got {parts.netloc!r}: write file:///path")
    return unquote(parts.path)


def _s3(rest: str, options: StorageOptions) -> tuple[FileSystem, str]:
    path = rest.rstrip("/")
    bucket = path.partition("/")[0]
    if not bucket:
        raise SpecError("an s3:// URI must name a bucket: s3://bucket/key")
    from pyarrow.fs import S3FileSystem

    settings = _s3_settings(options, bucket, os.environ)
    try:
        return S3FileSystem(**settings), path
    except TypeError:  # of a pyarrow that does not know the newest of them
        if "tls_ca_file_path" not in settings:
            raise
        raise SpecError(
            "ca_file (or AWS_CA_BUNDLE) for S3 needs a newer pyarrow, one that takes tls_ca_file_path"
        ) from None


def _s3_settings(options: StorageOptions, bucket: str, environ: Mapping[str, str]) -> dict[str, Any]:
    settings: dict[str, Any] = {
        "access_key": options.access_key,
        "secret_key": options.secret_key,
        "session_token": options.session_token,
        "region": options.region or environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION"),
        "connect_timeout": CONNECT_TIMEOUT_SECONDS,
        "request_timeout": REQUEST_TIMEOUT_SECONDS,
        "tls_ca_file_path": options.ca_file or environ.get("AWS_CA_BUNDLE"),
    }
    endpoint = options.endpoint_url or environ.get("AWS_ENDPOINT_URL_S3") or environ.get("AWS_ENDPOINT_URL")
    if endpoint:
        settings |= _endpoint(endpoint)
        settings["region"] = settings["region"] or "us-east-1"
    elif not settings["region"]:
        settings["region"] = _region_of(bucket)
    return {name: value for name, value in settings.items() if value is not None}


def _endpoint(url: str) -> dict[str, str]:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise SpecError("the S3 endpoint_url must look like https://host[:port]")
    return {"scheme": parts.scheme, "endpoint_override": parts.netloc + parts.path.rstrip("/")}


def _region_of(bucket: str) -> str | None:
    """Where AWS says the bucket is; None when it does not say, which leaves the choice to the AWS libraries."""
    from pyarrow.fs import resolve_s3_region

    try:
        return str(resolve_s3_region(bucket))
    except OSError:
        return None
