"""A local file system that counts what is read of its files, through files of plain Python."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow.fs import FileSystemHandler, LocalFileSystem, PyFileSystem


class CountingHandler(FileSystemHandler):
    """``ranges``: the parts ``[start, end)`` read of any file; ``opened``: how often a file was opened."""

    def __init__(self) -> None:
        self.local = LocalFileSystem()
        self.ranges: list[tuple[int, int]] = []
        self.opened = 0

    @property
    def bytes_read(self) -> int:
        return sum(end - start for start, end in self.ranges)

    def touched(self, start: int, end: int) -> int:
        """How many bytes of ``[start, end)`` were read."""
        return sum(max(0, min(end, b) - max(start, a)) for a, b in self.ranges)

    def get_type_name(self) -> str:
        return "counting"

    def get_file_info(self, paths: list[str]) -> Any:
        return self.local.get_file_info(paths)

    def get_file_info_selector(self, selector: Any) -> Any:
        return self.local.get_file_info(selector)

    def open_input_file(self, path: str) -> pa.PythonFile:
        self.opened += 1
        return pa.PythonFile(_CountingFile(path, self.ranges.append), mode="r")

    def open_input_stream(self, path: str) -> pa.PythonFile:
        return self.open_input_file(path)

    def normalize_path(self, path: str) -> str:
        return path

    def _refuse(self, *_: Any, **__: Any) -> None:
        raise NotImplementedError

    create_dir = delete_dir = delete_dir_contents = delete_root_dir_contents = delete_file = _refuse
    move = copy_file = open_output_stream = open_append_stream = _refuse


class _CountingFile(io.RawIOBase):
    def __init__(self, path: str, note: Callable[[tuple[int, int]], None]) -> None:
        super().__init__()
        self._file = Path(path).open("rb")  # noqa: SIM115 - closed with this object
        self._note = note

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        start = self._file.tell()
        data = self._file.read(size)
        self._note((start, start + len(data)))
        return data

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def close(self) -> None:
        self._file.close()
        super().close()


def counting_filesystem() -> tuple[PyFileSystem, CountingHandler]:
    """The file system and its counters."""
    handler = CountingHandler()
    return PyFileSystem(handler), handler
