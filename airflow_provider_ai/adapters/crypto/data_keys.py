"""Data keys in use: one for each purpose to encrypt with, and those that were unwrapped to decrypt with.

A data key to encrypt with belongs to the process that made it. It is used for a bounded number of messages and bytes
and a bounded time; at half of any of these its successor is fetched in the background, so that encrypting waits for
nobody, and a key service that is down for a moment is not noticed. One that refuses is: :meth:`DataKeys.prepare` says
so, while what is under way can still be encrypted, and so kept, with the old data key until its limits.

A nonce is never used twice under a key: it is a counter of the messages of the data key, which is counted under a lock,
behind 64 random bits. A child process starts without data keys. The random bits are for what no process can notice:
that its machine was cloned while it ran.
"""

from __future__ import annotations

import logging
import os
import threading
import time
import weakref
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from airflow_provider_ai.adapters.crypto.wrapping import DataKey, KeyWrapper, binding_of
from airflow_provider_ai.core.envelope import Header, MessageKey, check_commitment, read_header
from airflow_provider_ai.core.key_settings import DataKeyLimits
from airflow_provider_ai.exceptions import EncryptionError, KeyRevokedError, KeyUnavailableError

_REMEMBERED = 4096  # unwrapped data keys
_AGAIN_SECONDS = 10.0  # between two attempts to fetch a successor
log = logging.getLogger(__name__)


@dataclass(slots=True)
class SealingKey:
    """A data key to encrypt with. ``start``: the header of its messages."""

    start: bytes
    key: MessageKey
    made_at: float
    messages: int = 0
    size: int = 0
    fetching: bool = False
    fetch_again_at: float = 0.0
    last_start: tuple[bytes, bytes] = (b"", b"")

    def start_at(self, additional: bytes) -> bytes:
        """Header and place: most messages have the additional data of the one before."""
        known, start = self.last_start
        if known is not additional:
            start = self.start + self.key.place(additional)
            self.last_start = (additional, start)
        return start


@dataclass(frozen=True, slots=True)
class OpeningKey:
    """A data key to decrypt with."""

    key: MessageKey
    purpose: str
    known_since: float


