"""The object store: claims that no interleaving gives to two runners, and logs whose upload fails."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from pyarrow import fs

from airflow_provider_ai.adapters.checkpoints.object_storage import ClaimLock, ObjectStorage
from airflow_provider_ai.adapters.checkpoints.storage import Lock
from tests.adapters.checkpoints.locks import take_over
from tests.adapters.checkpoints.object_store import ObjectStoreHandler, object_store
from tests.support.ministack import MiniStack

FOREVER = 3600.0


def runner(filesystem: fs.FileSystem, *, lease_seconds: float, root: str = "bucket/p00000") -> ObjectStorage:
    """The folder of one partition as one runner sees it: every runner observes the claims for itself."""
    return ObjectStorage(filesystem, root, lease_seconds=lease_seconds)


def claim(storage: ObjectStorage, holder: str) -> Lock:
    lock = storage.try_lock(holder)
    assert lock is not None
    return lock


class Freezer:
    """Freezes the one thread that is told to at its next operation of one kind, until it is thawed."""

    def __init__(self, handler: ObjectStoreHandler, operation: str) -> None:
        self.frozen, self._thawed = threading.Event(), threading.Event()
        self._operation = operation
        self._victim: int | None = None
        handler.before = self._before

    def strike_this_thread(self) -> None:
        self._victim = threading.get_ident()

    def thaw(self) -> None:
        self._thawed.set()

    def _before(self, operation: str, key: str) -> None:
        if threading.get_ident() == self._victim and operation == self._operation:
            self._victim = None
            self.frozen.set()
            assert self._thawed.wait(20)


@pytest.mark.parametrize("operation", ["put", "get", "delete"])
def test_a_holder_frozen_in_the_middle_of_a_beat_does_not_bring_its_claim_back(operation: str) -> None:
    """Taken over meanwhile, it learns that with this beat or the next; the heir's claim stands all the time."""
    filesystem, handler = object_store()
    frozen = claim(runner(filesystem, lease_seconds=0.0), "frozen")  # no lease: each beat is due at once
    freezer = Freezer(handler, operation)

    def beat() -> bool:
        freezer.strike_this_thread()
        return frozen.beat()

    with ThreadPoolExecutor(1) as pool:
        beating = pool.submit(beat)
        assert freezer.frozen.wait(20)
        heir = claim(runner(filesystem, lease_seconds=0.0), "heir")
        freezer.thaw()
        beating.result(20)
    assert not frozen.beat()
    assert heir.beat()
    assert runner(filesystem, lease_seconds=FOREVER).try_lock("a third one") is None
    frozen.release()
    heir.release()
    assert handler.objects == {}


@pytest.mark.real
@pytest.mark.parametrize("operation", ["put", "get", "delete"])
def test_the_same_on_a_real_s3(ministack_server: MiniStack, monkeypatch: pytest.MonkeyPatch, operation: str) -> None:
    """The claims of the frozen holder and its heir are objects in a bucket, reached through one client each."""
    root = f"{ministack_server.make_bucket()}/p00000"
    frozen = claim(runner(ministack_server.filesystem(), lease_seconds=0.0, root=root), "frozen")
    heirs: list[Lock] = []
    method = {"put": "write", "get": "read", "delete": "delete"}[operation]
    real = getattr(ObjectStorage, method)

    def taken_over_before(self: ObjectStorage, *arguments: object) -> object:
        monkeypatch.undo()
        heirs.append(claim(runner(ministack_server.filesystem(), lease_seconds=0.0, root=root), "heir"))
        return real(self, *arguments)

    monkeypatch.setattr(ObjectStorage, method, taken_over_before)
    frozen.beat()
    assert not frozen.beat()
    assert heirs[0].beat()
    late = runner(ministack_server.filesystem(), lease_seconds=FOREVER, root=root)
    assert late.try_lock("a third one") is None


class Scheduler:
    """Lets the threads of a test do one storage operation at a time, in a seeded order."""

    def __init__(self, handler: ObjectStoreHandler, chosen: random.Random) -> None:
        self._chosen = chosen
        self._changed = threading.Condition()
        self._running = 0
        self._waiting: dict[int, bool] = {}
        handler.before = self._before

    def run(self, *works: Callable[[], object]) -> list[object]:
        """The results of the works, done side by side."""
        self._running = len(works)
        with ThreadPoolExecutor(len(works)) as pool:
            futures = [pool.submit(self._work, work) for work in works]
            return [future.result(20) for future in futures]

    def _work(self, work: Callable[[], object]) -> object:
        try:
            return work()
        finally:
            with self._changed:
                self._running -= 1
                self._pick()

    def _before(self, operation: str, key: str) -> None:
        me = threading.get_ident()
        with self._changed:
            if not self._running:
                return
            self._waiting[me] = False
            self._pick()
            assert self._changed.wait_for(lambda: self._waiting[me], 20)
            del self._waiting[me]

    def _pick(self) -> None:
        """Once every thread waits, one goes on."""
        if self._waiting and len(self._waiting) == self._running and not any(self._waiting.values()):
            self._waiting[self._chosen.choice(sorted(self._waiting))] = True
            self._changed.notify_all()


