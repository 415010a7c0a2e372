"""Files of JSON lines: written whole or not at all, read a line at a time."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import orjson

from airflow_provider_ai.exceptions import InputError, UnreadableFileError

LONGEST_LINE_BYTES = 64 << 20
_BOM = b"\xef\xbb\xbf"


def read_json_lines(path: Path) -> Iterator[Any]:
    """The JSON value of each line that is not blank, in order.

    :raises InputError: names the first line that is none; it is not quoted
    """
    try:
        with path.open("rb") as file:
            for number, line in enumerate(iter(lambda: file.readline(LONGEST_LINE_BYTES + 1), b""), start=1):
                if len(line) > LONGEST_LINE_BYTES:
                    raise UnreadableFileError(f"{path}: line {number} is longer than {LONGEST_LINE_BYTES >> 20} MiB")
                text = (line.removeprefix(_BOM) if number == 1 else line).strip()
                if text:
                    yield _parsed(path, number, text)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None


def write_json_lines(path: Path, rows: Iterable[Any]) -> int:
    """Write ``rows``, one a line, in place of what ``path`` held; how many.

    They go into a file beside it, which takes its name at the end: whoever reads ``path`` sees all of the old or all of
    the new, also after a crash. Only the user may read it: replies may be confidential.

    :raises OSError: the folder is not writable, or full; ``path`` is as it was
    """
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb", buffering=1 << 20) as file:
            count = 0
            for row in rows:
                file.write(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE))
                count += 1
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)  # noqa: PTH105 - the same call, on names
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(name)  # noqa: PTH108
        raise
    _sync_folder(path.parent)
    return count


def _parsed(path: Path, number: int, text: bytes) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        where = f"line {number}, column {error.colno}"
        raise UnreadableFileError(f"{path}: not valid JSON in UTF-8 ({where})") from None


def _sync_folder(folder: Path) -> None:
    """The new name survives a power cut, too."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
