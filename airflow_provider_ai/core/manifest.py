"""The plan of one batch: which rows of which files make which partition. Immutable once written.

A retry, a clear and a second runner read the same manifest and so see the same partition boundaries. The fingerprint
covers everything that decides what "row 17 of partition 3" means; it is part of the checkpoint key.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

DatasetFormat = Literal["parquet", "csv", "jsonl"]
MANIFEST_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceFile:
    """One file of the dataset as it was when planned.

    :param path: path inside the file system, without scheme
    :param size: bytes
    :param version: what changes when the content does: modification time in ns (object stores: of the object)
    :param rows: rows in the file
    :param row_groups: rows of each Parquet row group, in file order; empty for CSV and JSON Lines
    :param partition_values: hive partition columns found in the path, as ``((name, value), …)``
    :param etag: entity tag of an object; empty for a file of this machine, whose time is exact
    """

    path: str
    size: int
    version: str
    rows: int
    row_groups: tuple[int, ...] = ()
    partition_values: tuple[tuple[str, str], ...] = ()
    etag: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileSlice:
    """The rows ``[start, end)`` of file number ``file`` of the manifest."""

    file: int
    start: int
    end: int

    @property
    def rows(self) -> int:
        """Rows in the slice."""
        return self.end - self.start


@dataclass(frozen=True, slots=True, kw_only=True)
class Partition:
    """One unit of work: slices of files, in order. Row numbers of a partition count through its slices from 0."""

    index: int
    slices: tuple[FileSlice, ...]

    @property
    def rows(self) -> int:
        """Rows in the partition."""
        return sum(piece.rows for piece in self.slices)


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """The whole plan.

    :param input_uri: as given by the user (rendered)
    :param schema: ``((column name, Arrow type as text), …)`` of the files, hive columns included
    :param listing: digest of ``(path, size, version)`` of all files: tells cheaply whether the input changed
    """

    input_uri: str
    format: DatasetFormat
    id_column: str
    schema: tuple[tuple[str, str], ...]
    files: tuple[SourceFile, ...]
    partitions: tuple[Partition, ...]
    listing: str

    @property
    def rows(self) -> int:
        """Input rows over all partitions."""
        return sum(part.rows for part in self.partitions)

    @property
    def fingerprint(self) -> str:
        """32 hex digits over everything that decides what a row number means."""
        return hashlib.sha256(self.to_json()).hexdigest()[:32]

    def to_json(self) -> bytes:
        """Canonical bytes: the same plan gives the same bytes."""
        body = {"manifest_version": MANIFEST_VERSION, **asdict(self)}
        for file in body["files"]:
            if not file["etag"]:
                del file["etag"]
        return json.dumps(body, sort_keys=True, separators=(",", ":")).encode()

    @classmethod
    def from_json(cls, data: bytes) -> Manifest:
        """Read what :meth:`to_json` wrote; ValueError for another version or a damaged file."""
        body = json.loads(data)
        if not isinstance(body, dict) or body.pop("manifest_version", None) != MANIFEST_VERSION:
            raise ValueError(f"not a manifest of version {MANIFEST_VERSION}")
        try:
            files = tuple(_source_file(item) for item in body.pop("files"))
            partitions = tuple(_partition(item) for item in body.pop("partitions"))
            schema = tuple((name, kind) for name, kind in body.pop("schema"))
            return cls(files=files, partitions=partitions, schema=schema, **body)
        except (KeyError, TypeError):
            raise ValueError("a damaged manifest: fields are missing or unknown") from None


def _source_file(item: Mapping[str, Any]) -> SourceFile:
    values = tuple((name, value) for name, value in item["partition_values"])
    return SourceFile(**{**item, "row_groups": tuple(item["row_groups"]), "partition_values": values})


def _partition(item: Mapping[str, Any]) -> Partition:
    return Partition(index=item["index"], slices=tuple(FileSlice(**piece) for piece in item["slices"]))
