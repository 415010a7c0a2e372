"""A run of the command line as it is, under ``strace`` with one system call tampered with.

``when`` counts per thread. A kill happens before the call has any effect; which file it would have touched is in the
trace, so a test can make sure that it struck the moment it names.
"""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

needs_strace = pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed (apt install strace)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tampering:
    """One injection.

    :param calls: system calls, separated by commas
    :param fault: ``signal=KILL`` or ``error=EIO``
    :param when: as strace takes it: ``3`` the third, ``3+`` from the third on
    :param only: strike only calls that touch this file
    """

    calls: str
    fault: str
    when: str = "1"
    only: Path | None = None

    def command(self, trace: Path) -> list[str | Path]:
        """What to put before the command; the trace goes to a file."""
        only = [] if self.only is None else ["-P", self.only]  # which --seccomp-bpf would ignore
        options: list[str | Path] = ["-f", "-y", "-qq", "-e", "signal=none", "-o", trace, *only]
        inject = f"inject={self.calls}:{self.fault}:when={self.when}"
        return ["strace", *options, "-e", f"trace={self.calls}", "-e", inject]


def last_call(trace: Path) -> str:
    """The call during which the process was killed, as strace shows it; empty when it was none.

    A call that another thread's call interrupts stands there in two halves: its arguments are in the first.
    """
    begun: dict[str, str] = {}
    found = ""
    for line in trace.read_text(errors="replace").splitlines():
        thread, _, call = line.partition(" ")
        if call.endswith("<unfinished ...>"):
            begun[thread] = call
        elif re.search(r"= \?( <unavailable>)?$", call):
            found = begun.pop(thread, "") + call if "resumed>" in call else call
    return found.strip()


def injected(trace: Path) -> int:
    """How many calls were made to fail."""
    return trace.read_text(errors="replace").count("(INJECTED)")
