"""Which files a dataset has: one listing, no file opened.

What counts: a file as named; every file below a folder; every file a glob matches, or that lies below a folder a glob
matches (``**`` crosses folders). Below the folder or the glob's fixed part, names that start with ``_`` or ``.`` are
left out (``_SUCCESS``, ``_delta_log``, ``.crc``). When the format is told from names, names that tell none are left
out too; with an explicit format every visible file counts, so that a stray one is an error and not a silent loss.

The order is that of the paths as text, the same on every machine. A folder reached twice through symbolic links is
listed once, so a loop of links ends.

The version of a file is its modification time in ns. Object stores tell it to the second, so a rewrite of the same
size within the same second shows only in the object's entity tag, which no listing holds: one request an object.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING
from urllib.parse import unquote

from airflow_provider_ai.adapters.filesystems import is_local, open_filesystem
from airflow_provider_ai.core.config import InputSettings, StorageOptions
from airflow_provider_ai.core.identity import digest
from airflow_provider_ai.core.manifest import DatasetFormat
from airflow_provider_ai.exceptions import EmptyDatasetError, SpecError, UnreadableFileError

if TYPE_CHECKING:
    from pyarrow.fs import FileInfo, FileSystem

SUFFIXES: dict[str, DatasetFormat] = {
    ".parquet": "parquet",
    ".parq": "parquet",
    ".pq": "parquet",
    ".csv": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
}
COMPRESSED = (".gz", ".bz2", ".zst", ".lz4")
HIVE_NULL = "__HIVE_DEFAULT_PARTITION__"
_MAGIC = re.compile(r"[*?\[]")


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedFile:
    """A file as the listing shows it; fields as in :class:`~airflow_provider_ai.core.manifest.SourceFile`."""

    path: str
    size: int
    version: str

    @property
    def partition_values(self) -> tuple[tuple[str, str], ...]:
        """Hive columns: the ``key=value`` folders of the path, URL-decoded; the hive null is left out."""
        pairs = (folder.partition("=") for folder in self.path.split("/")[:-1] if not folder.startswith("="))
        found = {unquote(key): unquote(value) for key, equals, value in pairs if equals}
        return tuple((key, value) for key, value in found.items() if value != HIVE_NULL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """The files of a dataset, in order."""

    filesystem: FileSystem
    format: DatasetFormat
    files: tuple[ListedFile, ...]

    @property
    def digest(self) -> str:
        """32 hex digits that change when a file is added, removed or rewritten."""
        return digest("listing", 1, *sorted((file.path, file.size, file.version) for file in self.files))


def list_dataset(settings: InputSettings, options: StorageOptions | None = None) -> Listing:
    """List the dataset once.

    :raises EmptyDatasetError: nothing is there, or nothing that counts
    :raises SpecError: the format cannot be told from the names
    """
    filesystem, found = _visible(settings, options)
    if not found:
        hint = "nothing is there, or only names that start with _ or ."
        raise EmptyDatasetError(f"the input {settings.uri} has no file ({hint}); a retry alone cannot help")
    kind = settings.format or _common_format(settings.uri, found)
    counted = found if settings.format else [file for file in found if format_of(file.path) == kind]
    return Listing(filesystem=filesystem, format=kind, files=tuple(counted))


def data_files(settings: InputSettings, options: StorageOptions | None = None) -> list[ListedFile]:
    """What :func:`list_dataset` lists, but none and a mix of formats are no errors: for telling what has changed."""
    _, found = _visible(settings, options)
    return found if settings.format else [file for file in found if format_of(file.path)]


def current_version(filesystem: FileSystem, path: str) -> tuple[int, str] | None:
    """Size and version of a file now; None when it is not there."""
    if is_local(filesystem):
        try:
            status = Path(path).stat()
        except FileNotFoundError:
            return None
        return status.st_size, str(status.st_mtime_ns)
    info = filesystem.get_file_info(path)
    return (info.size, _object_version(info)) if info.is_file else None


def entity_tag(filesystem: FileSystem, path: str) -> str | None:
    """The ETag of an object, which changes with its content; "" for a file of this machine, None when it is gone."""
    if filesystem.type_name != "s3":
        return ""
    try:
        with filesystem.open_input_stream(path) as stream:
            return str(stream.metadata().get("ETag", b""), "ascii")
    except FileNotFoundError:
        return None


def format_of(path: str) -> DatasetFormat | None:
    """The format the file's name tells, compression suffix aside; None when it tells none."""
    name = PurePosixPath(path.lower())
    if name.suffix not in COMPRESSED:
        return SUFFIXES.get(name.suffix)
    kind = SUFFIXES.get(PurePosixPath(name.stem).suffix)
    return None if kind == "parquet" else kind


def _visible(settings: InputSettings, options: StorageOptions | None) -> tuple[FileSystem, list[ListedFile]]:
    filesystem, path = open_filesystem(settings.uri, options)
    return filesystem, sorted(_find(filesystem, path), key=lambda file: file.path)


