"""A power loss: a killed run whose files lose every byte that had not been synced, as the system call trace tells.

What a rename or a deletion did stays; of the bytes of a file only those stay that were written before an fsync of that
file began. A kernel may keep more, and a disk that lies less.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_CALLS = "write,fsync,fdatasync,rename,unlink"
_PATHS = re.compile(r"\d+<([^>]*)>|\"([^\"]*)\"")


@dataclass(slots=True)
class _Bytes:
    written: int = 0
    synced: int = 0


def traced(trace: Path) -> list[str | Path]:
    """What to put before a command whose power is to be lost."""
    return ["strace", "-f", "-y", "-qq", "-s", "0", "--seccomp-bpf", "-e", "signal=none", "-o", trace, "-e", _CALLS]


def lose_power(trace: Path, folder: Path) -> int:
    """Cut the files below ``folder`` that a killed run wrote; how many bytes are lost."""
    lost = 0
    for path, state in _replayed(trace, folder).items():
        if path.exists():
            lost += max(path.stat().st_size - state.synced, 0)
            os.truncate(path, min(path.stat().st_size, state.synced))
    return lost


def _replayed(trace: Path, folder: Path) -> dict[Path, _Bytes]:
    files: dict[Path, _Bytes] = {}
    begun: dict[str, tuple[str, int]] = {}
    for line in trace.read_text(errors="replace").splitlines():
        process, _, call = line.partition(" ")
        call = call.strip()
        for path in _paths(call, folder):
            files.setdefault(path, _Bytes())
        if "<unfinished ...>" in call:
            begun[process] = (call, _written(call, files, folder))
            continue
        written = -1
        if call.startswith("<..."):
            first, written = begun.pop(process, ("", -1))
            call = f"{first.removesuffix('<unfinished ...>')} {call}"
        if call.rpartition("= ")[2].strip().isdigit():
            _apply(call, files, folder, written)
    return files


def _apply(call: str, files: dict[Path, _Bytes], folder: Path, written_before: int) -> None:
    """One call that succeeded. ``written_before``: bytes in the file when it began, -1 when nothing came between."""
    paths = list(_paths(call, folder))
    if not paths:
        return
    state = files[paths[0]]
    if call.startswith("write"):
        state.written += int(call.rpartition("= ")[2])
    elif call.startswith(("fsync", "fdatasync")):
        state.synced = max(state.synced, state.written if written_before < 0 else written_before)
    elif call.startswith("rename") and len(paths) == 2:
        files[paths[1]] = files.pop(paths[0])
    elif call.startswith("unlink"):
        del files[paths[0]]


def _written(call: str, files: dict[Path, _Bytes], folder: Path) -> int:
    return next((files[path].written for path in _paths(call, folder)), -1)


def _paths(call: str, folder: Path) -> Iterator[Path]:
    for descriptor, name in _PATHS.findall(call):
        path = Path(descriptor or name)
        if path.is_relative_to(folder) and not path.is_dir():
            yield path
