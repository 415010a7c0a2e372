"""A sink, audited: what is about to be published, and then which records were, each named by its key."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from airflow_provider_ai.core.audit import AuditAction
from airflow_provider_ai.core.ports import Publication, PublishUnit, Sink
from airflow_provider_ai.exceptions import SinkError
from airflow_provider_ai.patterns.auditing import FAILED, INTENDED, SUCCEEDED, Auditor

if TYPE_CHECKING:
    import pyarrow as pa

KEYS_PER_EVENT = 8192


class AuditedSink:
    """A sink whose publications are audited. Raises AuditError before anything is written, or once it is.

    :param model: whose outputs they are
    :param prompt_hash: of their requests
    """

    def __init__(self, inner: Sink, auditor: Auditor, *, model: str | None, prompt_hash: str | None) -> None:
        self._inner = inner
        self._auditor = auditor
        self._model = model
        self._prompt_hash = prompt_hash

    def publish(self, unit: PublishUnit, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> int:
        """See :class:`Sink`. The first column of the rows is the id of their records."""
        self._record(unit, intended=True)
        keys: list[str] = []
        try:
            rows = self._inner.publish(unit, schema, self._passing(batches, keys))
        except SinkError as error:
            self._record(unit, intended=False, reason=type(error).__name__)
            raise
        for start in range(0, max(1, len(keys)), KEYS_PER_EVENT):
            self._record(unit, intended=False, keys=keys[start : start + KEYS_PER_EVENT])
        return rows

    def publications(self, scope: str) -> dict[str, Publication]:
        """See :class:`Sink`."""
        return self._inner.publications(scope)

    def prune(self, scope: str, *, plan: str) -> int:
        """See :class:`Sink`."""
        return self._inner.prune(scope, plan=plan)

    def close(self) -> None:
        """See :class:`Sink`."""
        self._inner.close()

    def _passing(self, batches: Iterable[pa.RecordBatch], keys: list[str]) -> Iterator[pa.RecordBatch]:
        keys.clear()
        for batch in batches:
            keys += map(self._auditor.key, batch.column(0).to_pylist())
            yield batch

    def _record(
        self, unit: PublishUnit, *, intended: bool, keys: list[str] | None = None, reason: str | None = None
    ) -> None:
        auditor = self._auditor
        auditor.record(
            auditor.event(
                AuditAction.PUBLISH,
                INTENDED if intended else FAILED if reason is not None else SUCCEEDED,
                keys=keys or (),
                model=self._model,
                prompt_hash=self._prompt_hash,
                reference=unit.partition,
                reason=reason,
            )
        )
