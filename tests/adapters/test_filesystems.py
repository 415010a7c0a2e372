"""URIs reach the right storage with the right settings, and a local run pays nothing for S3."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.fs
import pytest

from airflow_provider_ai.adapters.filesystems import is_local, open_filesystem
from airflow_provider_ai.core.config import StorageOptions
from airflow_provider_ai.exceptions import SpecError

AWS_VARIABLES = ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3")


@pytest.fixture
def s3_calls(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What S3FileSystem would have been made with; no AWS variable is set, and AWS says buckets are in eu-west-3."""
    calls: list[dict[str, Any]] = []
    for name in AWS_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pyarrow.fs, "S3FileSystem", lambda **settings: calls.append(settings))
    monkeypatch.setattr(pyarrow.fs, "resolve_s3_region", lambda bucket: "eu-west-3")
    return calls


@pytest.mark.parametrize(
    ("uri", "path"),
    [
        ("/data/visits", "/data/visits"),
        ("/data/visits/", "/data/visits"),
        ("visits/a.csv", "{cwd}/visits/a.csv"),  # relative: the current directory
        ("./a b/ü.csv", "{cwd}/a b/ü.csv"),
        ("dt=1/*.csv", "{cwd}/dt=1/*.csv"),
        ("file:///data/a%20b/c.csv", "/data/a b/c.csv"),  # a URI is percent-encoded, a path is not
        ("file://localhost/data", "/data"),
        ("file:///data/what?#x", "/data/what?#x"),
        ("/data/a%20b", "/data/a%20b"),
        ("C:odd", "{cwd}/C:odd"),  # no scheme without ://
    ],
)
def test_local_paths(uri: str, path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    filesystem, found = open_filesystem(uri)
    assert is_local(filesystem)
    assert found == path.format(cwd=tmp_path)


def test_a_link_in_the_path_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert open_filesystem(str(tmp_path / "link"))[1] == str(tmp_path / "link")


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("gs://bucket/key", "unknown scheme 'gs'"),
        ("https://host/key", "unknown scheme 'https'"),
        ("file://host/data", "no other host"),
        ("s3://", "name a bucket"),
        ("s3:///key", "name a bucket"),
    ],
)
def test_what_cannot_be_opened(uri: str, message: str, s3_calls: list[dict[str, Any]]) -> None:
    with pytest.raises(SpecError, match=message):
        open_filesystem(uri)


def test_s3_keys_are_taken_as_written(s3_calls: list[dict[str, Any]]) -> None:
    assert open_filesystem("s3://lake/a b/50%25/#?/ü.parquet")[1] == "lake/a b/50%25/#?/ü.parquet"


def test_s3_options_are_passed_on(s3_calls: list[dict[str, Any]]) -> None:
    options = StorageOptions(
        access_key="a", secret_key="s", session_token="t", region="r", endpoint_url="http://127.0.0.1:4566/"
    )
    open_filesystem("s3://lake/x/", options)
    expected = {"access_key": "a", "secret_key": "s", "session_token": "t", "region": "r"}
    expected |= {"scheme": "http", "endpoint_override": "127.0.0.1:4566"}
    assert expected.items() <= s3_calls[0].items()


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"AWS_ENDPOINT_URL": "https://a:1"}, {"scheme": "https", "endpoint_override": "a:1", "region": "us-east-1"}),
        ({"AWS_ENDPOINT_URL": "https://a", "AWS_ENDPOINT_URL_S3": "https://b"}, {"endpoint_override": "b"}),
        ({"AWS_REGION": "eu-central-1"}, {"region": "eu-central-1"}),
        ({"AWS_DEFAULT_REGION": "eu-north-1"}, {"region": "eu-north-1"}),
        ({}, {"region": "eu-west-3"}),  # asked of AWS
    ],
)
def test_what_options_leave_out_comes_from_the_environment(
    environment: dict[str, str],
    expected: dict[str, str],
    s3_calls: list[dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    open_filesystem("s3://lake/x")
    assert expected.items() <= s3_calls[0].items()
    assert not {"access_key", "secret_key", "session_token"} & s3_calls[0].keys()


def test_a_region_that_cannot_be_found_is_left_to_aws(
    s3_calls: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def offline(bucket: str) -> str:
        raise OSError("no network")

    monkeypatch.setattr(pyarrow.fs, "resolve_s3_region", offline)
    open_filesystem("s3://lake/x")
    assert "region" not in s3_calls[0]


def test_an_endpoint_without_scheme_is_refused(s3_calls: list[dict[str, Any]]) -> None:
    with pytest.raises(SpecError, match="endpoint_url"):
        open_filesystem("s3://lake/x", StorageOptions(endpoint_url="localhost:4566"))


def test_a_local_run_does_not_initialise_s3() -> None:
    """Arrow refuses to initialise S3 a second time, so the first time must be ours."""
    script = (
        "from airflow_provider_ai.adapters.filesystems import open_filesystem\n"
        "open_filesystem('/tmp')\n"
        "from pyarrow.fs import S3LogLevel, initialize_s3\n"
        "initialize_s3(S3LogLevel.Off)\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
