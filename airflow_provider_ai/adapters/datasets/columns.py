"""The columns of a whole dataset: files may differ as long as one kind holds every value of a column unchanged."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from airflow_provider_ai.adapters.datasets.formats import DataFile, FileFacts, FileFormat
from airflow_provider_ai.exceptions import InputError, MissingColumnError

MIXED = "mixed"
MOST_NAMES = 50


@dataclass(frozen=True, slots=True)
class _Column:
    """What the files so far agree on; ``kind`` None when they do not and need not."""

    kind: Any
    first_path: str
    first_kind: Any


def merged_columns(
    files: Sequence[tuple[DataFile, FileFacts]], file_format: FileFormat, must_agree: Callable[[str], bool]
) -> dict[str, str]:
    """Column → kind as recorded, over all files, in order of appearance.

    :param must_agree: for columns that nobody reads it may be false; such a column may end up as ``mixed``
    :raises InputError: a column has kinds that no kind holds; names both files and both kinds
    """
    columns: dict[str, _Column] = {}
    for file, facts, name in _distinct(files):
        kind = facts.columns[name]
        known = columns.setdefault(name, _Column(kind, file.path, kind))
        wider = kind if kind == known.kind else file_format.widen(known.kind, kind)
        if wider is None and must_agree(name):
            raise _disagreement(name, known, kind, file.path, file_format)
        columns[name] = _Column(wider, known.first_path, known.first_kind)
    for file, facts, name in _changed(files, columns):
        if must_agree(name) and not file_format.holds(file, name, facts.columns[name], columns[name].kind):
            raise _loss(name, facts.columns[name], columns[name].kind, file.path, file_format)
    return {name: MIXED if known.kind is None else file_format.describe(known.kind) for name, known in columns.items()}


def _distinct(files: Sequence[tuple[DataFile, FileFacts]]) -> Iterator[tuple[DataFile, FileFacts, str]]:
    """Every column of every file, files with the same columns as the file before left out."""
    previous: Mapping[str, Any] | None = None
    for file, facts in files:
        if facts.columns != previous:
            previous = facts.columns
            yield from ((file, facts, name) for name in facts.columns)


def _changed(
    files: Sequence[tuple[DataFile, FileFacts]], columns: Mapping[str, _Column]
) -> Iterator[tuple[DataFile, FileFacts, str]]:
    """Every column of every file that the plan reads as another kind than the file's own."""
    for file, facts in files:
        for name, own in facts.columns.items():
            if columns[name].kind is not None and own != columns[name].kind:
                yield file, facts, name


def _disagreement(name: str, known: _Column, kind: Any, path: str, file_format: FileFormat) -> InputError:
    first, second = file_format.describe(known.first_kind), file_format.describe(kind)
    return InputError(
        f"column {name!r} is {first} in {known.first_path} but {second} in {path}, and no type holds both unchanged; "
        "a retry cannot help: rewrite one of the files, or leave the column out"
    )


def _loss(name: str, own: Any, planned: Any, path: str, file_format: FileFormat) -> InputError:
    return InputError(
        f"column {name!r} is {file_format.describe(own)} in {path} but {file_format.describe(planned)} in other files, "
        "and has values that would be rounded; a retry cannot help: rewrite the file, or leave the column out"
    )


def require_column(name: str, available: Iterable[str], *, where: str, role: str, header: bool = False) -> None:
    """:class:`MissingColumnError` unless ``name`` is one of ``available``; lists these and the nearest match.

    :param header: the names come from the first line of a text file, which may be data: then they are not shown
    """
    names = list(available)
    if name in names:
        return
    if header and any(not any(map(str.isalpha, each)) for each in names):
        raise MissingColumnError(f"{where} has no column {name!r} ({role}); is its header line missing?")
    near = get_close_matches(name, names, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    listed = ", ".join(names[:MOST_NAMES]) + (", …" if len(names) > MOST_NAMES else "")
    raise MissingColumnError(f"{where} has no column {name!r} ({role}).{hint} Columns there: {listed}")
