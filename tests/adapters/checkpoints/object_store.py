"""An object store in memory behind ``pyarrow.fs``: a PUT appears whole when its stream is closed, listings are current.

There are no folders: a key with slashes needs none to exist, and a prefix is there when a key is.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import pyarrow as pa
from pyarrow import fs


class _Put(io.BytesIO):
    def __init__(self, done: Callable[[bytes], None]) -> None:
        super().__init__()
        self._done = done

    def close(self) -> None:
        if not self.closed:
            self._done(self.getvalue())
        super().close()


class ObjectStoreHandler(fs.FileSystemHandler):  # type: ignore[misc]
    """``objects``: key → bytes. ``before(operation, key)`` is called first and may raise."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.before: Callable[[str, str], None] = lambda operation, key: None

    def get_type_name(self) -> str:
        return "memory"

    def get_file_info_selector(self, selector: Any) -> list[Any]:
        prefix = selector.base_dir.rstrip("/") + "/"
        self.before("list", prefix)
        names = {key.removeprefix(prefix).split("/")[0] for key in self.objects if key.startswith(prefix)}
        return [self._info(prefix + name) for name in sorted(names)]

    def get_file_info(self, paths: list[str]) -> list[Any]:
        return [self._info(path) for path in paths]

    def _info(self, key: str) -> Any:
        if key in self.objects:
            return fs.FileInfo(key, fs.FileType.File, size=len(self.objects[key]))
        there = any(other.startswith(f"{key}/") for other in self.objects)
        return fs.FileInfo(key, fs.FileType.Directory if there else fs.FileType.NotFound)

    def open_input_stream(self, path: str) -> Any:
        self.before("get", path)
        if path not in self.objects:
            raise FileNotFoundError(path)
        return pa.BufferReader(self.objects[path])

    def open_output_stream(self, path: str, metadata: Any) -> Any:
        self.before("put", path)
        return pa.PythonFile(_Put(lambda data: self.objects.__setitem__(path, data)), mode="w")

    def delete_file(self, path: str) -> None:
        self.before("delete", path)
        if path not in self.objects:
            raise FileNotFoundError(path)
        del self.objects[path]

    def _unused(self, *_: Any) -> Any:
        raise NotImplementedError("no checkpoint needs this of an object store")

    normalize_path = lambda self, path: path  # noqa: E731 - keys are taken as written
    open_input_file = open_append_stream = _unused
    create_dir = delete_dir = delete_dir_contents = delete_root_dir_contents = copy_file = move = _unused


def object_store() -> tuple[fs.FileSystem, ObjectStoreHandler]:
    """A fresh store: the file system, and the handler to look into it."""
    handler = ObjectStoreHandler()
    return fs.PyFileSystem(handler), handler
