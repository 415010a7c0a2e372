"""Start a service, wait until it answers, stop it with everything it started.

Each service leads a session of its own and writes to a log file. It is stopped by what started it, through process ids
it owns, never by name: other people's processes of the same name live on the same machine. Readiness is always a probe
polled until a deadline, never a sleep; a service that dies or dawdles is an error that carries the end of its log.
"""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

REPOSITORY = Path(__file__).resolve().parents[2]
POLL_SECONDS = 0.05

_direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class ServiceError(RuntimeError):
    """A service did not start, or did not stop."""


def free_port() -> int:
    """A TCP port nothing listens on at 127.0.0.1.

    It comes from below the kernel's ephemeral range, so that no outgoing connection grabs it before the service does.
    """
    candidates = random.SystemRandom()
    for _ in range(200):
        port = candidates.randrange(15_000, 32_000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise ServiceError("no free TCP port on 127.0.0.1 between 15000 and 32000 after 200 tries")


def http_ok(url: str, *, timeout_seconds: float = 2.0) -> bool:
    """Whether ``url`` answers 2xx; proxies of the environment are not asked."""
    try:
        with _direct.open(url, timeout=timeout_seconds) as answer:
            return 200 <= int(answer.status) < 300
    except (OSError, urllib.error.URLError, ValueError):
        return False


def accepts_connections(port: int) -> bool:
    """Whether something listens on ``port`` of 127.0.0.1."""
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def child_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's environment for a child: bytecode may be written, loopback is never proxied, ``extra`` wins."""
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return inherited | {"NO_PROXY": "127.0.0.1,localhost", "no_proxy": "127.0.0.1,localhost"} | dict(extra or {})


def wait_until(
    condition: Callable[[], bool], *, deadline_seconds: float, what: str, poll_seconds: float = POLL_SECONDS
) -> None:
    """Poll until ``condition`` holds; :class:`ServiceError` naming ``what`` after ``deadline_seconds``."""
    deadline = time.monotonic() + deadline_seconds
    while not condition():
        if time.monotonic() >= deadline:
            raise ServiceError(f"{what}: not so within {deadline_seconds:g} s")
        time.sleep(poll_seconds)


@dataclass(kw_only=True)
class Service:
    """A started process, its session, and how it wants to be stopped.

    :param stop_signal: asks for an orderly end
    :param stop_leader_only: the leader ends its children itself and they must not hear the signal (PostgreSQL)
    """

    name: str
    process: subprocess.Popen[bytes]
    log_path: Path
    stop_signal: signal.Signals = signal.SIGTERM
    stop_leader_only: bool = False
    seen: set[psutil.Process] = field(default_factory=set, repr=False)
    ended: bool = field(default=False, init=False)  # its pid may be someone else's by now

    @property
    def pid(self) -> int:
        return self.process.pid

    def members(self) -> set[psutil.Process]:
        """Live processes of the service: its session, its group, their descendants, and any that were so before."""
        if self.ended:
            return set()
        self.seen |= {process for process in psutil.process_iter() if _belongs(process.pid, self.pid)}
        for process in list(self.seen):
            self.seen |= _descendants(process)
        self.seen = {process for process in self.seen if _is_live(process)}
        self.ended = self.process.poll() is not None and not self.seen
        return set(self.seen)

    def log_tail(self, lines: int = 30) -> str:
        text = self.log_path.read_text(errors="replace") if self.log_path.exists() else ""
        return "\n".join(text.splitlines()[-lines:])

    def wait_ready(self, ready: Callable[[], bool], *, deadline_seconds: float) -> None:
        """Poll ``ready``; :class:`ServiceError` with the end of the log when the process dies or time is up."""
        deadline = time.monotonic() + deadline_seconds
        while not ready():
            self.require_alive()
            if time.monotonic() >= deadline:
                raise self._failure(f"was not ready within {deadline_seconds:g} s")
            time.sleep(POLL_SECONDS)

    def require_alive(self) -> None:
        """:class:`ServiceError` with the end of the log when the leader has ended."""
        if (code := self.process.poll()) is not None:
            raise self._failure(f"ended with exit code {code}")

    def kill(self) -> None:
        """SIGKILL to every member: what a power cut looks like."""
        for process in self.members():
            _send(process, signal.SIGKILL)
        self._wait_gone(10.0)

    def stop(self, *, grace_seconds: float = 15.0) -> None:
        """Ask for an orderly end, then SIGKILL whatever is left. Idempotent. Nothing of the service survives."""
        members = self.members()
        for process in members:
            if process.pid == self.pid or not self.stop_leader_only:
                _send(process, self.stop_signal)
        if not self._gone_within(grace_seconds):
            self.kill()

    def _gone_within(self, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while self.members():
            if time.monotonic() >= deadline:
                return False
            time.sleep(POLL_SECONDS)
        return True

    def _wait_gone(self, seconds: float) -> None:
        if not self._gone_within(seconds):
            raise self._failure(f"left processes {sorted(process.pid for process in self.members())} after SIGKILL")

    def _failure(self, what: str) -> ServiceError:
        return ServiceError(f"{self.name} {what}; the end of {self.log_path}:\n{self.log_tail()}")


def _belongs(pid: int, leader: int) -> bool:
    try:
        return leader in (os.getsid(pid), os.getpgid(pid))
    except (ProcessLookupError, PermissionError):
        return False


def _descendants(process: psutil.Process) -> set[psutil.Process]:
    try:
        return set(process.children(recursive=True))
    except psutil.Error:
        return set()


def _is_live(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() not in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
    except psutil.Error:
        return False


def _send(process: psutil.Process, number: signal.Signals) -> None:
    try:
        process.send_signal(number)
    except psutil.NoSuchProcess:
        return


def start(
    name: str,
    command: Sequence[str | Path],
    *,
    log_path: Path,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    stop_signal: signal.Signals = signal.SIGTERM,
    stop_leader_only: bool = False,
    **popen: Any,
) -> Service:
    """Start ``command`` as the leader of a new session, output appended to ``log_path``. ``env`` is the whole one."""
    log_path.parent.mkdir(parents=True, exist_ok=True)
    with log_path.open("ab") as log:
        process = subprocess.Popen(
            [str(part) for part in command],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=child_environment() if env is None else dict(env),
            cwd=cwd,
            start_new_session=True,
            **popen,
        )
    return Service(
        name=name, process=process, log_path=log_path, stop_signal=stop_signal, stop_leader_only=stop_leader_only
    )


def stop_all(services: Iterable[Service], *, grace_seconds: float = 15.0) -> None:
    """Stop services side by side: each has its own grace, and none waits for another's."""
    with ThreadPoolExecutor(max_workers=8) as pool:
        for stopped in [pool.submit(service.stop, grace_seconds=grace_seconds) for service in services]:
            stopped.result()


@contextmanager
def running(
    name: str,
    command: Sequence[str | Path],
    *,
    log_path: Path,
    ready: Callable[[], bool],
    deadline_seconds: float,
    **options: Any,
) -> Iterator[Service]:
    """:func:`start`, wait until ``ready``, and stop at the end, also when the start fails."""
    service = start(name, command, log_path=log_path, **options)
    try:
        service.wait_ready(ready, deadline_seconds=deadline_seconds)
        yield service
    finally:
        service.stop()


def side_environment(name: str) -> Path:
    """The Python of a side environment that `make install` makes; :class:`ServiceError` when it is not there."""
    python = REPOSITORY / ".venvs" / name / "bin" / "python"
    if not python.exists():
        raise ServiceError(f"{python} does not exist: run `make install`")
    return python
