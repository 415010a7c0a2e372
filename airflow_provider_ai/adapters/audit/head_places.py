"""Where heads are kept apart from the store: a folder, or a bucket with S3 Object Lock.

A name is written once. A second write of it changes nothing and is no error: it is a retry of the first. On S3 each
object is locked until its day, so not even its writer can delete it; what lies hidden under a delete marker, or under
another version of the same name, is found all the same: every version is listed, and the oldest counts.
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import groupby
from pathlib import Path
from typing import Any, Protocol

from airflow_provider_ai.adapters.filesystems import local_path
from airflow_provider_ai.core.audit_chain import WRITER
from airflow_provider_ai.core.audit_settings import ObjectLock
from airflow_provider_ai.core.config import StorageOptions
from airflow_provider_ai.exceptions import AuditError, AuditUnavailableError, SpecError

_FILE = re.compile(WRITER.pattern + r"/[0-9]{16}(-closed)?\.json")
_TEMPORARY = ".tmp"
_TAKEN = ("PreconditionFailed", "ConditionalRequestConflict")
_BUSY = ("SlowDown", "InternalError", "ServiceUnavailable", "RequestTimeout", "Throttling", "RequestLimitExceeded")


@dataclass(frozen=True, slots=True)
class HeadFile:
    """A head that is there. ``hidden``: somebody has tried to delete or to replace it."""

    name: str
    version: str | None = None
    hidden: bool = False

    @property
    def writer(self) -> str:
        """Whose it is, by its name."""
        return self.name.partition("/")[0]


class HeadPlace(Protocol):
    """A place of heads. Errors are AuditError."""

    where: str

    def put(self, name: str, data: bytes) -> None:
        """Keep a head under a name, durably; nothing where there is one already."""
        ...

    def files(self, *, since: str = "") -> Iterator[HeadFile]:
        """All heads in order of their names; of writers from ``since`` on."""
        ...

    def read(self, file: HeadFile) -> bytes:
        """One of them."""
        ...


def open_head_place(
    uri: str, *, object_lock: ObjectLock = "compliance", retain_days: int = 1, storage: StorageOptions | None = None
) -> HeadPlace:
    """The place behind a URI: a local path, ``file://`` or ``s3://bucket/prefix``."""
    path = local_path(uri)
    if path is not None:
        return LocalHeads(Path(path))
    if not uri.lower().startswith("s3://"):
        raise SpecError("heads must lie at a local path, file:// or s3://")
    return S3Heads(uri, object_lock=object_lock, retain_days=retain_days, storage=storage or StorageOptions())