@pytest.mark.parametrize("case", range(150))
def test_no_interleaving_gives_the_lock_to_two(seed: int, case: int) -> None:
    """A holder that beats and two that take it for dead: afterwards at most one of the three finds that it holds it."""
    filesystem, handler = object_store()
    storages = [runner(filesystem, lease_seconds=0.0) for _ in range(3)]
    first = claim(storages[0], "holder")
    scheduler = Scheduler(handler, random.Random(seed * 1000 + case))
    results = scheduler.run(
        lambda: [first.beat() for _ in range(3)],
        *(lambda storage=storage: storage.try_lock("taker") for storage in storages[1:]),  # type: ignore[misc]
    )
    locks = [first, *(lock for lock in results[1:] if isinstance(lock, ClaimLock))]
    assert sum(lock.beat() for lock in locks) <= 1


def test_a_claim_is_dead_when_it_has_not_changed_for_the_lease() -> None:
    """On the observer's own clock, from its first look on; then the claim is taken over and removed."""
    filesystem, handler = object_store()
    claim(runner(filesystem, lease_seconds=FOREVER), "killed")
    observer = runner(filesystem, lease_seconds=0.3)
    take_over(observer)
    assert len(handler.objects) == 1


def test_a_holder_that_beats_is_never_taken_over() -> None:
    """However long another runner waits: here for several leases."""
    filesystem, _ = object_store()
    lock = claim(runner(filesystem, lease_seconds=0.5), "holder")
    observer = runner(filesystem, lease_seconds=0.5)
    over = threading.Event()
    timer = threading.Timer(2.0, over.set)
    timer.start()
    while not over.wait(0.05):
        assert lock.beat()
        assert observer.try_lock("me") is None


@pytest.mark.parametrize("operation", ["put", "list", "delete"])
def test_a_claim_that_cannot_be_made_is_not_kept(operation: str) -> None:
    """A store that fails once fails the attempt; nothing is left behind that others would have to wait out."""
    filesystem, handler = object_store()
    claim(runner(filesystem, lease_seconds=0.0), "killed")
    taker = runner(filesystem, lease_seconds=0.0)
    seen: list[str] = []

    def fail_once(done: str, key: str) -> None:
        seen.append(done)
        if done == operation and seen.count(done) == (2 if operation == "list" else 1):
            raise OSError("slow down")

    handler.before = fail_once
    with pytest.raises(OSError, match="slow down"):
        taker.try_lock("me")
    left = [content for content in handler.objects.values() if content == b"me"]
    assert left == []


@pytest.mark.parametrize("operation", ["put", "get", "delete"])
def test_a_beat_that_fails_is_made_up_for_by_the_next(operation: str) -> None:
    """An OSError says nothing about who holds the lock, and a claim that lingers is removed in the end."""
    filesystem, handler = object_store()
    lock = claim(runner(filesystem, lease_seconds=0.0), "holder")

    def fail(done: str, key: str) -> None:
        if done == operation:
            raise OSError("slow down")

    handler.before = fail
    with pytest.raises(OSError, match="slow down"):
        lock.beat()
    handler.before = lambda done, key: None
    assert lock.beat()
    assert lock.beat()
    assert len(handler.objects) == 1
    lock.release()
    assert handler.objects == {}


def test_an_upload_that_fails_keeps_its_frames_for_the_next() -> None:
    """In order, and with those that were appended meanwhile; nothing is named that does not stand."""
    filesystem, handler = object_store()
    storage = runner(filesystem, lease_seconds=0.0)
    log = storage.open_log("log-w-00000")
    log.append(b"one ")

    def fail(operation: str, key: str) -> None:
        raise OSError("slow down")

    handler.before = fail
    with pytest.raises(OSError, match="slow down"):
        log.sync()
    assert log.names == []
    handler.before = lambda operation, key: None
    log.append(b"two")
    log.close()
    assert [storage.read(name) for name in log.names] == [b"one two"]
