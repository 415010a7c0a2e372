"""Heads of a chain, signed and shipped: the first before anything is audited, then one now and then, one at the end.

Shipping goes on beside the events, in a thread: nobody waits for an object store, but the first event for the first
head. With ``strict`` nothing more may be audited once heads have been late for too long, for until the next one nobody
could tell if the end of the chain were cut off.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from airflow_provider_ai.adapters.audit.head_places import HeadPlace
from airflow_provider_ai.adapters.audit.signing import HeadSigner
from airflow_provider_ai.core.audit import Position
from airflow_provider_ai.core.audit_chain import Head, SignedHead
from airflow_provider_ai.exceptions import AuditUnavailableError, StoreError

_CLOSE_SECONDS = 30.0
log = logging.getLogger(__name__)


class HeadShipper:
    """Ships the heads of one chain. Thread-safe.

    :param copy: keeps a copy in the store
    :param interval_seconds: a head is shipped this often, while there is something new
    :param lag_seconds: from the first event that no head vouches for
    :param strict: whether to refuse further events after that
    :param epoch_us: microseconds since the epoch
    """

    def __init__(
        self,
        signer: HeadSigner,
        place: HeadPlace,
        *,
        copy: Callable[[SignedHead], None],
        interval_seconds: float,
        lag_seconds: float,
        strict: bool,
        epoch_us: Callable[[], int],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._signer = signer
        self._place = place
        self._copy = copy
        self._interval = interval_seconds
        self._lag = lag_seconds
        self._strict = strict
        self._epoch_us = epoch_us
        self._clock = clock
        self._end: Position | None = None
        self._late_since: float | None = None
        self._closing = threading.Event()
        self._shipping = threading.Lock()
        self._failing = False

    def begin(self, first: Position) -> None:
        """Ship the first head, and go on doing so.

        :raises AuditError: when it cannot be shipped and that is needed
        """
        self._end = first
        try:
            self._ship(closed=False)
        except StoreError as error:
            if self._strict:
                raise
            self._late_since = self._clock()
            self._say(error)
        threading.Thread(target=self._run, name="ai-audit-heads", daemon=True).start()

    def note(self, end: Position) -> None:
        """The chain goes on to here, durably."""
        self._end = end
        if self._late_since is None:
            self._late_since = self._clock()

    def require_fresh(self) -> None:
        """AuditUnavailableError when heads are late, and that matters."""
        late = self._late_since
        if self._strict and late is not None and self._clock() - late > self._lag:
            raise AuditUnavailableError(
                f"{self._place.where}: no head could be shipped for {self._lag:.0f} s, so nothing is audited and "
                "nothing is done; it goes on by itself once they can be"
            )

    def close(self, *, final: bool = True) -> None:
        """Ship the last head, if the chain has begun. What goes wrong is logged.

        :param final: whether it says that nothing follows
        """
        if self._closing.is_set() or self._end is None:
            return
        self._closing.set()
        try:
            self._ship(closed=final, last=True)
        except StoreError as error:
            log.warning("audit: the last head of chain %s is not shipped: %s", self._end.writer, error)

    # ---

    def _run(self) -> None:
        while not self._closing.wait(self._interval):
            if self._late_since is None:
                continue
            try:
                self._ship(closed=False)
            except StoreError as error:
                self._say(error)
            except Exception as error:  # noqa: BLE001 - the thread must go on: without heads nothing is audited
                self._say(AuditUnavailableError(f"unexpected {type(error).__name__}"))
            else:
                self._failing = False

    def _ship(self, *, closed: bool, last: bool = False) -> None:
        if not self._shipping.acquire(timeout=_CLOSE_SECONDS):
            raise AuditUnavailableError(f"{self._place.where}: no answer")
        try:
            since, self._late_since = self._late_since, None  # what comes from now on is for the next head
            end = self._end
            if end is None or (self._closing.is_set() and not last):
                return
            try:
                head = Head(
                    writer=end.writer, sequence=end.sequence, hash=end.hash, at_us=self._epoch_us(), closed=closed
                )
                signed = self._signer.sign(head)
                self._place.put(head.name, signed.to_json())
                self._copy(signed)
            except BaseException:
                self._late_since = since if since is not None else self._clock()
                raise
        finally:
            self._shipping.release()

    def _say(self, error: StoreError) -> None:
        if not self._failing:
            self._failing = True
            log.warning("audit: heads cannot be shipped, trying again until they can: %s", error)
