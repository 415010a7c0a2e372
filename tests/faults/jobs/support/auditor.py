"""Looks at each send and delete on its way to the queue: is what must be durable by then durable?

Orders of steps are what promises rest on, and a run of the right product shows little of them: whatever a wrong order
loses is found again later by redelivery or by the reconciler. So they are not concluded from losses, but watched:

* a request is sent only when the job's row is in the store;
* a request is deleted only when its result, or a dead letter, was taken by its queue, and the sender had been told so;
* a reply is deleted only when the job's outcome is in the inbox (or the reply is kept aside, as it belongs to no job);
* a dead letter is deleted only when it is in the store.

Besides, all results published for a job must be one and the same.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Mapping
from hashlib import sha256

import sqlalchemy as sa

from airflow_provider_ai.adapters.store import open_store
from airflow_provider_ai.adapters.store.tables import DEAD_LETTERS, UNKNOWN_REPLIES
from airflow_provider_ai.core.jobs import JobState, Outcome
from airflow_provider_ai.core.messages import decode_result, id_in
from airflow_provider_ai.exceptions import StoreError, UndecodableMessageError

_STORE_SECONDS = 2.0
_CANNOT_LOOK = StoreError


class Auditor:
    """A watcher of a relay. ``violations`` are in words; ``skipped`` counts looks that the store did not answer.

    :param url: of the store
    :param queues: names of request, result and dead letter queue
    """

    def __init__(self, url: str, queues: tuple[str, str, str]) -> None:
        self.violations: list[str] = []
        self.skipped = self.looked = 0
        self.published: dict[str, set[tuple[str, str | None, str | None]]] = defaultdict(set)
        self._requests, self._results, self._dead = queues
        self._opened = open_store(url, timeout_seconds=_STORE_SECONDS)
        self._store = self._opened.jobs()
        self._of_handle: dict[str, bytes] = {}
        self._answered: set[str] = set()
        self._letters: set[bytes] = set()
        self._lock = threading.Lock()

    def close(self) -> None:
        """Let the store go."""
        self._opened.close()

    # --- what the relay tells

    def sending(self, queue: str, bodies: list[bytes]) -> None:
        """Before messages reach their queue."""
        if queue == self._results:
            with self._lock:
                for body in bodies:
                    self._note(body)
        elif queue == self._requests:
            names = [name for body in bodies if (name := id_in(body)) is not None]
            self._look(names, self._submitted, "sent before the job's row was in the store")

    def sent(self, queue: str, bodies: list[bytes]) -> None:
        """Their sender has been told that they are in."""
        with self._lock:
            if queue == self._results:
                self._answered.update(name for body in bodies if (name := id_in(body)) is not None)
            elif queue == self._dead:
                self._letters.update(bodies)

    def received(self, queue: str, bodies: Mapping[str, bytes]) -> None:
        """Messages by their receipt handles."""
        with self._lock:
            self._of_handle.update(bodies)

    def deleting(self, queue: str, handles: list[str]) -> None:
        """Before messages leave their queue."""
        with self._lock:
            bodies = [self._of_handle[handle] for handle in handles if handle in self._of_handle]
            left = [body for body in bodies if body not in self._letters]
        if queue == self._requests:
            with self._lock:
                names = [name for body in left if (name := id_in(body)) not in self._answered and name is not None]
                unnamed = sum(id_in(body) is None for body in left)
            self._look(names, self._cancelled, "deleted before its result was published")
            if unnamed:
                self._blame(f"{unnamed} requests that name no job deleted before they were dead letters")
        elif queue == self._results:
            self._look(left, self._arrived, "deleted before its outcome was in the inbox")
        elif queue == self._dead:
            self._look(bodies, self._kept, "dead letter deleted before it was kept")

    # --- what must be so

    def _note(self, body: bytes) -> None:
        try:
            result = decode_result(body)
        except UndecodableMessageError:
            return
        outcome: Outcome = result.outcome
        content = None if outcome.content is None else outcome.content.sha256
        self.published[result.job_id].add((outcome.state.value, content, outcome.reason))

    def _submitted(self, names: list[str]) -> set[str]:
        return set(self._store.arrived(names))

    def _cancelled(self, names: list[str]) -> set[str]:
        found = self._store.arrived(names)
        return {name for name, state in found.items() if state is JobState.CANCELLED}

    def _arrived(self, bodies: list[bytes]) -> set[bytes]:
        names = {body: id_in(body) for body in bodies}
        there = self._store.arrived([name for name in names.values() if name is not None])
        digests = self._column(UNKNOWN_REPLIES.c.digest)
        return {body for body, name in names.items() if there.get(name or "") or sha256(body).hexdigest() in digests}

    def _kept(self, bodies: list[bytes]) -> set[bytes]:
        kept = self._column(DEAD_LETTERS.c.message)
        return {body for body in bodies if body in kept}

    def _column(self, column: sa.Column[str] | sa.Column[bytes]) -> set[str | bytes]:
        with self._opened.session() as session:
            return set(session.run(sa.select(column), {}).scalars())

    def _look(self, things: list[str] | list[bytes], right: object, wrong: str) -> None:
        if not things:
            return
        try:
            fine = right(things)  # type: ignore[operator]
        except _CANNOT_LOOK:
            self.skipped += len(things)
            return
        self.looked += len(things)
        if bad := [thing for thing in things if thing not in fine]:
            self._blame(f"{len(bad)} messages: {wrong}")

    def _blame(self, what: str) -> None:
        with self._lock:
            self.violations.append(f"order: {what}")
