"""The last good answers, kept in the store through the codec. They are a help, so none is ever worth a failure.

An answer that cannot be decoded (another codec or key, a damaged row) counts as absent, with a warning, and one that
cannot be encoded is not kept. Keys are hashes of inputs: they are not logged, and under a codec that encrypts they are
hashed once more under its key, for an input with few possible values could be guessed from a plain hash.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import orjson
import sqlalchemy as sa
from sqlalchemy import bindparam

from airflow_provider_ai.adapters.codec import IdentityCodec
from airflow_provider_ai.adapters.store.database import Database
from airflow_provider_ai.adapters.store.tables import GOOD_ANSWERS
from airflow_provider_ai.core.call_ports import GoodAnswer
from airflow_provider_ai.core.purposes import GOOD_ANSWER
from airflow_provider_ai.exceptions import EncryptionError

if TYPE_CHECKING:
    from airflow_provider_ai.adapters.store.store import Store
    from airflow_provider_ai.core.ports import Codec

log = logging.getLogger(__name__)

MAX_BYTES = 1024 * 1024
KEEP_SECONDS = 7 * 86_400.0
_PRUNE_ONE_IN = 100  # saves, on the average
_PRUNED_AT_ONCE = 1_000  # rows: a statement must be done within its time limit


class GoodAnswerStore:
    """Good answers on a store. Thread-safe. Errors are StoreError.

    :param codec: between the JSON of an output and the database
    :param keep_seconds: older answers are removed now and then
    :param max_bytes: of an encoded output; a larger one is not kept, nor is the one before it
    """

    def __init__(
        self,
        store: Store,
        *,
        codec: Codec | None = None,
        keep_seconds: float = KEEP_SECONDS,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        self._store = store
        self._codec = codec or IdentityCodec()
        self._keep_seconds = keep_seconds
        self._max_bytes = max_bytes
        now = store.database.now
        self._load = sa.select(*GOOD_ANSWERS.c, (now - GOOD_ANSWERS.c.given_at).label("age")).where(_OF_KEY)
        self._save = _save(store.database)
        self._drop = sa.delete(GOOD_ANSWERS).where(_OF_KEY)
        self._prune = _prune(now)

    def load(self, key: str) -> GoodAnswer | None:
        """The answer kept under ``key``, however old; None when there is none that can be read."""
        try:
            key = self._codec.opaque(key)
        except EncryptionError as error:
            log.warning("%s: good answers cannot be looked up: %s", self._store.where, error)
            return None
        with self._store.session() as session:
            row = session.run(self._load, {"of_key": key, **self._store.database.moment()}).first()
        if row is None:
            return None
        try:
            output = self._decoded(row, key)
        except Exception as error:  # noqa: BLE001 - a codec may raise anything; the answer is then as good as none
            log.warning("%s: a good answer cannot be read: not used (%s)", self._store.where, type(error).__name__)
            return None
        return GoodAnswer(output=output, model=row.model, age_seconds=max(0.0, row.age))

    def save(self, key: str, output: Any, *, model: str) -> None:
        """Keep an answer in place of an older one.

        :param output: plain JSON values
        """
        try:
            key = self._codec.opaque(key)
            data = self._codec.encode(orjson.dumps(output), context=_context(key))
        except EncryptionError as error:
            log.warning("%s: a good answer cannot be encrypted: not kept (%s)", self._store.where, error)
            return
        moment = self._store.database.moment()
        with self._store.session() as session:
            if len(data) > self._max_bytes:
                log.warning("%s: a good answer of %d bytes is too large to be kept", self._store.where, len(data))
                session.run(self._drop, {"of_key": key})
                return
            row = {"of_key": key, "as_output": data, "as_codec": self._codec.name, "as_model": model}
            session.run(self._save, {**row, **moment})
            if random.randrange(_PRUNE_ONE_IN) == 0:
                session.run(self._prune, {"kept_seconds": self._keep_seconds, **moment})

    def _decoded(self, row: Any, key: str) -> Any:
        if row.codec != self._codec.name:
            raise LookupError(row.codec)
        return orjson.loads(self._codec.decode(row.output, context=_context(key)))


_OF_KEY = GOOD_ANSWERS.c.key == bindparam("of_key", type_=sa.Text())


def _context(key: str) -> Mapping[str, str]:
    return {"what": GOOD_ANSWER, "key": key}


def _save(database: Database) -> Any:
    row = database.insert(GOOD_ANSWERS).values(
        key=bindparam("of_key"),
        output=bindparam("as_output"),
        codec=bindparam("as_codec"),
        model=bindparam("as_model"),
        given_at=database.now,
    )
    rest = {name: row.excluded[name] for name in ("output", "codec", "model", "given_at")}
    return row.on_conflict_do_update(index_elements=["key"], set_=rest)


def _prune(now: sa.ColumnElement[Any]) -> sa.Delete:
    old = sa.select(GOOD_ANSWERS.c.key).where(
        GOOD_ANSWERS.c.given_at < now - bindparam("kept_seconds", type_=sa.Double())
    )
    return sa.delete(GOOD_ANSWERS).where(GOOD_ANSWERS.c.key.in_(old.limit(_PRUNED_AT_ONCE)))
