"""Threads that can be left behind: what hangs costs one thread, never the caller and never the exit."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time

import pytest

from airflow_provider_ai.patterns.daemon_threads import DaemonThreads, LeftBehindError, NoThreadError, WorkExitedError
from tests.support.processes import REPOSITORY


def test_the_result_and_the_error_of_the_work_reach_the_caller() -> None:
    """What the work returns is returned, what it raises is raised."""
    threads = DaemonThreads()
    assert threads.run(lambda: 6 * 7, seconds=5) == 42
    with pytest.raises(ZeroDivisionError):
        threads.run(lambda: 1 // 0, seconds=5)


def test_work_that_takes_too_long_is_left_behind() -> None:
    """The caller goes on at its time; the thread ends by itself later and is used again."""
    threads, gate = DaemonThreads(most=1), threading.Event()
    began = time.monotonic()
    with pytest.raises(LeftBehindError):
        threads.run(gate.wait, seconds=0.05)
    assert 0.05 <= time.monotonic() - began < 1.0
    with pytest.raises(NoThreadError):
        threads.run(lambda: None, seconds=5)
    gate.set()
    assert _eventually(lambda: threads.run(threading.get_ident, seconds=5)) != threading.get_ident()


def test_a_thread_is_used_again() -> None:
    """Calls one after the other share one thread, and so its connections."""
    threads = DaemonThreads()
    assert len({threads.run(threading.get_ident, seconds=5) for _ in range(20)}) == 1


def test_work_that_wants_to_exit_does_not_take_the_caller_along() -> None:
    """A SystemExit in the work is an error like any other."""
    with pytest.raises(WorkExitedError, match="SystemExit"):
        DaemonThreads().run(sys.exit, seconds=5)


def test_closing_lets_threads_end_and_tells_them_to_clean_up() -> None:
    """An idle thread ends at once, a busy one when it is done; both clean up after themselves."""
    ended: list[int] = []
    threads, gate = DaemonThreads(at_end=lambda: ended.append(threading.get_ident())), threading.Event()
    busy = threads.start(gate.wait)
    idle = threads.run(threading.get_ident, seconds=5)
    threads.close()
    _until(lambda: ended == [idle])
    gate.set()
    assert busy.wait(5)
    _until(lambda: len(ended) == 2)


def test_a_forked_child_has_threads_of_its_own() -> None:
    """Threads do not survive a fork: a child that found its parent's idle ones would wait for them in vain."""
    threads = DaemonThreads()
    threads.run(lambda: None, seconds=5)
    child = os.fork()
    if child == 0:
        try:
            os._exit(0 if threads.run(lambda: 7, seconds=5) == 7 else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_thread_that_hangs_does_not_hold_up_the_exit() -> None:
    """The process exits while a thread sleeps for a minute, which a ThreadPoolExecutor would wait for."""
    code = """
import time
from airflow_provider_ai.patterns.daemon_threads import DaemonThreads, LeftBehindError
try:
    DaemonThreads().run(lambda: time.sleep(60), seconds=0.01)
except LeftBehindError:
    print("left behind")
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, timeout=30, check=True
    )
    assert done.stdout == "left behind\n"


def _eventually(work: object) -> int:
    """The result of ``work`` as soon as there is a thread for it."""
    deadline = time.monotonic() + 5
    while True:
        try:
            return work()  # type: ignore[operator, no-any-return]
        except NoThreadError:
            assert time.monotonic() < deadline
            time.sleep(0.001)


def _until(condition: object) -> None:
    deadline = time.monotonic() + 5
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.001)
