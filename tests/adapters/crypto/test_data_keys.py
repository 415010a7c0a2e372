"""Data keys: bounded, fetched ahead of time, and what is said when they cannot be had."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import pytest

from airflow_provider_ai.adapters.crypto.data_keys import DataKeys
from airflow_provider_ai.adapters.crypto.local_keys import LocalKeyWrapper
from airflow_provider_ai.adapters.crypto.wrapping import DataKey
from airflow_provider_ai.core.key_settings import DataKeyLimits
from airflow_provider_ai.exceptions import EncryptionError, KeyRevokedError, KeyUnavailableError
from tests.support.keys import local_keys

LIMITS = DataKeyLimits(max_messages=10, max_bytes=1000, max_age_seconds=100.0)


@dataclass
class Service:
    """A key service that counts, and fails when told to."""

    error: EncryptionError | None = None
    made: int = 0
    unwrapped: int = 0
    real: LocalKeyWrapper = field(default_factory=lambda: LocalKeyWrapper(local_keys()))

    def make(self, binding: Mapping[str, str]) -> DataKey:
        self.made += 1
        if self.error is not None:
            raise self.error
        return self.real.make(binding)

    def unwrap(self, key_id: str, wrapped: bytes, binding: Mapping[str, str]) -> bytes:
        self.unwrapped += 1
        if self.error is not None:
            raise self.error
        return self.real.unwrap(key_id, wrapped, binding)

    def wrap_anew(self, key_id: str, wrapped: bytes, binding: Mapping[str, str]) -> tuple[str, bytes]:
        return self.real.wrap_anew(key_id, wrapped, binding)

    def is_current(self, key_id: str) -> bool:
        return self.real.is_current(key_id)

    def hash_key(self, tenant: str) -> bytes:
        return self.real.hash_key(tenant)


@dataclass
class Scene:
    service: Service = field(default_factory=Service)
    now: float = 1000.0

    def __post_init__(self) -> None:
        self.keys = DataKeys(self.service, tenant="t", limits=LIMITS, clock=lambda: self.now)

    def start(self, size: int = 1, purpose: str = "p") -> bytes:
        """The header of the next message."""
        return self.keys.sealing(purpose, size)[0].start


@pytest.fixture
def scene() -> Scene:
    return Scene()


def eventually(condition: Callable[[], bool]) -> bool:
    """Threads in the background get ten seconds."""
    deadline = time.monotonic() + 10
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.002)
    return condition()


def test_a_data_key_is_used_for_so_many_messages(scene: Scene) -> None:
    """Never for more, whether its successor is there in time or not."""
    scene.service.error = None
    used: dict[bytes, int] = {}
    for _ in range(95):
        start = scene.start()
        used[start] = used.get(start, 0) + 1
    assert max(used.values()) <= 10
    assert len(used) >= 10


def test_a_data_key_is_used_for_so_many_bytes(scene: Scene) -> None:
    """A message that is larger than all that has a data key of its own."""
    sizes: dict[bytes, list[int]] = {}
    for size in [300] * 10 + [5000, 5000, 1]:
        sizes.setdefault(scene.start(size), []).append(size)
    assert all(sum(each) <= 1000 or len(each) == 1 for each in sizes.values())


def test_a_data_key_is_used_for_so_long(scene: Scene) -> None:
    first = scene.start()
    scene.now += 49
    assert scene.start() == first
    assert scene.service.made == 1
    scene.now += 52
    assert scene.start() != first


def test_the_successor_is_fetched_while_the_old_one_is_used(scene: Scene) -> None:
    """At half of its time, and nobody waits for it."""
    release = threading.Event()
    make = scene.service.make

    def slow(binding: Mapping[str, str]) -> DataKey:
        release.wait(10)
        return make(binding)

    first = scene.start()
    scene.service.make = slow  # type: ignore[method-assign]
    scene.now += 51
    assert scene.start() == first
    assert scene.start() == first
    release.set()
    assert eventually(lambda: scene.start() != first)
    assert scene.service.made == 2


def test_a_service_that_is_down_for_a_moment_is_not_noticed(scene: Scene) -> None:
    """Nor asked all the time; when it is still down at the end, that is said."""
    first = scene.start()
    scene.service.error = KeyUnavailableError("down")
    scene.now += 51
    assert scene.start() == first
    assert eventually(lambda: scene.service.made == 2)
    for _ in range(5):
        assert scene.start() == first
        scene.keys.prepare("p")
    assert scene.service.made == 2
    scene.now += 50
    with pytest.raises(KeyUnavailableError, match="down"):
        scene.start()


def test_a_revoked_key_is_said_before_it_is_too_late(scene: Scene) -> None:
    """Preparing refuses, so nothing new is begun; what is under way is still encrypted. Once it is back, so is all."""
    first = scene.start()
    scene.service.error = KeyRevokedError("disabled")
    scene.now += 51
    scene.start()
    assert eventually(lambda: scene.service.made == 2)
    with pytest.raises(KeyRevokedError, match="disabled"):
        eventually(lambda: scene.keys.prepare("p") is not None)
    assert scene.start() == first
    scene.service.error = None
    scene.now += 11
    scene.keys.prepare("p")
    assert scene.start() != first


def test_without_a_first_data_key_preparing_says_why(scene: Scene) -> None:
    scene.service.error = KeyRevokedError("disabled")
    for _ in range(2):
        with pytest.raises(KeyRevokedError, match="disabled"):
            scene.keys.prepare("p")
    scene.service.error = None
    scene.keys.prepare("p")
    assert scene.start()


def test_unwrapped_data_keys_are_remembered_for_a_while(scene: Scene) -> None:
    """Longer than that a revoked key does not work, here either."""
    start = scene.start()
    for _ in range(3):
        assert scene.keys.opening(start).purpose == "p"
    assert scene.service.unwrapped == 1
    scene.service.error = KeyRevokedError("disabled")
    scene.now += 99
    scene.keys.opening(start)
    scene.now += 1
    with pytest.raises(KeyRevokedError):
        scene.keys.opening(start)


def test_many_who_need_the_first_data_key_get_the_same(scene: Scene) -> None:
    """It costs a call of the key service, which is paid for."""
    starts: list[bytes] = []
    threads = [threading.Thread(target=lambda: starts.append(scene.start())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(starts)) == 1
    assert scene.service.made == 1
