"""Files of JSON lines: written whole or not at all, read a line at a time."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import orjson

from airflow_provider_ai.exceptions import InputError, UnreadableFileError

LONGEST_LINE_BYTES = 64 << 20
STANDARD_INPUT = "-"
_BOM = b"\xef\xbb\xbf"
_CHUNK_BYTES = 1 << 20


class JsonLines:
    """The lines of a file, or of standard input, to be read as often as needed."""

    def __init__(self, file: IO[bytes], name: str) -> None:
        self._file = file
        self.name = name

    def __iter__(self) -> Iterator[Any]:
        """The JSON value of each line that is not blank, in order.

        :raises InputError: names the first line that is none; it is not quoted
        """
        try:
            self._file.seek(0)
            lines = iter(lambda: self._file.readline(LONGEST_LINE_BYTES + 1), b"")
            for number, line in enumerate(lines, start=1):
                if len(line) > LONGEST_LINE_BYTES:
                    longest = LONGEST_LINE_BYTES >> 20
                    raise UnreadableFileError(f"{self.name}: line {number} is longer than {longest} MiB")
                text = (line.removeprefix(_BOM) if number == 1 else line).strip()
                if text:
                    yield _parsed(self.name, number, text)
        except OSError as error:
            raise InputError(f"{self.name}: cannot be read ({error.strerror})") from None


@contextmanager
def json_lines(path: str) -> Iterator[JsonLines]:
    """The lines of a file; of standard input for ``-``. What can be read once only is kept in a file without a name.

    :raises InputError: there is no such file, or no room to keep what comes
    """
    name = "standard input" if path == STANDARD_INPUT else path
    with ExitStack() as stack:
        try:
            file = sys.stdin.buffer if path == STANDARD_INPUT else stack.enter_context(Path(path).open("rb"))
            if not file.seekable():
                file = stack.enter_context(_kept(file))
        except OSError as error:
            raise InputError(f"{name}: cannot be read ({error.strerror})") from None
        yield JsonLines(file, name)


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


def _kept(stream: IO[bytes]) -> IO[bytes]:
    """What a stream holds, in a file that nobody else can open, and that is gone with this process."""
    kept = tempfile.TemporaryFile()  # noqa: SIM115 - handed over
    try:
        shutil.copyfileobj(stream, kept, _CHUNK_BYTES)
    except BaseException:
        kept.close()
        raise
    return kept


def _parsed(name: str, number: int, text: bytes) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        where = f"line {number}, column {error.colno}"
        raise UnreadableFileError(f"{name}: not valid JSON in UTF-8 ({where})") from None


def _sync_folder(folder: Path) -> None:
    """The new name survives a power cut, too."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