class LocalHeads:
    """Heads in a folder: for one machine, and for a disk of another owner or of write-once media."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self.where = f"heads in {root}"

    def put(self, name: str, data: bytes) -> None:
        """Whole or not at all, and never in place of another: linked to its name once it is on the disk."""
        path = self._root / name
        temporary = path.with_name(f"{secrets.token_hex(8)}{_TEMPORARY}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            _write_synced(temporary, data)
            try:
                os.link(temporary, path)
            except FileExistsError:
                return
            finally:
                temporary.unlink()
            _sync_folder(path.parent)
            _sync_folder(self._root)
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise AuditUnavailableError(f"{self.where}: a head cannot be written ({reason})") from None

    def files(self, *, since: str = "") -> Iterator[HeadFile]:
        """A folder a writer."""
        try:
            writers = sorted(entry.name for entry in os.scandir(self._root) if entry.is_dir() and entry.name >= since)
        except FileNotFoundError:
            raise AuditError(f"{self.where}: there is no such folder") from None
        for writer in writers:
            for name in sorted(os.listdir(self._root / writer)):  # noqa: PTH208 - names are enough
                if _FILE.fullmatch(f"{writer}/{name}"):
                    yield HeadFile(f"{writer}/{name}")

    def read(self, file: HeadFile) -> bytes:
        """The file."""
        try:
            return (self._root / file.name).read_bytes()
        except OSError as error:
            raise AuditError(f"{self.where}: a head cannot be read ({error.strerror})") from None


class S3Heads:
    """Heads in a bucket. Object Lock needs headers that ``pyarrow.fs`` cannot send, so this is boto3."""

    def __init__(self, uri: str, *, object_lock: ObjectLock, retain_days: int, storage: StorageOptions) -> None:
        bucket, _, prefix = uri.partition("://")[2].partition("/")
        if not bucket:
            raise SpecError("an s3:// URI must name a bucket: s3://bucket/prefix")
        self._bucket = bucket
        self._prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        self._lock = object_lock
        self._retain = timedelta(days=retain_days)
        self._storage = storage
        self._client: Any = None
        self.where = f"heads in s3://{bucket}/{self._prefix}"

    def put(self, name: str, data: bytes) -> None:
        """Locked, and only where there is none of this name."""
        extra: dict[str, Any] = {}
        if self._lock != "none":
            until = datetime.now(UTC) + self._retain
            extra = {"ObjectLockMode": self._lock.upper(), "ObjectLockRetainUntilDate": until}
        self._call(
            "put_object",
            Bucket=self._bucket,
            Key=f"{self._prefix}{name}",
            Body=data,
            IfNoneMatch="*",
            ContentType="application/json",
            **extra,
        )

    def files(self, *, since: str = "") -> Iterator[HeadFile]:
        """Every version of every name."""
        for name, found in groupby(self._versions(since), key=lambda entry: entry["Key"]):
            short = name.removeprefix(self._prefix)
            entries = list(found)  # the newest first
            versions = [entry for entry in entries if "Size" in entry]
            if _FILE.fullmatch(short) and versions:
                yield HeadFile(short, versions[-1].get("VersionId"), hidden=len(entries) > 1)

    def read(self, file: HeadFile) -> bytes:
        """Its oldest version."""
        version = {} if file.version in (None, "null") else {"VersionId": file.version}
        answer = self._call("get_object", Bucket=self._bucket, Key=f"{self._prefix}{file.name}", **version)
        return bytes(answer["Body"].read())

    def _versions(self, since: str) -> Iterator[dict[str, Any]]:
        marker: dict[str, str] = {"KeyMarker": f"{self._prefix}{since}"} if since else {}
        while True:
            page = self._call("list_object_versions", Bucket=self._bucket, Prefix=self._prefix, **marker)
            entries = [*page.get("Versions", ()), *page.get("DeleteMarkers", ())]
            yield from sorted(entries, key=lambda entry: (entry["Key"], -entry["LastModified"].timestamp()))
            if not page.get("IsTruncated"):
                return
            marker = {"KeyMarker": page["NextKeyMarker"], "VersionIdMarker": page.get("NextVersionIdMarker", "")}

    def _call(self, operation: str, **parameters: Any) -> dict[str, Any]:
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            answer: dict[str, Any] = getattr(self._connected(), operation)(**parameters)
        except ClientError as error:
            return self._refused(error.response.get("Error", {}).get("Code", ""))
        except BotoCoreError as error:
            raise AuditUnavailableError(f"{self.where}: no answer ({type(error).__name__})") from None
        return answer

    def _refused(self, code: str) -> dict[str, Any]:
        word = code if re.fullmatch(r"\w{1,60}", code) else "Unknown"
        if word in _TAKEN:
            return {}
        if word in _BUSY:
            raise AuditUnavailableError(f"{self.where}: out of order ({word})")
        if word == "InvalidRequest" and self._lock != "none":
            raise AuditError(
                f"{self.where}: the bucket takes no Object Lock ({word}): make one with Object Lock enabled, or set "
                'object_lock = "none"'
            )
        raise AuditError(f"{self.where}: S3 refuses ({word})")

    def _connected(self) -> Any:
        if self._client is None:
            import boto3
            from botocore.config import Config

            given = self._storage
            self._client = boto3.session.Session().client(
                "s3",
                region_name=given.region,
                endpoint_url=given.endpoint_url,
                aws_access_key_id=given.access_key,
                aws_secret_access_key=given.secret_key,
                aws_session_token=given.session_token,
                config=Config(connect_timeout=5, read_timeout=20, retries={"mode": "standard", "max_attempts": 3}),
            )
        return self._client


def _write_synced(path: Path, data: bytes) -> None:
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
        os.fchmod(file.fileno(), 0o440)


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
