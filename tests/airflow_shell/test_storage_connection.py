"""The AWS connection becomes the options of the S3 file system, and only where S3 is used."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from airflow_provider_ai.hooks.storage import storage_options

EXTRA = {"region_name": "eu-central-1", "endpoint_url": "http://127.0.0.1:9000"}


def test_local_paths_need_no_connection() -> None:
    """Not even a look for one: a connection that does not exist does not matter."""
    assert storage_options(("/data/visits", "file:///data/checkpoints"), "no_such_connection") is None


def test_keys_region_and_endpoint_are_taken_over(set_connection: Callable[..., None]) -> None:
    """Session token included; nothing of it shows in a repr."""
    extra = {**EXTRA, "aws_session_token": "t0ken-value"}
    set_connection("lake", conn_type="aws", login="key-id", password="s3cr3t-value", extra=extra)
    options = storage_options(("s3://lake/visits", "/data/checkpoints"), "lake")
    assert options is not None
    assert (options.access_key, options.secret_key, options.session_token) == ("key-id", "s3cr3t-value", "t0ken-value")
    assert (options.region, options.endpoint_url) == ("eu-central-1", "http://127.0.0.1:9000")
    assert not any(secret in repr(options) for secret in ("key-id", "s3cr3t-value", "t0ken-value"))


@pytest.mark.parametrize("defined", [True, False])
def test_without_keys_the_usual_aws_places_are_left_to_pyarrow(
    defined: bool, set_connection: Callable[..., None]
) -> None:
    """A connection without keys, or none at all: keys stay absent, so that they are refreshed where they live."""
    if defined:
        set_connection("aws_default", conn_type="aws", extra=EXTRA)
    options = storage_options(("s3://lake/visits",))
    assert options is not None
    assert (options.access_key, options.secret_key, options.session_token) == (None, None, None)
    assert options.endpoint_url == (EXTRA["endpoint_url"] if defined else None)