class DataKeys:
    """Thread-safe; :meth:`sealing` and :meth:`opening` block while a data key is fetched.

    :param clock: monotonic seconds
    """

    def __init__(
        self, wrapper: KeyWrapper, *, tenant: str, limits: DataKeyLimits, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._wrapper = wrapper
        self._tenant = tenant
        self._limits = limits
        self._clock = clock
        self.forget()
        _everywhere.add(self)

    def forget(self) -> None:
        """Start anew: in a child process, where locks may be held by threads that are not there."""
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._fetching = threading.Lock()
        self._sealing: dict[str, SealingKey] = {}
        self._refused: dict[str, KeyRevokedError] = {}
        self._opening: OrderedDict[bytes, OpeningKey] = OrderedDict()

    def sealing(self, purpose: str, size: int) -> tuple[SealingKey, bytes]:
        """A data key to encrypt ``size`` bytes with, and the nonce for them."""
        if self._process != os.getpid():  # forked by something that calls no hooks
            self.forget()
        while True:
            with self._lock:
                held, now = self._sealing.get(purpose), self._clock()
                if held is not None and self._takes(held, size, now):
                    return held, self._nonce(held, size, purpose, now)
            self._fetch(purpose, instead_of=held)

    def opening(self, start: bytes) -> OpeningKey:
        """The data key of the messages that begin with this header."""
        now = self._clock()
        with self._lock:
            found = self._opening.get(start)
            if found is not None and now - found.known_since < self._limits.max_age_seconds:
                self._opening.move_to_end(start)
                return found
        found = self._unwrapped(read_header(start), now)
        with self._lock:
            self._opening[start] = found
            self._opening.move_to_end(start)
            if len(self._opening) > _REMEMBERED:
                self._opening.popitem(last=False)
        return found

    def prepare(self, purpose: str) -> None:
        """See that there is a data key to encrypt with, and will be one.

        :raises EncryptionError: when there is none
        :raises KeyRevokedError: when the key was revoked since, though the data key in use still has some time
        """
        refused = self._refused.get(purpose)
        if refused is not None:
            self._try_again(purpose)
            refused = self._refused.get(purpose)
        if refused is not None:
            raise KeyRevokedError(str(refused))
        with self._lock:
            held, now = self._sealing.get(purpose), self._clock()
            ready = held is not None and self._process == os.getpid() and self._takes(held, 0, now)
            if ready and held is not None:
                self._renew_in_time(held, purpose, now)
        if not ready:
            self._fetch(purpose, instead_of=held)

    # --- the bounds

    def _takes(self, held: SealingKey, size: int, now: float) -> bool:
        limits = self._limits
        return (
            held.messages < limits.max_messages
            and (held.size + size <= limits.max_bytes or held.size == 0)
            and now - held.made_at < limits.max_age_seconds
        )

    def _nonce(self, held: SealingKey, size: int, purpose: str, now: float) -> bytes:
        held.messages += 1
        held.size += size
        self._renew_in_time(held, purpose, now)
        return os.urandom(8) + held.messages.to_bytes(4, "big")

    def _renew_in_time(self, held: SealingKey, purpose: str, now: float) -> None:
        limits = self._limits
        worn = (
            2 * held.messages >= limits.max_messages
            or 2 * held.size >= limits.max_bytes
            or 2 * (now - held.made_at) >= limits.max_age_seconds
        )
        if worn and not held.fetching and now >= held.fetch_again_at:
            held.fetching = True
            threading.Thread(target=self._renew, args=(held, purpose), name="ai-data-key", daemon=True).start()

    def _renew(self, held: SealingKey, purpose: str) -> None:
        try:
            self._fetch(purpose, instead_of=held)
        except KeyUnavailableError as error:
            log.warning("the next data key cannot be fetched yet: %s", error)
        except EncryptionError as error:
            log.error("the next data key is refused: %s", error)
        except Exception as error:  # noqa: BLE001 - nobody waits for this thread; whoever encrypts next meets the error
            log.error("the next data key cannot be fetched (%s)", type(error).__name__)
        finally:
            held.fetch_again_at = self._clock() + _AGAIN_SECONDS
            held.fetching = False

    def _try_again(self, purpose: str) -> None:
        """Whether a key that was refused is back; asked now and then, not by everybody."""
        held = self._sealing.get(purpose)
        if held is None or self._clock() >= held.fetch_again_at:
            if held is not None:
                held.fetch_again_at = self._clock() + _AGAIN_SECONDS
            self._fetch(purpose, instead_of=held)

    # --- fetching

    def _fetch(self, purpose: str, *, instead_of: SealingKey | None) -> None:
        """Put a new data key in the place of one, once, however many ask for it."""
        with self._fetching:
            if self._sealing.get(purpose) is not instead_of:
                return
            try:
                made = self._wrapper.make(binding_of(self._tenant, purpose))
            except KeyRevokedError as error:
                self._refused[purpose] = error
                raise
            self._refused.pop(purpose, None)
            with self._lock:
                self._sealing[purpose] = _sealing_key(made, purpose, self._clock())

    def _unwrapped(self, header: Header, now: float) -> OpeningKey:
        plain = self._wrapper.unwrap(header.key_id, header.wrapped_key, binding_of(self._tenant, header.purpose))
        key = MessageKey(plain)
        check_commitment(header, key)
        return OpeningKey(key, header.purpose, now)


def _sealing_key(made: DataKey, purpose: str, now: float) -> SealingKey:
    key = MessageKey(made.plain)
    header = Header(purpose=purpose, key_id=made.key_id, wrapped_key=made.wrapped, commitment=key.commitment)
    return SealingKey(start=header.to_bytes(), key=key, made_at=now)


_everywhere: weakref.WeakSet[DataKeys] = weakref.WeakSet()


def _forget_everywhere() -> None:
    for keys in list(_everywhere):
        keys.forget()


os.register_at_fork(after_in_child=_forget_everywhere)
