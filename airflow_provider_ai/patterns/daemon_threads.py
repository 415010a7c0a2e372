"""Work that may hang, done by threads that can be left behind.

Nothing in Python ends a thread that hangs in a look-up, a handshake or a validator, so the caller waits for a while and
then goes on without it. The threads are daemons and are joined by nobody (unlike those of ``concurrent.futures``, which
hold up the exit of the process): what was left behind costs one thread until it comes back, and never the exit. How
many there may be is bounded, so that a dead endpoint cannot fill a service with them.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any, Generic, TypeVar, cast

T = TypeVar("T")
_IDLE_SECONDS = 30.0


class LeftBehindError(Exception):
    """The work was not done in time; its thread goes on alone."""


class WorkExitedError(Exception):
    """The work tried to end its thread or the process."""


class NoThreadError(Exception):
    """All threads this process may have are busy or left behind."""


class Job(Generic[T]):
    """A piece of work under way."""

    __slots__ = ("_ended", "_error", "_result", "_work")

    def __init__(self, work: Callable[[], T]) -> None:
        self._work = work
        self._result: T | None = None
        self._error: Exception | None = None
        self._ended = threading.Lock()
        self._ended.acquire()

    def run(self) -> None:
        """Do it, in the thread that calls."""
        try:
            self._result = self._work()
        except Exception as error:  # noqa: BLE001 - handed to whoever waits
            self._error = error
        except BaseException as error:  # noqa: BLE001 - a SystemExit in here must not end whoever waits
            self._error = WorkExitedError(type(error).__name__)

    def end(self) -> None:
        """Let whoever waits go on."""
        self._ended.release()

    def wait(self, seconds: float) -> bool:
        """Whether it has ended, after at most ``seconds``. For one waiting thread."""
        if not self._ended.acquire(timeout=max(0.0, seconds)):
            return False
        self._ended.release()
        return True

    def result(self) -> T:
        """What an ended job returned, or what it raised."""
        if self._error is not None:
            raise self._error
        return cast(T, self._result)


class DaemonThreads:
    """Threads for one kind of work, made when needed and used again.

    :param most: threads alive at a time, those left behind included
    :param at_end: called by each thread before it ends, for what it keeps to itself
    """

    def __init__(self, *, most: int = 256, at_end: Callable[[], None] | None = None) -> None:
        self._most = most
        self._at_end = at_end
        self._lock = threading.Lock()
        self._forget()

    def _forget(self) -> None:
        self._pid = os.getpid()
        self._idle: list[SimpleQueue[Job[Any] | None]] = []
        self._alive = 0
        self._closed = False

    def run(self, work: Callable[[], T], *, seconds: float) -> T:
        """Do ``work`` within ``seconds``. LeftBehindError when it takes longer, NoThreadError when nobody can."""
        job = self.start(work)
        if not job.wait(seconds):
            raise LeftBehindError
        return job.result()

    def start(self, work: Callable[[], T]) -> Job[T]:
        """Begin ``work`` and do not wait."""
        job = Job(work)
        self._free_thread().put(job)
        return job

    def close(self) -> None:
        """Send idle threads home, and the busy ones when they are done."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for inbox in idle:
            inbox.put(None)

    def _free_thread(self) -> SimpleQueue[Job[Any] | None]:
        if self._pid != os.getpid():  # a child of the process that had the threads
            self._lock = threading.Lock()
            self._forget()
        with self._lock:
            if self._idle:
                return self._idle.pop()
            if self._alive >= self._most:
                raise NoThreadError
            self._alive += 1
        inbox: SimpleQueue[Job[Any] | None] = SimpleQueue()
        try:
            threading.Thread(target=self._serve, args=(inbox,), name="ai-call", daemon=True).start()
        except RuntimeError:  # the system has no more
            with self._lock:
                self._alive -= 1
            raise NoThreadError from None
        return inbox

    def _serve(self, inbox: SimpleQueue[Job[Any] | None]) -> None:
        try:
            while (job := self._next(inbox)) is not None:
                job.run()
                # Free before the caller goes on: its next piece of work finds this thread, and its connections.
                free = self._rest(inbox)
                job.end()
                del job  # it holds the caller's data
                if not free:
                    return
        finally:
            with self._lock:
                self._alive -= 1
            if self._at_end is not None:
                self._at_end()

    def _next(self, inbox: SimpleQueue[Job[Any] | None]) -> Job[Any] | None:
        while True:
            try:
                return inbox.get(timeout=_IDLE_SECONDS)
            except Empty:
                with self._lock:
                    if inbox in self._idle:
                        self._idle.remove(inbox)
                        return None

    def _rest(self, inbox: SimpleQueue[Job[Any] | None]) -> bool:
        with self._lock:
            if not self._closed:
                self._idle.append(inbox)
            return not self._closed
