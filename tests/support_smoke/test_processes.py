"""The process launcher: what it starts answers, and nothing of it survives."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.support import processes

DEAF = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(600)"
FAMILY = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'], start_new_session={apart})
print(child.pid, flush=True)
time.sleep(600)
"""


def start(code: str, tmp_path: Path) -> processes.Service:
    return processes.start("child", [sys.executable, "-c", code], log_path=tmp_path / "child.log")


def first_line(service: processes.Service) -> str:
    service.wait_ready(lambda: bool(service.log_tail()), deadline_seconds=20.0)
    return service.log_tail().splitlines()[0]


@pytest.mark.parametrize("apart", [False, True], ids=["in the same session", "in a session of its own"])
def test_stopping_ends_the_children_too(apart: bool, tmp_path: Path) -> None:
    """A child is gone with its parent, even one that left the session."""
    service = start(FAMILY.format(apart=apart), tmp_path)
    child = int(first_line(service))
    assert psutil.pid_exists(child)
    service.stop()
    assert service.members() == set()
    assert not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE


def test_a_service_that_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    """The grace is bounded, and stopping twice is harmless."""
    service = start(DEAF, tmp_path)
    first_line(service)
    began = time.monotonic()
    service.stop(grace_seconds=0.3)
    service.stop()
    assert service.process.returncode == -9
    assert 0.3 <= time.monotonic() - began < 10


def test_a_service_that_dies_says_why(tmp_path: Path) -> None:
    """The error carries the exit code and the end of the log."""
    service = start("print('no such model'); raise SystemExit(7)", tmp_path)
    with pytest.raises(processes.ServiceError, match="exit code 7") as error:
        service.wait_ready(lambda: False, deadline_seconds=20.0)
    assert "no such model" in str(error.value)


def test_a_service_that_dawdles_is_an_error_and_is_stopped(tmp_path: Path) -> None:
    """A start that misses its deadline leaves nothing behind."""
    command = [sys.executable, "-c", "import time; time.sleep(600)"]
    log = tmp_path / "child.log"
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    with (
        pytest.raises(processes.ServiceError, match=r"not ready within 0\.2 s"),
        processes.running("child", command, log_path=log, ready=lambda: False, deadline_seconds=0.2),
    ):
        pytest.fail("a service that never answers was reported ready")
    alive = [child for child in psutil.Process().children(recursive=True) if child.status() != psutil.STATUS_ZOMBIE]
    assert {child.pid for child in alive} <= before


def test_free_ports_are_free_and_not_ephemeral() -> None:
    """Each port can be bound, and the kernel will not hand it to an outgoing connection."""
    ports = [processes.free_port() for _ in range(20)]
    assert all(15_000 <= port < 32_000 for port in ports)
    assert not any(processes.accepts_connections(port) for port in ports)


def test_children_may_write_bytecode_and_never_use_a_proxy_for_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two habits of the caller's environment that slow down or break a service are not inherited."""
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    monkeypatch.setenv("NO_PROXY", "")
    environment = processes.child_environment({"NAME": "value"})
    assert "PYTHONDONTWRITEBYTECODE" not in environment
    assert environment["NO_PROXY"] == "127.0.0.1,localhost"
    assert environment["NAME"] == "value"