def _common_format(uri: str, files: Sequence[ListedFile]) -> DatasetFormat:
    kinds = {kind: file.path for file in reversed(files) if (kind := format_of(file.path))}
    if len(kinds) == 1:
        return next(iter(kinds))
    if kinds:
        examples = ", ".join(path for _, path in sorted(kinds.items()))
        raise SpecError(
            f"the input {uri} mixes {' and '.join(sorted(kinds))} files: set format, or narrow it by a glob "
            f"(the first of each: {examples})"
        )
    known = ", ".join(SUFFIXES)
    raise SpecError(f"the file names of the input {uri} tell no format (known: {known}): set format")


def _find(filesystem: FileSystem, path: str) -> Iterator[ListedFile]:
    """The visible files of a path that may be a file, a folder or a glob; a name that exists is never a glob."""
    info = filesystem.get_file_info(path)
    if info.is_file:
        yield _listed(filesystem, info)
    elif info.type.name == "Directory":
        yield from _below(filesystem, path)
    elif _MAGIC.search(path):
        parts = path.split("/")
        fixed = next(i for i, part in enumerate(parts) if _MAGIC.search(part))
        base = "/".join(parts[:fixed])
        pattern = glob_pattern("/".join(parts[fixed:]))
        for file in _below(filesystem, base or "/"):
            if pattern.fullmatch(file.path[len(base) :].lstrip("/")):
                yield file


def glob_pattern(glob: str) -> re.Pattern[str]:
    """A glob as a pattern for relative paths: ``*``, ``?`` and ``[…]`` stay within a name, ``**`` crosses folders."""
    parts = [r"(?:[^/]+/)*" if part == "**" else _name_pattern(part) + "/" for part in glob.split("/")]
    last = r".*" if glob.split("/")[-1] == "**" else parts[-1][:-1] + r"(?:/.*)?"
    return re.compile("".join(parts[:-1]) + last, re.DOTALL)


def _name_pattern(part: str) -> str:
    pieces = re.split(r"(\*+|\?|\[[!^]?\]?[^\]]*\])", part)
    return "".join(_wildcard(piece) if i % 2 else re.escape(piece) for i, piece in enumerate(pieces))


def _wildcard(piece: str) -> str:
    if piece[0] == "[":
        negated = piece[1] in "!^"
        inner = piece[1 + negated : -1].replace("\\", r"\\").replace("[", r"\[").replace("]", r"\]").replace("^", r"\^")
        return f"(?!/)[{'^' if negated else ''}{inner}]"
    return "[^/]" if piece == "?" else "[^/]*"


def _below(filesystem: FileSystem, folder: str) -> Iterator[ListedFile]:
    if is_local(filesystem):
        yield from _walk(folder, set())
        return
    from pyarrow.fs import FileSelector

    for info in filesystem.get_file_info(FileSelector(folder, recursive=True, allow_not_found=True)):
        inside = info.path[len(folder) :].lstrip("/")
        if info.is_file and inside and not any(map(_hidden, inside.split("/"))):
            yield _listed(filesystem, info)


def _walk(folder: str, seen: set[tuple[int, int]]) -> Iterator[ListedFile]:
    """Files below a local folder. ``seen`` holds the folders visited, by device and inode."""
    try:
        status = Path(folder).stat()
        if (status.st_dev, status.st_ino) in seen:
            return
        seen.add((status.st_dev, status.st_ino))
        with os.scandir(folder) as entries:
            visible = sorted((entry for entry in entries if not _hidden(entry.name)), key=lambda entry: entry.name)
    except FileNotFoundError:
        return
    except OSError as error:
        raise UnreadableFileError(f"{folder}: the folder cannot be listed ({error.strerror})") from None
    for entry in visible:
        yield from _entry(entry, seen)


def _entry(entry: os.DirEntry[str], seen: set[tuple[int, int]]) -> Iterator[ListedFile]:
    if any("\ud800" <= letter <= "\udfff" for letter in entry.name):
        raise UnreadableFileError(f"{entry.path!a}: the name is not UTF-8; rename it")
    try:
        status = entry.stat()
    except OSError as error:
        raise UnreadableFileError(f"{entry.path}: broken link or no access ({error.strerror})") from None
    if stat.S_ISDIR(status.st_mode):
        yield from _walk(entry.path, seen)
    elif stat.S_ISREG(status.st_mode):
        yield ListedFile(path=entry.path, size=status.st_size, version=str(status.st_mtime_ns))


def _hidden(name: str) -> bool:
    return name.startswith(("_", "."))


def _listed(filesystem: FileSystem, info: FileInfo) -> ListedFile:
    now = current_version(filesystem, info.path) if is_local(filesystem) else (info.size, _object_version(info))
    size, version = now or (info.size, "")
    return ListedFile(path=info.path, size=size, version=version)


def _object_version(info: FileInfo) -> str:
    """Listing and looking up one object differ in the digits below a second, so these are dropped."""
    return str((info.mtime_ns or 0) // 1_000_000_000 * 1_000_000_000)
