"""The store: a database whose tables are this package's, made at first use when there are none yet."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from airflow_provider_ai.adapters.codec import IdentityCodec
from airflow_provider_ai.adapters.store import schema
from airflow_provider_ai.adapters.store.database import Database, Session
from airflow_provider_ai.adapters.store.dead_letters import StoredDeadLetters
from airflow_provider_ai.adapters.store.gate import SharedGate
from airflow_provider_ai.adapters.store.good_answers import GoodAnswerStore
from airflow_provider_ai.adapters.store.jobs import StoredJobs
from airflow_provider_ai.core.call_settings import CallSettings
from airflow_provider_ai.core.ports import Codec

_UPGRADE_SECONDS = 60.0


class Store:
    """Sessions on a store. Thread-safe; a child process opens connections of its own.

    :param codec: between data and the database; what jobs bring with them has passed theirs already
    """

    def __init__(self, database: Database, codec: Codec | None = None) -> None:
        self.database = database
        self.codec: Codec = codec or IdentityCodec()
        self._durable: Database | None = None
        self._jobs: StoredJobs | None = None
        self._ready = False

    def __repr__(self) -> str:
        return f"<Store {self.database.where}>"

    @property
    def where(self) -> str:
        """The store in messages: kind, host or file; no credentials."""
        return self.database.where

    def gate(self, settings: CallSettings) -> SharedGate:
        """Circuit breakers and bulkheads."""
        return SharedGate(self, breaker=settings.breaker, max_concurrent_calls=settings.max_concurrent_calls)

    def answers(self) -> GoodAnswerStore:
        """Last good answers."""
        return GoodAnswerStore(self, codec=self.codec)

    def jobs(self) -> StoredJobs:
        """Jobs and the inbox; always the same ones, whose threads share commits."""
        if self._jobs is None:
            self._jobs = StoredJobs(self)
        return self._jobs

    def dead_letters(self) -> StoredDeadLetters:
        """Dead letters."""
        return StoredDeadLetters(self, codec=self.codec)

    def prepare(self) -> None:
        """Connect, and make the tables when there are none yet; the first session would do it."""
        with self.session():
            pass

    @contextmanager
    def session(self) -> Iterator[Session]:
        """A session in which each statement commits by itself.

        :raises StoreUnavailableError: when the database does not answer in time
        :raises StoreSchemaError: when its tables are older or newer than this package
        """
        if not self._ready:
            self._make_ready()
        with self.database.session() as session:
            yield session

    @contextmanager
    def transaction(self) -> Iterator[Session]:
        """A session whose statements are one transaction, which survives a power cut.

        :raises StoreUnavailableError: when the database does not answer in time
        :raises StoreSchemaError: when its tables are older or newer than this package
        """
        with self._durable_database().together() as session:
            yield session

    @contextmanager
    def durable_session(self) -> Iterator[Session]:
        """As :meth:`session`, but each commit survives a power cut."""
        with self._durable_database().session() as session:
            yield session

    def revision(self) -> str | None:
        """The revision of the tables; None when there are none yet."""
        if not self.database.exists():
            return None
        with self.database.session() as session:
            return session.attempt(schema.revision)

    def upgrade(self) -> None:
        """Bring the tables to this package's revision, or leave them as they are. Others who try wait.

        :raises StoreSchemaError: when they are newer than this package
        """
        with self.database.transaction(_UPGRADE_SECONDS) as connection:
            schema.upgrade(connection, self.where)

    def close(self) -> None:
        """Close the connections that are not in use. The next session opens new ones."""
        self.database.close()
        if self._durable is not None:
            self._durable.close()

    def _durable_database(self) -> Database:
        if not self._ready:
            self._make_ready()
        if self._durable is None:
            self._durable = self.database.durable()
        return self._durable

    def _make_ready(self) -> None:
        found = self.revision()
        if found is None:
            self.upgrade()
        else:
            schema.check(found, self.where)
        self._ready = True
