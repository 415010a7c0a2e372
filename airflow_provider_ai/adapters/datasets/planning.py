"""From a dataset to its manifest: list once, look into every file once, refuse what cannot be processed.

Of a Parquet file only the footer and the id column are read; CSV and JSON Lines are read whole. Memory depends on the
bounds here, not on rows: ids are reduced to hashes (:mod:`~airflow_provider_ai.adapters.datasets.ids`).

A hive folder ``key=value`` is a text column, also where the files have a column of that name; only the id always comes
from the files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial

from airflow_provider_ai.adapters.datasets.columns import merged_columns, require_column
from airflow_provider_ai.adapters.datasets.formats import DataFile, FileFacts, FileFormat
from airflow_provider_ai.adapters.datasets.ids import Confirmation, HashSet, IdIntake
from airflow_provider_ai.adapters.datasets.listing import Listing, data_files, entity_tag, list_dataset
from airflow_provider_ai.adapters.datasets.registry import file_format
from airflow_provider_ai.adapters.filesystems import is_local, open_filesystem
from airflow_provider_ai.core.config import InputSettings, StorageOptions
from airflow_provider_ai.core.manifest import Manifest, SourceFile
from airflow_provider_ai.core.partitions import plan_partitions
from airflow_provider_ai.exceptions import (
    DuplicateIdError,
    EmptyDatasetError,
    InputChangedError,
    NullIdError,
)

REMOTE_THREADS = 8
TAG_THREADS = 16
EXAMPLES = 3
HIVE_KIND = "string"
ROWS_COUNT = "rows count from 0"
REPAIR = "A retry cannot help: repair the data or choose another id column"
Progress = Callable[[int, int], None]


def plan_dataset(
    settings: InputSettings,
    options: StorageOptions | None = None,
    *,
    needed_columns: tuple[str, ...] | None,
    on_progress: Progress | None = None,
) -> Manifest:
    """Plan the dataset.

    :param needed_columns: columns besides the id that must be there and agree across files, in addition to those of
        the settings; ``None`` with none in the settings: every column is read, so all must agree
    :param on_progress: called with ``(files looked into, files)`` after each file
    :raises InputError: one of its kinds; the dataset has to be repaired first
    :raises SpecError: the settings do not fit the dataset
    """
    listing = list_dataset(settings, options)
    source = file_format(listing.format)
    with HashSet() as hashes:
        scans = _scan_all(listing, source, settings.id_column, hashes, on_progress)
        _require_rows_with_ids(scans, settings)
        schema = _schema(scans, listing, source, settings, needed_columns)
        hashes.finish()
    _require_unique_ids(scans, source, settings.id_column, hashes)
    files = _source_files(listing, scans)
    limits = {"rows_per_partition": settings.rows_per_partition, "max_partitions": settings.max_partitions}
    return Manifest(
        input_uri=settings.uri,
        format=listing.format,
        id_column=settings.id_column,
        schema=schema,
        files=files,
        partitions=plan_partitions(files, **limits),
        listing=listing.digest,
    )


def listing_digest(settings: InputSettings, options: StorageOptions | None = None) -> str:
    """What :attr:`Manifest.listing` would be if the dataset were planned now. Lists once, opens no file."""
    return list_dataset(settings, options).digest


def verify_unchanged(manifest: Manifest, settings: InputSettings, options: StorageOptions | None = None) -> None:
    """:class:`InputChangedError` when a file was added, removed or rewritten since the manifest was made."""
    difference = input_difference(manifest, settings, options)
    if difference is not None:
        raise InputChangedError(
            f"the input changed after it was planned; {difference}. "
            "A retry cannot help: put the files back, or run with verb recompute to plan again"
        )


def input_difference(manifest: Manifest, settings: InputSettings, options: StorageOptions | None = None) -> str | None:
    """How many files differ from the plan, and the first of them by name; None when the input is as it was planned."""
    planned = {file.path: (file.size, file.version) for file in manifest.files}
    now = {file.path: (file.size, file.version) for file in data_files(settings, options)}
    changes = [
        *(f"added {path}" for path in sorted(now.keys() - planned.keys())),
        *(f"removed {path}" for path in sorted(planned.keys() - now.keys())),
        *(f"modified {path}" for path in sorted(now.keys() & planned.keys()) if now[path] != planned[path]),
    ] or [f"modified {path}" for path in rewritten_files(manifest, options)]
    return f"files that differ: {len(changes)} ({_some(changes, len(changes))})" if changes else None


def rewritten_files(manifest: Manifest, options: StorageOptions | None = None) -> list[str]:
    """Objects whose content is not what was planned although a listing may show no difference; one request each."""
    tagged = [file for file in manifest.files if file.etag]
    if not tagged:
        return []
    filesystem, _ = open_filesystem(manifest.input_uri, options)
    with ThreadPoolExecutor(TAG_THREADS, thread_name_prefix="tags") as pool:
        now = pool.map(lambda file: entity_tag(filesystem, file.path), tagged)
        return [file.path for file, etag in zip(tagged, now, strict=True) if etag != file.etag]


@dataclass(frozen=True, slots=True)
class _Scan:
    """One file looked into."""

    file: DataFile
    facts: FileFacts
    missing_ids: int
    missing_rows: tuple[int, ...]
    etag: str


def _scan_all(
    listing: Listing, source: FileFormat, id_column: str, hashes: HashSet, on_progress: Progress | None
) -> list[_Scan]:
    """Look into every file, in order; what files have in common is kept once."""
    files = [DataFile(listing.filesystem, listed.path) for listed in listing.files]
    scans: list[_Scan] = []
    for scan in _scanned(files, source, id_column, hashes, parallel=not is_local(listing.filesystem)):
        if scan.facts.rows:
            role, header = "the id column", listing.format == "csv"
            require_column(id_column, scan.facts.columns, where=scan.file.path, role=role, header=header)
        if scans and scan.facts.columns == scans[-1].facts.columns:
            scan = replace(scan, facts=replace(scan.facts, columns=scans[-1].facts.columns))
        scans.append(scan)
        if on_progress:
            on_progress(len(scans), len(files))
    return scans


def _scanned(
    files: Sequence[DataFile], source: FileFormat, id_column: str, hashes: HashSet, *, parallel: bool
) -> Iterator[_Scan]:
    """One file at a time on this machine; a few at once where each read waits for a network."""
    if not parallel or len(files) == 1:
        yield from (_scan(file, source, id_column, hashes) for file in files)
        return
    pool = ThreadPoolExecutor(REMOTE_THREADS, thread_name_prefix="plan")
    try:
        yield from pool.map(lambda file: _scan(file, source, id_column, hashes), files)
    finally:
        pool.shutdown(cancel_futures=True)


def _scan(file: DataFile, source: FileFormat, id_column: str, hashes: HashSet) -> _Scan:
    etag = entity_tag(file.filesystem, file.path) or ""  # first: a rewrite while the file is scanned will show
    intake = IdIntake(file, hashes)
    facts = source.scan(file, id_column, intake)
    return _Scan(file, facts, intake.missing, tuple(intake.missing_rows), etag)


def _require_rows_with_ids(scans: Sequence[_Scan], settings: InputSettings) -> None:
    if not any(scan.facts.rows for scan in scans):
        files = len(scans)
        raise EmptyDatasetError(f"the input {settings.uri} has no row (files: {files}); a retry alone cannot help")
    without = sum(scan.missing_ids for scan in scans)
    if without:
        places = [f"{scan.file.path} row {row}" for scan in scans for row in scan.missing_rows]
        raise NullIdError(
            f"rows without a value in the id column {settings.id_column!r}: {without} "
            f"({_some(places, without)}; {ROWS_COUNT}). {REPAIR}"
        )


def _schema(
    scans: Sequence[_Scan],
    listing: Listing,
    source: FileFormat,
    settings: InputSettings,
    needed_columns: tuple[str, ...] | None,
) -> tuple[tuple[str, str], ...]:
    """Columns of the files and of hive folders; checks that the needed ones are there and agree."""
    needed = {settings.id_column, *(settings.columns or ()), *(needed_columns or ())}
    every = settings.columns is None and needed_columns is None
    hive = {name for listed in listing.files for name, _ in listed.partition_values} - {settings.id_column}
    with_rows = [(scan.file, scan.facts) for scan in scans if scan.facts.rows]
    kinds = merged_columns(with_rows, source, lambda name: name not in hive and (every or name in needed))
    kinds |= dict.fromkeys(sorted(hive), HIVE_KIND)
    for name in sorted(needed):
        where, header = f"the input {settings.uri}", listing.format == "csv"
        require_column(name, kinds, where=where, role="needed by the request", header=header)
    return tuple(kinds.items())


def _require_unique_ids(scans: Sequence[_Scan], source: FileFormat, id_column: str, hashes: HashSet) -> None:
    """Compare the ids whose hashes are equal; almost always there are none."""
    if not len(hashes.candidates):
        return
    found = Confirmation(hashes.candidates, hashes.key)
    for scan in scans:
        source.scan(scan.file, id_column, partial(found.take, scan.file.path))
    if found.repeats or not hashes.complete:
        rows = found.repeats if hashes.complete else hashes.repeats
        raise DuplicateIdError(
            f"rows that repeat the id ({id_column!r}) of an earlier row: {rows} "
            f"({_some(found.examples, rows)}; {ROWS_COUNT}). {REPAIR}"
        )


def _source_files(listing: Listing, scans: Sequence[_Scan]) -> tuple[SourceFile, ...]:
    return tuple(
        SourceFile(
            path=listed.path,
            size=listed.size,
            version=listed.version,
            rows=scan.facts.rows,
            row_groups=scan.facts.row_groups,
            partition_values=listed.partition_values,
            etag=scan.etag,
        )
        for listed, scan in zip(listing.files, scans, strict=True)
    )


def _some(items: Sequence[str], total: int) -> str:
    return ", ".join(items[:EXAMPLES]) + (", …" if total > EXAMPLES else "")
