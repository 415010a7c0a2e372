"""Places of heads: a name is written once, and nothing takes it away; on S3 the service itself refuses to."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from airflow_provider_ai.adapters.audit.head_places import HeadFile, HeadPlace, open_head_place
from airflow_provider_ai.core.config import StorageOptions
from airflow_provider_ai.exceptions import AuditError, AuditUnavailableError, SpecError
from tests.support.ministack import ACCESS_KEY, REGION, SECRET_KEY, MiniStack
from tests.support.processes import free_port

WRITERS = ("20260101T000000Z-00000000000a", "20260101T000001Z-00000000000b")
NAMES = [f"{writer}/{number:016d}.json" for writer in WRITERS for number in (1, 9, 10)]


def options(server: MiniStack) -> StorageOptions:
    return StorageOptions(access_key=ACCESS_KEY, secret_key=SECRET_KEY, region=REGION, endpoint_url=server.url)


@pytest.fixture
def locked_bucket(ministack_server: MiniStack) -> str:
    """A bucket with Object Lock."""
    name = ministack_server.make_bucket()
    client = ministack_server.client("s3")
    client.delete_bucket(Bucket=name)
    client.create_bucket(Bucket=name, ObjectLockEnabledForBucket=True)
    return name


@pytest.fixture(params=["folder", pytest.param("s3", marks=pytest.mark.real)])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> HeadPlace:
    if request.param == "folder":
        return open_head_place(str(tmp_path / "heads"))
    server = request.getfixturevalue("ministack_server")
    bucket = request.getfixturevalue("locked_bucket")
    return open_head_place(f"s3://{bucket}/audit/", retain_days=30, storage=options(server))


def names(place: HeadPlace, **since: str) -> list[str]:
    return [file.name for file in place.files(**since)]


def test_heads_come_back_in_order(place: HeadPlace) -> None:
    """By writer, then by number; from a writer on where that is asked for."""
    for name in reversed(NAMES):
        place.put(name, name.encode())
    assert names(place) == NAMES
    assert names(place, since="20260101T000001Z") == NAMES[3:]
    assert [place.read(file) for file in place.files()] == [name.encode() for name in NAMES]


def test_a_name_is_written_once(place: HeadPlace) -> None:
    """A second write is a retry: no error, and no change."""
    place.put(NAMES[0], b"first")
    place.put(NAMES[0], b"second")
    file = next(place.files())
    assert place.read(file) == b"first"
    assert names(place) == NAMES[:1]


def test_files_of_others_are_passed_over(place: HeadPlace) -> None:
    """A folder may hold anything."""
    place.put("20260101T000000Z-00000000000a/readme.txt", b"x")
    place.put(NAMES[0], b"x")
    assert names(place) == NAMES[:1]


def test_a_folder_keeps_no_half_written_head(tmp_path: Path) -> None:
    """Its files cannot be written again, and nothing else is left there."""
    place = open_head_place(str(tmp_path))
    place.put(NAMES[0], b"x")
    file = tmp_path / NAMES[0]
    assert file.stat().st_mode & 0o777 == 0o440
    assert [path.name for path in file.parent.iterdir()] == [file.name]


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    """A misspelled one must not look like an audit without heads."""
    with pytest.raises(AuditError, match="there is no such folder"):
        list(open_head_place(str(tmp_path / "headz")).files())


@pytest.mark.parametrize("uri", ["ftp://x/y", "s3://"])
def test_other_places_are_refused(uri: str) -> None:
    """With what would be right."""
    with pytest.raises(SpecError, match="s3://"):
        open_head_place(uri)


def test_nobody_listens() -> None:
    """That may be over soon."""
    storage = StorageOptions(
        access_key="a", secret_key="b", region=REGION, endpoint_url=f"http://127.0.0.1:{free_port()}"
    )
    place = open_head_place("s3://heads/audit", storage=storage)
    with pytest.raises(AuditUnavailableError, match="no answer"):
        place.put(NAMES[0], b"x")


@pytest.mark.real
@pytest.mark.parametrize("mode", ["compliance", "governance"])
def test_a_head_is_locked_until_its_day(mode: Any, ministack_server: MiniStack, locked_bucket: str) -> None:
    """Its retention is on the object, and its version cannot be deleted."""
    place = open_head_place(
        f"s3://{locked_bucket}/audit", object_lock=mode, retain_days=30, storage=options(ministack_server)
    )
    place.put(NAMES[0], b"x")
    client = ministack_server.client("s3")
    found = client.head_object(Bucket=locked_bucket, Key=f"audit/{NAMES[0]}")
    assert found["ObjectLockMode"] == mode.upper()
    left = found["ObjectLockRetainUntilDate"] - datetime.now(UTC)
    assert timedelta(days=29, hours=23) < left <= timedelta(days=30)
    with pytest.raises(ClientError, match="AccessDenied"):
        client.delete_object(Bucket=locked_bucket, Key=f"audit/{NAMES[0]}", VersionId=found["VersionId"])


@pytest.mark.real
@pytest.mark.parametrize("how", ["deleted", "replaced"])
def test_what_was_hidden_is_found(how: str, ministack_server: MiniStack, locked_bucket: str) -> None:
    """A delete marker, or a newer version, covers a locked head and does not remove it."""
    place = open_head_place(f"s3://{locked_bucket}/audit", retain_days=30, storage=options(ministack_server))
    place.put(NAMES[0], b"genuine")
    place.put(NAMES[1], b"other")
    client = ministack_server.client("s3")
    key = f"audit/{NAMES[0]}"
    if how == "deleted":
        client.delete_object(Bucket=locked_bucket, Key=key)
    else:
        client.put_object(Bucket=locked_bucket, Key=key, Body=b"forged")
    files = list(place.files())
    assert [(file.name, file.hidden) for file in files] == [(NAMES[0], True), (NAMES[1], False)]
    assert place.read(files[0]) == b"genuine"


@pytest.mark.real
def test_a_bucket_without_object_lock(ministack_server: MiniStack, bucket: str) -> None:
    """It is used when the settings say that it has none."""
    place = open_head_place(f"s3://{bucket}/audit", object_lock="none", storage=options(ministack_server))
    place.put(NAMES[0], b"x")
    assert [place.read(file) for file in place.files()] == [b"x"]


Refusal = Callable[..., None]


@pytest.mark.parametrize(
    ("code", "kind", "words"),
    [
        ("InvalidRequest", AuditError, "takes no Object Lock"),
        ("AccessDenied", AuditError, "S3 refuses"),
        ("SlowDown", AuditUnavailableError, "out of order"),
        ("evil text with data", AuditError, "S3 refuses .Unknown."),
    ],
)
def test_what_s3_says(code: str, kind: type[AuditError], words: str) -> None:
    """In our words, and with what would help."""
    place = open_head_place("s3://heads/audit")

    class Client:
        def put_object(self, **_: Any) -> None:
            raise ClientError({"Error": {"Code": code, "Message": "secret"}}, "PutObject")

    place._client = Client()  # type: ignore[attr-defined]
    with pytest.raises(kind, match=words) as caught:
        place.put(NAMES[0], b"x")
    assert type(caught.value) is kind
    assert "secret" not in str(caught.value)


def test_a_head_file_knows_its_writer() -> None:
    """By its name."""
    assert HeadFile(NAMES[0]).writer == WRITERS[0]
