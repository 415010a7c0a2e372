"""Faults at exact system calls of this process, chosen by the file they touch: die there, or fail there.

A rule is ``{"call", "path", "nth", "do", "times", "skip"}``: ``call`` is write, fsync, rename or unlink (or
commit, see :mod:`.commits`); ``path`` a
regular expression found in the file's path (of a rename: its new one); ``nth`` the first matching call that is struck;
``do`` is ``die`` (before the call), ``die half`` (a write that gets half of its bytes into the file), ``die after``,
``term`` (this process is asked to stop, and the call is made), or an errno name such as ``EIO``; errnos and ``term``
strike ``times`` calls (default: all from then on).
"""

from __future__ import annotations

import errno
import os
import re
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

CALLS = ("write", "fsync", "rename", "unlink")


@dataclass(slots=True, kw_only=True)
class Rule:
    """One fault; see the module."""

    call: str
    path: str
    do: str
    nth: int = 1
    times: int | None = None
    seen: int = field(default=0, init=False)

    def strikes(self, call: str, path: str) -> bool:
        """Whether this call, which is counted, is struck."""
        if call != self.call or not re.search(self.path, path):
            return False
        self.seen += 1
        return self.seen >= self.nth and (self.times is None or self.seen < self.nth + self.times)


def install(rules: list[Rule]) -> None:
    """Put the rules between this process's Python code and the kernel."""
    lock = threading.Lock()
    for call in CALLS:
        setattr(os, call, _faulty(call, getattr(os, call), rules, lock))


def _faulty(call: str, real: Callable[..., Any], rules: list[Rule], lock: threading.Lock) -> Callable[..., Any]:
    def faulty(*arguments: Any, **options: Any) -> Any:
        with lock:
            struck = [rule for rule in rules if rule.strikes(call, _path(call, arguments))]
        return suffer(struck[0].do, real, arguments, options) if struck else real(*arguments, **options)

    return faulty


def _path(call: str, arguments: tuple[Any, ...]) -> str:
    if call in ("write", "fsync"):
        return str(Path(f"/proc/self/fd/{arguments[0]}").readlink())
    return os.fspath(arguments[1 if call == "rename" else 0])


def suffer(do: str, real: Callable[..., Any], arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
    """Do what a rule says instead of a call, or before it."""
    if do == "term":
        os.kill(os.getpid(), signal.SIGTERM)
        return real(*arguments, **options)
    if not do.startswith("die"):
        code = getattr(errno, do)
        raise OSError(code, os.strerror(code))
    if do == "die half":
        file, data = arguments
        real(file, data[: len(data) // 2])
    elif do == "die after":
        real(*arguments, **options)
    os.kill(os.getpid(), signal.SIGKILL)
    threading.Event().wait()
