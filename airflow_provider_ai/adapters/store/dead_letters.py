"""Dead letters in the store: out of their queue, where they would be gone after its retention."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from airflow_provider_ai.adapters.codec import IdentityCodec
from airflow_provider_ai.adapters.store.tables import DEAD_LETTERS
from airflow_provider_ai.core.job_ports import DeadLetter
from airflow_provider_ai.core.ports import Codec
from airflow_provider_ai.core.purposes import DEAD_LETTER
from airflow_provider_ai.exceptions import StoreError

if TYPE_CHECKING:
    from airflow_provider_ai.adapters.store.store import Store

L = DEAD_LETTERS.c
_ORDER = (L.received_at, L.letter_id)


class StoredDeadLetters:
    """A :class:`~airflow_provider_ai.core.job_ports.DeadLetterStore` on a store. Thread-safe. Errors are StoreError.

    :param codec: between messages and what is stored: they may hold payloads
    """

    def __init__(self, store: Store, *, codec: Codec | None = None) -> None:
        self._store = store
        self._codec = codec or IdentityCodec()
        database = store.database
        self._insert = database.insert(DEAD_LETTERS).values(received_at=database.now).on_conflict_do_nothing()

    def keep(self, letters: Sequence[DeadLetter]) -> None:
        """Keep those that are not there yet, durably, all or nothing."""
        if not letters:
            return
        moment = self._store.database.moment()
        rows = [self._row(letter) | moment for letter in sorted(letters, key=lambda letter: letter.letter_id)]
        with self._store.transaction() as session:
            session.run(self._insert, rows)

    def letters(self, *, most: int, after: DeadLetter | None = None) -> Sequence[DeadLetter]:
        """Letters in the order in which they came, from ``after`` on."""
        found = sa.select(DEAD_LETTERS).order_by(*_ORDER).limit(most)
        if after is not None:
            found = found.where(sa.tuple_(*_ORDER) > sa.tuple_(after.received_at, after.letter_id))
        return self._found(found)

    def letter(self, letter_id: str) -> DeadLetter | None:
        """One letter."""
        return next(iter(self._found(sa.select(DEAD_LETTERS).where(L.letter_id == letter_id))), None)

    def remove(self, letter_ids: Sequence[str]) -> int:
        """Forget letters; how many there were."""
        if not letter_ids:
            return 0
        with self._store.durable_session() as session:
            return int(session.run(sa.delete(DEAD_LETTERS).where(L.letter_id.in_(list(letter_ids))), {}).rowcount)

    def _found(self, statement: Any) -> list[DeadLetter]:
        with self._store.session() as session:
            return [self._letter(row) for row in session.run(statement, {})]

    def _row(self, letter: DeadLetter) -> dict[str, Any]:
        return {
            "letter_id": letter.letter_id,
            "job_id": letter.job_id,
            "reason": letter.reason,
            "source": letter.source,
            "codec": self._codec.name,
            "message": self._codec.encode(letter.message, context=_context(letter.letter_id)),
        }

    def _letter(self, row: Any) -> DeadLetter:
        if row.codec != self._codec.name:
            raise StoreError(f"dead letter {row.letter_id} was kept with codec {row.codec!r}, not {self._codec.name!r}")
        return DeadLetter(
            letter_id=row.letter_id,
            job_id=row.job_id,
            reason=row.reason,
            source=row.source,
            message=self._codec.decode(row.message, context=_context(row.letter_id)),
            received_at=row.received_at,
        )


def _context(letter_id: str) -> dict[str, str]:
    return {"what": DEAD_LETTER, "letter_id": letter_id}
